"""A POST to an address that somebody else has named: bounded in time, and in what is read of the answer."""

import asyncio
from collections.abc import Mapping
from typing import Final

import httpx

POST_TIMEOUT_SECONDS: Final = 15.0
"""For a whole attempt, from the look-up of the name on."""
MAX_ANSWER_BYTES: Final = 64 * 1024
"""Of an answer's body as much is read, so that the connection can be used again; none of it is kept."""


async def post(
    http: httpx.AsyncClient, url: str, content: bytes, headers: Mapping[str, str]
) -> httpx.Response:
    """Returns the answer's status and headers.

    Raises:
        TimeoutError: There was no answer in time.
        RequestInvalidError: The address is one that isn't open.
        httpx.HTTPError: It could not be reached, or has not spoken HTTP.
    """
    async with (
        asyncio.timeout(POST_TIMEOUT_SECONDS),
        http.stream("POST", url, content=content, headers=dict(headers)) as response,
    ):
        read = 0
        async for chunk in response.aiter_raw():
            read += len(chunk)
            if read > MAX_ANSWER_BYTES:
                break
    return response


def no_answer(error: Exception) -> str:
    """Returns what a log says of one that isn't a ``TimeoutError``."""
    kind = type(error).__name__
    if isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError):
        # The peer has ended amid it, and may have taken what was sent.
        return f"the connection ended without a whole answer ({kind})"
    return f"no answer ({kind})"


def out_of_time() -> str:
    """Returns what a log says of a ``TimeoutError``."""
    return f"no answer within {POST_TIMEOUT_SECONDS:.0f} seconds"
