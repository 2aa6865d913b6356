"""The origin of a URL, as mandates name sellers. Pure: nothing is resolved or sent.

URLs are parsed by httpx, which also sends the requests: the origin compared with a mandate must be the one
that is called, and two parsers differ.
"""

import ipaddress

import httpx

from waystation.errors import WaystationError


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
    parsed = httpx.URL(url)
    if not parsed.host or parsed.userinfo:
        raise RequestInvalidError("url_invalid", "the URL needs a host and no user name or password")
    if parsed.scheme != "https" and not _is_loopback(parsed.host):
        raise RequestInvalidError("tls_required", "payments go over https only (http is allowed on loopback)")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin_of(url: str) -> str:
    """Returns ``https://host[:port]`` in lower case, as mandates name sellers."""
    parsed = httpx.URL(url)
    default = {"http": 80, "https": 443}.get(parsed.scheme)
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    port = "" if parsed.port in (None, default) else f":{parsed.port}"
    return f"{parsed.scheme}://{host}{port}".lower()
