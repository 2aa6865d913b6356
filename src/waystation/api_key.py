"""What an API key or a session token must look like to travel in a header."""

from waystation.errors import StartError


def check_api_key(key: str) -> str:
    """Returns the key.

    Raises:
        StartError: It holds what no key has and no header takes: spaces, line ends, letters beyond ASCII.
            The message never holds the key.
    """
    if not key.isascii() or not key.isprintable() or " " in key:
        raise StartError(
            "the API key has a character that keys never have (a space, a line end, a letter beyond ASCII); "
            "copy it again, see WAYSTATION_API_KEY"
        )
    return key
