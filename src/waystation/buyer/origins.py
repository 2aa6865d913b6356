"""The origin of a URL, as mandates name sellers. Pure: nothing is resolved or sent.

URLs are parsed by httpx, which also sends the requests: the origin compared with a mandate must be the one
that is called, and two parsers differ.
"""

from waystation.errors import WaystationError
from waystation.models import urls


class RequestInvalidError(WaystationError):
    """The request can't be made at all, and nothing was sent. ``rule`` is stable."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


def check_transport(url: str) -> None:
    """Checks that a payment to ``url`` would go over TLS, or stay on this machine.

    Raises:
        RequestInvalidError: ``url_invalid``, ``tls_required``.
    """
    try:
        parsed = urls.parse_url(url)
    except ValueError as error:
        raise RequestInvalidError("url_invalid", str(error)) from None
    if parsed.userinfo:
        raise RequestInvalidError("url_invalid", "the URL may hold no user name or password")
    if parsed.scheme != "https" and not urls.is_loopback(parsed.host):
        raise RequestInvalidError("tls_required", "payments go over https only (http is allowed on loopback)")


def origin_of(url: str) -> str:
    """Returns ``https://host[:port]`` in lower case, as mandates name sellers.

    Raises:
        RequestInvalidError: ``url_invalid``.
    """
    try:
        return urls.origin_of(url)
    except ValueError as error:
        raise RequestInvalidError("url_invalid", str(error)) from None
