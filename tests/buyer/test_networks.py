"""Where requests may go: no private network, whatever a name resolves to and wherever a redirect leads."""

import asyncio
import ipaddress
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.buyer.bench import AGENT, Bench, usd
from tests.world.listener import listening
from waystation.buyer.answers import AnswerStore
from waystation.buyer.http import PaidHttp
from waystation.buyer.networks import METADATA, CheckedTransport, Network, is_public, read_networks
from waystation.buyer.origins import RequestInvalidError
from waystation.buyer.payer import Payer, PaymentRefusedError
from waystation.buyer.products import ProductSearchFailed, search_products
from waystation.models.payments import PaidHttpRequest
from waystation.settings import MoneySettings

LOOPBACK = read_networks(["127.0.0.0/8", "::1/128"])


class Listener:
    """A server on this machine that counts who came, and answers what it was told to."""

    def __init__(self) -> None:
        self.connections = 0
        self.heads: list[bytes] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.port = 0

    def answers_json(self, document: Any) -> None:
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.answer = head.encode() + body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.answer)
        await writer.drain()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    made = Listener()
    async with listening(made.serve) as server:
        made.port = server.port
        yield made


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "2002:a9fe:a9fe::", "2002:101:101::",
        "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b:1::1", "64:ff9b:1::101:101", "::7f00:1",
        "::101:101", "2001:0:a00:1::1", "fec0::1", "fd00:ec2::254", "100.100.100.200", "168.63.129.16",
    ],
)  # fmt: skip
def test_these_addresses_are_private(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_these_are_public(address: str) -> None:
    assert is_public(address)


def test_a_setting_allows_networks() -> None:
    allowed = read_networks(["10.1.0.0/16", "::1/128"])
    assert is_public("10.1.2.3", allowed)
    assert is_public("::1", allowed)
    assert not is_public("10.2.0.1", allowed)


async def test_a_request_to_a_private_address_never_connects(listener: Listener) -> None:
    async with httpx.AsyncClient(transport=CheckedTransport()) as client:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"):
            with pytest.raises((RequestInvalidError, httpx.HTTPError, httpx.InvalidURL)):
                await client.get(f"http://{host}:{listener.port}/")
    assert listener.connections == 0
    async with httpx.AsyncClient(transport=CheckedTransport(LOOPBACK)) as client:
        assert (await client.get(f"http://127.0.0.1:{listener.port}/")).text == "ok"


@pytest.mark.parametrize(
    ("host", "helps"),
    [
        ("10.0.0.1", True),
        ("[fc00::1]", True),
        ("169.254.169.254", False),
        ("[::ffff:169.254.169.254]", False),
    ],
)
async def test_a_setting_is_suggested_only_where_it_helps(host: str, helps: bool) -> None:
    async with httpx.AsyncClient(transport=CheckedTransport()) as client:
        with pytest.raises(RequestInvalidError) as refused:
            await client.get(f"http://{host}/")
    assert ("WAYSTATION_ALLOWED_NETWORKS" in str(refused.value)) is helps
    assert refused.value.rule == "private_address"


async def test_a_name_is_resolved_once_and_its_address_used(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the second answer would be private, but nobody asks a second time."""
    answers = ["203.0.113.9", "127.0.0.1"]
    asked: list[str] = []

    async def resolve(host: Any, port: Any, **more: Any) -> Any:
        asked.append(str(host))
        address = answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    connected: list[str] = []

    class Inner:
        async def connect_tcp(self, host: str, port: int, **more: Any) -> Any:
            connected.append(host)
            raise ConnectionRefusedError

    transport = CheckedTransport()
    backend: Any = transport._pool._network_backend
    backend._inner = Inner()
    backend._allowed = read_networks(["203.0.113.0/24"])
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(ConnectionRefusedError):
            await client.get("https://rebinding.test/")
        assert (asked, connected) == (["rebinding.test"], ["203.0.113.9"])
        with pytest.raises(RequestInvalidError, match="private network"):
            await client.get("https://rebinding.test/")
    assert connected == ["203.0.113.9"]


async def test_one_private_address_among_public_ones_is_enough_to_refuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def resolve(host: Any, port: Any, **more: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in ("1.1.1.1", "10.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    async with httpx.AsyncClient(transport=CheckedTransport()) as client:
        with pytest.raises(RequestInvalidError) as refused:
            await client.get("https://mixed.test/")
    assert refused.value.rule == "private_address"


async def test_a_redirect_is_followed_within_the_origin_alone(bench: Bench, listener: Listener) -> None:
    store = AnswerStore(bench.temporal.data_converter)
    target = b"http://169.254.169.254/latest/meta-data"
    listener.answer = b"HTTP/1.1 302 Found\r\nLocation: " + target + b"\r\nContent-Length: 0\r\n\r\n"
    http = PaidHttp(answers=store, allowed=LOOPBACK)
    with pytest.raises(RequestInvalidError) as refused:
        await http.ask(PaidHttpRequest(url=f"http://127.0.0.1:{listener.port}/"), "owner")
    assert refused.value.rule == "redirected_elsewhere"
    await http.close()


async def test_an_agent_can_not_reach_into_the_private_network(bench: Bench, listener: Listener) -> None:
    mandate = await bench.mandate(usd(1_000))  # any seller
    agent = Payer(bench.temporal, mandate_id=mandate, agent=AGENT, task_queue=bench.task_queue)
    with pytest.raises(PaymentRefusedError) as refused:
        await agent.fetch(f"http://127.0.0.1:{listener.port}/", max_price=usd(50))
    assert (refused.value.rule, refused.value.money_moved) == ("private_address", "no")
    assert listener.connections == 0
    await agent.close()


EVERYTHING = read_networks(["0.0.0.0/0", "::/0"])


def ways_to(ip: ipaddress.IPv4Address) -> list[str]:
    """The addresses that lead to an IPv4 address."""
    high, low = int(ip) >> 16, int(ip) & 0xFFFF
    last = f"{high:x}:{low:x}"
    return [
        str(ip), f"::ffff:{last}", f"::{last}", f"64:ff9b::{last}", f"64:ff9b:1::{last}", f"2002:{last}::",
        str(ipaddress.IPv6Address((0x20010000 << 96) | (int(ip) ^ 0xFFFF_FFFF))),
    ]  # fmt: skip


@pytest.mark.parametrize("network", METADATA, ids=str)
def test_no_setting_opens_what_a_cloud_tells_its_machines(network: Network) -> None:
    address = network.network_address
    ways = ways_to(address) if isinstance(address, ipaddress.IPv4Address) else [str(address)]
    assert [one for one in ways if is_public(one, EVERYTHING)] == []


@given(st.ip_addresses(v=4))
def test_no_way_leads_to_an_address_that_is_not_public_itself(ip: ipaddress.IPv4Address) -> None:
    if not is_public(str(ip)):
        assert [one for one in ways_to(ip) if is_public(one)] == []


def selling(allowed: tuple[str, ...] = (), **credentials: str) -> MoneySettings:
    by_name = {origin: SecretStr(value) for origin, value in credentials.items()}
    return MoneySettings(
        allowed_networks=allowed,
        seller_credentials=by_name,
        seller_default_credential=SecretStr("for sellers that a mandate names"),
    )


async def test_a_search_goes_into_no_private_network(listener: Listener) -> None:
    with pytest.raises(ProductSearchFailed, match="private network"):
        await search_products(f"http://127.0.0.1:{listener.port}", settings=selling())
    assert listener.connections == 0


async def test_a_discovery_document_leads_a_search_into_no_private_network(listener: Listener) -> None:
    document = {
        "protocol": {"name": "acp", "version": "2026-04-17", "supported_versions": ["2026-04-17"]},
        "api_base_url": "https://169.254.169.254/latest",
        "transports": ["rest"],
        "capabilities": {"services": ["checkout"]},
    }
    listener.answers_json(document)
    with pytest.raises(ProductSearchFailed, match="answers its own machines"):
        await search_products(f"http://127.0.0.1:{listener.port}", settings=selling(("127.0.0.0/8",)))
    assert listener.connections == 1


async def test_a_credential_goes_to_the_origin_it_is_named_for_alone(listener: Listener) -> None:
    listener.answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    seller = f"http://127.0.0.1:{listener.port}"
    for named, sent in ((seller, True), ("https://shop.example", False)):
        listener.heads.clear()
        with pytest.raises(ProductSearchFailed, match="404"):
            await search_products(
                seller, settings=selling(("127.0.0.0/8",), **{named: "only for its origin"})
            )
        discovery, feed = listener.heads
        assert b"authorization" not in discovery.lower()
        assert (b"only for its origin" in feed) == sent
        assert b"mandate names" not in feed
