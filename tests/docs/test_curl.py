"""The examples of docs/http-api.md are run as they stand, against a real API."""

import asyncio
import os
import re
import shutil
import signal
import uuid
from collections.abc import AsyncIterator

import pytest

from tests.docs.support import blocks
from tests.docs.test_complete import sections
from tests.support import environment, eventually
from tests.world.receiver import Receiver, running_receiver
from tests.world.stack import KEYS, Stack
from waystation.client import Client
from waystation.client.webhooks import Webhooks
from waystation.temporal.connect import open_client
from waystation.temporal.names import SESSION_TASK_QUEUE

EXAMPLES = {route: blocks(text, "sh") for route, text in sections().items() if blocks(text, "sh")}
STREAMS = {"GET /sessions/{session_id}/events", "GET /attention"}
SKIPPED = {
    "WS /sessions/{session_id}/socket": "an interactive client",
    "POST /agentic_checkout/webhooks/order_events": "signed by a seller",
    **{
        f"POST /{kind}/approve": "needs a decision that is awaited; tests/end_to_end has one"
        for kind in ("purchases/{purchase_id}", "payments/{payment_id}")
    },
    **{f"POST /{kind}/reject": "the same" for kind in ("purchases/{purchase_id}", "payments/{payment_id}")},
}
MONEY = ("/mandates", "/purchases", "/payments", "/allowances")
NOBODY = "http://127.0.0.1:9"
"""A seller that is away: what is bought there stays undecided."""
STREAM_SECONDS = 60
PREAMBLE = r"""
set -eu
curl() { command curl --fail-with-body "$@"; }
api() { curl -s -H "Authorization: Bearer $WAYSTATION_API_KEY" -H "Content-Type: application/json" "$@"; }
"""

pytestmark = pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl"
)


@pytest.fixture(scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


async def prepare(client: Client, stack: Stack, receiver: Receiver, route: str) -> tuple[str, dict[str, str]]:
    """A session in the state that the example is for, and the variables that it uses."""
    session_id = f"order-{uuid.uuid4().hex}"
    delivery_id = await prepare_webhook(client, receiver, session_id) if "/webhooks" in route else ""
    if route != "POST /sessions":
        await client.start("demo", session_id=session_id)
    if any(part in route for part in MONEY):
        await prepare_money(client, session_id)
    if "/allowances" in route:
        await prepare_allowance(client, stack, session_id)
    if "/questions" in route:
        async with stack.client("agent") as agent:
            asked = {"question_id": "t1:material", "prompt": "Which material?"}
            item = {"n": 1, "type": "input.requested", "data": asked}
            await agent.attach(session_id).write("docs", [item])
    operator = stack.client("operator")
    if route.endswith(("/release", "/suggestions")):
        await operator.attach(session_id).take_over()
    await operator.close()
    answer = await client.http.post(
        f"{client.url}/tokens",
        json={"role": "client", "sessions": [session_id], "subject": "ada"},
        headers=client.headers,
    )
    return session_id, environment(
        WAYSTATION_URL=client.url,
        WAYSTATION_API_KEY=KEYS["service"],
        OPERATOR_TOKEN=KEYS["operator"],
        AGENT_KEY=KEYS["agent"],
        APPROVER_TOKEN=KEYS["approver"],
        SESSION_TOKEN=answer.json()["token"],
        DELIVERY_ID=delivery_id,
        PATH="/usr/local/bin:/usr/bin:/bin",
    )


async def prepare_webhook(client: Client, receiver: Receiver, session_id: str) -> str:
    """A webhook with a delivery that has ended; returns the delivery's id."""
    webhooks, webhook_id = Webhooks(client), session_id.replace("order-", "webhook-")
    await webhooks.create(f"{receiver.url}/curl", events=["webhook.disabled"], webhook_id=webhook_id)
    delivery = await webhooks.test(webhook_id)

    async def delivered() -> bool:
        return (await webhooks.delivery(webhook_id, delivery.delivery_id)).status == "delivered"

    await eventually(delivered, what="the test is delivered")
    return delivery.delivery_id


async def prepare_money(client: Client, session_id: str) -> None:
    """A mandate, a purchase and a paid request that are under way."""
    mandate_id = session_id.replace("order-", "mandate-")
    terms = {
        "owner": "ada",
        "agent": "shopper",
        "cap": {"amount": 10_000, "currency": "usd"},
        "valid_until": "2099-01-01T00:00:00Z",
        "sellers": ["*"],
        "payment_methods": ["pm_card_visa"],
        "approval_threshold": 500,
    }
    common = {"mandate_id": mandate_id, "session_id": session_id}
    purchase = {
        **common,
        "seller": NOBODY,
        "currency": "usd",
        "items": [{"id": "mug"}],
        "agent": {"id": "shopper"},
    }
    payment = {**common, "request": {"url": NOBODY}, "max_price": terms["cap"], "agent": "shopper"}
    for path, body in (
        ("mandates", {"mandate_id": mandate_id, "terms": terms}),
        ("purchases", {"purchase_id": session_id.replace("order-", "purchase-"), "request": purchase}),
        ("payments", {"payment_id": session_id.replace("order-", "payment-"), "request": payment}),
    ):
        answer = await client.http.post(f"{client.url}/{path}", json=body, headers=client.headers)
        assert answer.status_code == 201, answer.text


async def prepare_allowance(client: Client, stack: Stack, session_id: str) -> None:
    """An open allowance. An agent would start it, through Temporal as here."""
    allowance_id = session_id.replace("order-", "allowance-")
    start = {
        "mandate_id": session_id.replace("order-", "mandate-"),
        "agent": "shopper",
        "seller": NOBODY,
        "budget": {"amount": 500, "currency": "usd"},
        "max_price": {"amount": 50, "currency": "usd"},
    }
    temporal = await open_client(stack.temporal.address)
    await temporal.start_workflow(
        "Allowance", {"start": start}, id=allowance_id, task_queue=SESSION_TASK_QUEUE,
        memo={"session_id": session_id},
    )  # fmt: skip

    async def is_open() -> bool:
        answer = await client.http.get(f"{client.url}/allowances/{allowance_id}", headers=client.headers)
        return bool(answer.json().get("open"))

    await eventually(is_open, what="the budget is reserved")


def of_this_run(example: str, session_id: str) -> str:
    """The example with ids of its own."""
    unique = session_id.removeprefix("order-")
    # In one pass: a unique part may itself begin with 18.
    return re.sub(
        r"\b(order|mandate|purchase|payment|allowance|webhook)-(17|18)\b",
        lambda found: f"{found[1]}-{unique}" + ("b" if found[2] == "18" else ""),
        example,
    )


@pytest.mark.parametrize("route", [route for route in EXAMPLES if route not in SKIPPED])
async def test_the_example_works(
    route: str, client: Client, stack: Stack, receiver: Receiver, tmp_path: object
) -> None:
    for example in EXAMPLES[route]:
        session_id, env = await prepare(client, stack, receiver, route)
        script = PREAMBLE + of_this_run(example, session_id)
        if route in STREAMS:
            script = script.replace("curl -N", f"curl -sN --max-time {STREAM_SECONDS}")
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", script, env=env, cwd=str(tmp_path),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        if route in STREAMS:
            assert process.stdout is not None
            output, has_event = "", None
            async for line in process.stdout:
                output += line.decode()
                if has_event := re.fullmatch(r"id: \S+\n", line.decode()):
                    break
            assert has_event, output
            os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()
        else:
            output = (await process.communicate())[0].decode()
            assert process.returncode == 0, output
