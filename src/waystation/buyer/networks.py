"""Where requests may go (public addresses, and private networks that a setting names), and for how long.

Addresses are checked when a connection is made, so neither a redirect nor a name that resolves to another
address the second time can lead into a private network.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpcore
import httpx

from waystation.buyer.origins import RequestInvalidError

CONNECT_TIMEOUT_SECONDS: Final = 10.0
READ_TIMEOUT_SECONDS: Final = 40.0
"""A server settles before it answers, and stock servers wait up to 30 seconds for that."""
WHOLE_ANSWER_TIMEOUT_SECONDS: Final = 55.0
"""However slowly the bytes arrive."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Returns texts such as ``["127.0.0.0/8", "::1/128"]`` as networks.

    Raises:
        ValueError: A text is not a network.
    """
    return tuple(ipaddress.ip_network(text) for text in texts)


def is_public(address: str, allowed: Sequence[Network] = ()) -> bool:
    """Returns whether requests may go to an address: a public one, or one in an allowed network."""
    ip: Any = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = mapped or ip
    if any(ip.version == network.version and ip in network for network in allowed):
        return True
    embedded = getattr(ip, "sixtofour", None) or (getattr(ip, "teredo", None) or (None, None))[1]
    if embedded is not None and not is_public(str(embedded)):
        return False
    return bool(ip.is_global) and not ip.is_multicast


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Resolves a name once, checks every address, and connects to one that was checked."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = tuple(allowed)
        self._inner: Any = httpcore.AnyIOBackend()  # its type differs where anyio is missing

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception | None = None
        for address in await self._addresses(host, port):
            try:
                stream: httpcore.AsyncNetworkStream = await self._inner.connect_tcp(
                    address, port, timeout=timeout, local_address=local_address, socket_options=socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return stream
        raise failure or httpcore.ConnectError(f"{host} has no address")

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} does not resolve") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not all(is_public(address, self._allowed) for address in addresses):
            raise RequestInvalidError(
                "private_address",
                f"{host} is in a private network; name it in WAYSTATION_ALLOWED_NETWORKS if it may be paid",
            )
        return addresses

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class CheckedTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport, which connects only to public addresses and ``allowed`` networks.

    Raises ``RequestInvalidError`` (``private_address``) before anything is sent.
    """

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        limits = httpx.Limits()
        super().__init__(limits=limits)
        # httpx has no parameter for the network backend, httpcore has.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_CheckedBackend(allowed),
        )


def checked_client(
    allowed: Sequence[Network] = (), *, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """Returns a client for servers that agents name; it follows no redirects and keeps no cookies.

    It goes only where ``CheckedTransport`` lets it. All agents share one client, so what a server sets for
    one agent must not be sent for another. In tests, ``transport`` replaces the network (and the address
    check).
    """
    return httpx.AsyncClient(
        transport=transport or CheckedTransport(allowed),
        timeout=httpx.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )
