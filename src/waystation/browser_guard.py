"""Keeps web pages of others from acting on a server of ours: one middleware for every HTTP server here.

A browser sends requests for any page. Three checks tell those apart from a program's or our own page's:

- ``Host``: a page whose name was pointed at this machine (DNS rebinding) still says its own name.
- ``Sec-Fetch-Site`` and ``Origin``: browsers say which page asks. What only reads needs no check, because a
  page of another origin can't see the answer.
- ``Content-Type``: a form or plain text needs no permission from the server; JSON does, which is never given.

Programs send neither ``Origin`` nor ``Sec-Fetch-Site``, and JSON.
"""

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_ONLY_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

Code = Literal["wrong-host", "wrong-origin", "wrong-content-type"]
_STATUS: Final[Mapping[Code, int]] = {"wrong-host": 421, "wrong-origin": 403, "wrong-content-type": 415}
_TITLE: Final[Mapping[Code, str]] = {
    "wrong-host": "Wrong host",
    "wrong-origin": "Wrong origin",
    "wrong-content-type": "Wrong content type",
}
_REFUSED_SOCKET: Final = 1008


class BrowserGuard:
    """Refuses what only a page of somebody else would send.

    Args:
        app: the server behind it.
        hosts: the names under which the server is reached; ``None`` if they aren't known: any will do.
        origins: web origins, besides the server's own, whose pages may act.
        content_types: what bodies of acting requests may be; ``+json`` counts as JSON.
    """

    def __init__(
        self,
        app: "ASGIApp",
        *,
        hosts: Collection[str] | None = LOOPBACK_NAMES,
        origins: Collection[str] = (),
        content_types: Collection[str] = (JSON,),
    ) -> None:
        self._app = app
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origins)
        self._content_types = frozenset(content_types)

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serves the request, or refuses it with a problem document."""
        if scope["type"] in ("http", "websocket"):
            refused = self._why_not(scope)
            if refused is not None:
                await _refuse(scope, receive, send, *refused)
                return
        await self._app(scope, receive, send)

    def _why_not(self, scope: "Scope") -> tuple[Code, str] | None:
        headers = _headers(scope)
        host = headers.get("host", "")
        if self._hosts is not None and _name_of(host) not in self._hosts:
            return (
                "wrong-host",
                f"This server is not '{host[:100]}'. If it has that name, say so in its settings.",
            )
        acts = scope["type"] == "websocket" or scope["method"] not in _ONLY_READS
        if not acts:
            return None
        if not self._may_act(headers, host):
            return "wrong-origin", "A page of this origin may not act here."
        if scope["type"] == "http" and not self._is_readable(headers):
            wanted = " or ".join(sorted(self._content_types))
            return "wrong-content-type", f"Send the body as {wanted}, and say so in 'Content-Type'."
        return None

    def _may_act(self, headers: Mapping[str, str], host: str) -> bool:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin in self._origins and origin is not None:
            return True
        if site is not None:  # only browsers set it, and no page can
            return site in ("same-origin", "none")
        # Compared as text: what a page sends is not parsed, for it may be no URL at all.
        return origin is None or (host != "" and origin.lower().partition("://")[2] == host.lower())

    def _is_readable(self, headers: Mapping[str, str]) -> bool:
        if "transfer-encoding" not in headers and headers.get("content-length", "0") == "0":
            return True
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind.startswith("application/") and kind.endswith("+json"):
            kind = JSON
        return kind in self._content_types


def _headers(scope: "Scope") -> dict[str, str]:
    """Returns the headers by lower-case name. One that comes twice is joined, and so fits no rule."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def _name_of(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


async def _refuse(scope: "Scope", receive: "Receive", send: "Send", code: Code, detail: str) -> None:
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        await send({"type": "websocket.close", "code": _REFUSED_SOCKET, "reason": detail[:120]})
        return
    status = _STATUS[code]
    problem = {
        "type": f"/problems/{code}",
        "code": code,
        "title": _TITLE[code],
        "status": status,
        "detail": detail,
    }
    headers = [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(problem).encode()})
