"""Reads everything about money that is left: Waystation's word, and that of those who moved it."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any, Final

import httpx
from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload
from temporalio.client import Client as TemporalClient

from tests.torture.evidence import Final as FinalState
from tests.torture.reading import get
from tests.torture.world import World
from tests.world.market import SHOP_KEY
from waystation.protocols.acp import API_VERSION
from waystation.temporal.messages import ALLOWANCE

KINDS: Final = {
    "Purchase": ("purchases", ("", "/audit")),
    "PaidRequest": ("payments", ("", "/audit")),
    "Allowance": ("allowances", ("", "/audit")),
    "Mandate": ("mandates", ("",)),
}
"""By workflow type: where the API shows it, and what it shows of it."""
READ_ONE_SECONDS: Final = 15.0
"""How long one of them may take to show itself, when all is calm."""
SETTLED_SECONDS: Final = 50.0
"""How long allowances may last here, and be settled."""


async def read_money(world: World, http: httpx.AsyncClient, final: FinalState) -> None:
    """Adds to what is read at the end what the oracle's promises about money need."""
    market, client = world.market, world.client
    assert market is not None, "there is one"
    assert client is not None, "the world has started"
    api = f"http://127.0.0.1:{world.api_ports[0]}"
    read: dict[str, Any] = {"running": {}, "trails": {}, "unreadable": {}}
    for where, _ in KINDS.values():
        read[where] = {}
    await _until_settled(client)
    for type_, (where, parts) in KINDS.items():
        async for workflow in client.list_workflows(f"WorkflowType = '{type_}'"):
            status = workflow.status.name if workflow.status else ""
            if status == "CONTINUED_AS_NEW":
                continue
            read["running"][workflow.id] = status
            try:
                async with asyncio.timeout(READ_ONE_SECONDS):
                    read[where][workflow.id] = await get(http, f"{api}/{where}/{workflow.id}")
                    if len(parts) > 1:
                        trail = await get(http, f"{api}/{where}/{workflow.id}/audit")
                        read["trails"][workflow.id] = trail["entries"]
            except (TimeoutError, httpx.HTTPError) as error:
                read["unreadable"][workflow.id] = f"{type(error).__name__}: {error}"[:300]
    read["ledger"] = market.processor.books()
    read["transfers"] = market.paid_api.transfers()
    read["sales"] = {name: shop.state()["sales"] for name, shop in market.shops.items()}
    read["second_charges"] = [shop.state()["second_charge"] for shop in market.shops.values()]
    read["checkouts"] = {
        sale["checkout"]: await _checkout(http, market.shops[name].url, sale["checkout"])
        for name, sales in read["sales"].items()
        for sale in sales
    }
    final.more["money"] = read
    shoppers = [actor.name for actor in world.plan.actors if actor.kind == "shopper"]
    read["events"] = {name: await _events(http, f"{api}/sessions/{name}") for name in shoppers}
    final.secrets |= market.secrets()
    tokens = enumerate(read["ledger"]["tokens"])
    final.secrets |= {f"payment token {number}": one["id"] for number, one in tokens}
    read["clear"] = await _read_payloads(client)


async def _until_settled(client: TemporalClient) -> None:
    """Waits until the lifetimes of allowances are over, whose agents may have died."""
    deadline = time.monotonic() + SETTLED_SECONDS
    query = f"WorkflowType = '{ALLOWANCE.name}' AND ExecutionStatus = 'Running'"
    while time.monotonic() < deadline:
        if not [workflow.id async for workflow in client.list_workflows(query)]:
            return
        await asyncio.sleep(1.0)


async def _checkout(http: httpx.AsyncClient, shop: str, checkout: str) -> Any:
    """Returns a checkout as the shop keeps it."""
    headers = {"Authorization": f"Bearer {SHOP_KEY}", "API-Version": API_VERSION}
    return (await http.get(f"{shop}/checkout_sessions/{checkout}", headers=headers, timeout=10.0)).json()


async def _events(http: httpx.AsyncClient, session: str) -> str:
    """Returns what a session in which an agent went shopping shows; nothing if it was never begun."""
    try:
        pages = [await get(http, f"{session}/replay?after=0"), await get(http, f"{session}/transcript")]
    except httpx.HTTPStatusError:
        return ""
    return json.dumps(pages)


async def _read_payloads(client: TemporalClient) -> dict[str, str]:
    """Returns what the histories about money hold when decrypted: secrets are sealed in there, too."""
    texts: dict[str, str] = {}
    codec = client.data_converter.payload_codec
    assert codec is not None, "payloads are encrypted"
    for type_ in KINDS:
        async for workflow in client.list_workflows(f"WorkflowType = '{type_}'"):
            history = await client.get_workflow_handle(workflow.id, run_id=workflow.run_id).fetch_history()
            encrypted = [payload for event in history.events for payload in _payloads(event)]
            clear = await codec.decode(encrypted)
            name = f"{workflow.id}@{workflow.run_id}"
            texts[name] = "\n".join(one.data.decode(errors="replace") for one in clear)
    return texts


def _payloads(message: Message) -> Iterator[Payload]:
    """Yields every payload in a message of Temporal's, however deep."""
    if isinstance(message, Payload):
        yield message
        return
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        inner = list(value.values()) if hasattr(value, "values") else value
        for one in [inner] if isinstance(inner, Message) else inner:
            if isinstance(one, Message):
                yield from _payloads(one)
