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

FOR_PAYMENTS: Final = "WAYSTATION_ALLOWED_NETWORKS"
"""The setting that names the private networks which payments may go to."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Returns texts such as ``["127.0.0.0/8", "::1/128"]`` as networks.

    Raises:
        ValueError: A text is not a network.
    """
    return tuple(ipaddress.ip_network(text) for text in texts)


METADATA: Final = read_networks(
    [
        "169.254.169.254/32",  # AWS, Azure, Google, Oracle, DigitalOcean, …
        "169.254.170.2/32", "169.254.170.23/32", "fd00:ec2::23/128",  # AWS: containers
        "169.254.169.253/32", "fd00:ec2::253/128",  # AWS: names
        "fd00:ec2::254/128",  # AWS over IPv6
        "fd20:ce::254/128",  # Google over IPv6
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure: the host
        "192.0.0.192/32",  # Oracle, formerly
    ]
)  # fmt: skip
"""Where clouds answer their own machines. No setting opens these."""
IPV4_IN_LAST_BITS: Final = read_networks(["::/96", "64:ff9b::/96", "64:ff9b:1::/48"])
"""IPv4-compatible addresses, and NAT64 (RFC 6052, RFC 8215)."""
NEVER_PUBLIC: Final = read_networks(
    [
        "::/96",  # IPv4-compatible, deprecated by RFC 4291
        "64:ff9b:1::/48",  # NAT64 within a network, RFC 8215
        "2001::/32", "2002::/16",  # Teredo and 6to4: tunnels that nobody serves on
        "fec0::/10",  # site-local, deprecated by RFC 3879
    ]
)  # fmt: skip
"""What Python's ``is_global`` takes for public, or did in some version, and nobody sells from."""


def is_public(address: str, allowed: Sequence[Network] = ()) -> bool:
    """Returns whether requests may go to an address: a public one, or one in an allowed network.

    An IPv6 address that carries an IPv4 address leads there, so both must be ones where requests may go. What
    a cloud tells its machines (their credentials, say) is never public, whatever is allowed.
    """
    if is_metadata(address):
        return False
    ip = _parsed(address)
    inner = _embedded(ip)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return is_public(str(ip.ipv4_mapped), allowed)
    if _is_in(ip, allowed):
        return True
    if _is_in(ip, NEVER_PUBLIC) or not ip.is_global or ip.is_multicast:
        return False
    return all(is_public(str(one), allowed) for one in inner)


def is_metadata(address: str) -> bool:
    """Returns whether an address leads to where a cloud answers its own machines, in whatever disguise."""
    ip = _parsed(address)
    return any(_is_in(one, METADATA) for one in (ip, *_embedded(ip)))


def _parsed(address: str) -> Address:
    return ipaddress.ip_address(address.partition("%")[0])


def _is_in(ip: Address, networks: Iterable[Network]) -> bool:
    return any(ip.version == network.version and ip in network for network in networks)


def _embedded(ip: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """Returns the IPv4 addresses that an IPv6 address stands for, where its network is a way to IPv4."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ()
    found = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if _is_in(ip, IPV4_IN_LAST_BITS):
        found.append(ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF))
    return tuple(one for one in found if one is not None)


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Resolves a name once, checks every address, and connects to one that was checked."""

    def __init__(self, allowed: Sequence[Network], setting: str) -> None:
        self._allowed, self._setting = tuple(allowed), setting
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
        except (OSError, ValueError, OverflowError) as error:  # of a name that can't be one, or a port
            raise httpcore.ConnectError(f"{host} does not resolve") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if any(is_metadata(address) for address in addresses):
            raise RequestInvalidError(
                "private_address",
                f"{host} is where a cloud answers its own machines: no setting lets requests go there",
            )
        if not all(is_public(address, self._allowed) for address in addresses):
            raise RequestInvalidError(
                "private_address",
                f"{host} is in a private network; name it in {self._setting} if requests may go there",
            )
        return addresses

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class CheckedTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport, which connects only to public addresses and ``allowed`` networks.

    Raises ``RequestInvalidError`` (``private_address``) before anything is sent.
    """

    def __init__(self, allowed: Sequence[Network] = (), *, setting: str = FOR_PAYMENTS) -> None:
        """``setting`` is what allows them, for the words of a refusal."""
        limits = httpx.Limits()
        super().__init__(limits=limits)
        # httpx has no parameter for the network backend, httpcore has.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_CheckedBackend(allowed, setting),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request; an answer that leads to what is no URL is none."""
        response = await super().handle_async_request(request)
        try:
            _ = request.url.join(response.headers.get("location", "")).host
        except (httpx.InvalidURL, ValueError):
            await response.aclose()
            raise httpx.RemoteProtocolError("the server redirects to what is no URL") from None
        return response


def checked_client(
    allowed: Sequence[Network] = (),
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    setting: str = FOR_PAYMENTS,
) -> httpx.AsyncClient:
    """Returns a client for servers that agents or callers name; it follows no redirects and keeps no cookies.

    It goes only where ``CheckedTransport`` lets it. All agents share one client, so what a server sets for
    one agent must not be sent for another. In tests, ``transport`` replaces the network (and the address
    check).
    """
    return httpx.AsyncClient(
        transport=transport or CheckedTransport(allowed, setting=setting),
        timeout=httpx.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )
