"""What is wrong with input that doesn't fit its model, in words that name the place."""

from pydantic import ValidationError


def what_is_wrong(error: ValidationError, *, whole: str = "input") -> list[str]:
    """Returns ``<place>: <what is wrong>`` for each error, and never what was given.

    ``whole`` names the input itself, for errors that have no place in it.

    >>> from pydantic import TypeAdapter
    >>> try:
    ...     TypeAdapter(dict[str, int]).validate_python({"n": "x"})
    ... except ValidationError as error:
    ...     print(what_is_wrong(error)[0].partition(",")[0])
    n: Input should be a valid integer
    """
    return [f"{place or whole}: {wrong}" for place, wrong in places_and_faults(error)]


def places_and_faults(error: ValidationError) -> list[tuple[str, str]]:
    """Returns each place, empty for the input itself, and what is wrong there."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [(".".join(map(str, item["loc"])), item["msg"]) for item in found]
