"""URLs from outside, parsed once and by httpx, which also sends the requests.

What a workflow compares with a mandate must be what is called, and two parsers differ. A URL that passes here
has an origin, whenever and wherever that is asked for.
"""

import ipaddress
import re
from typing import Annotated, Final

import httpx
from pydantic import AfterValidator, StringConstraints, WithJsonSchema

MAX_URL_CHARACTERS: Final = 8_192
MAX_PORT: Final = 65_535
ORIGIN_PATTERN: Final = r"^https?://[a-z0-9.\-\[\]:]{1,190}$"


def parse_url(text: str) -> httpx.URL:
    """Returns an absolute ``http`` or ``https`` URL with a host, all of whose parts can be read.

    Raises:
        ValueError: It is anything else.
    """
    try:
        url = httpx.URL(text)
        host = url.host  # decodes an international name, which fails on what isn't one
        text.encode()
    except (httpx.InvalidURL, ValueError):
        raise ValueError("not a URL that a request can be sent to") from None
    if url.scheme not in ("http", "https") or not host:
        raise ValueError("a URL begins with http:// or https:// and has a host")
    if url.port is not None and not 0 < url.port <= MAX_PORT:
        raise ValueError(f"a URL's port is a number from 1 to {MAX_PORT}")
    return url


def origin_of(text: str) -> str:
    """Returns ``https://host[:port]`` in lower case, as mandates name sellers.

    Raises:
        ValueError: It is not a URL; see ``parse_url``.
    """
    url = parse_url(text)
    default = {"http": 80, "https": 443}[url.scheme]
    host = f"[{url.host}]" if ":" in url.host else url.host
    port = "" if url.port in (None, default) else f":{url.port}"
    return f"{url.scheme}://{host}{port}".lower()


def is_loopback(host: str) -> bool:
    """Returns whether a host, as its URL names it, is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_url(text: str) -> str:
    """Returns the text, if it is a URL.

    Raises:
        ValueError: See ``parse_url``.
    """
    parse_url(text)
    return text


def check_origin(text: str) -> str:
    """Returns the text, if it is a web origin as mandates name sellers.

    Raises:
        ValueError: It is not; see also ``parse_url``.
    """
    if not re.fullmatch(ORIGIN_PATTERN, text):
        raise ValueError(
            "an origin is http:// or https:// and a host in lower case, without a path: https://shop.example"
        )
    return check_url(text)


Url = Annotated[
    str, StringConstraints(pattern=r"^https?://", max_length=MAX_URL_CHARACTERS), AfterValidator(check_url)
]
"""An absolute ``http`` or ``https`` URL that a request can be sent to."""

Origin = Annotated[
    str, AfterValidator(check_origin), WithJsonSchema({"type": "string", "pattern": ORIGIN_PATTERN})
]
"""A web origin in lower case, without a path: ``https://shop.example``."""
