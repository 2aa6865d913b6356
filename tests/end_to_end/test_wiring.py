"""Everything is plugged in, and nothing that Temporal keeps can be read without the key."""

import asyncio
import base64
import re
import subprocess

import pytest

from tests.end_to_end.talk import Talk
from tests.support import eventually
from tests.world.keys import SIGNER
from tests.world.money_stack import PERSON, MoneyStack
from tests.world.stack import KEYS
from tests.world.temporal import TEMPORAL
from waystation.models.base import replaced
from waystation.models.decisions import Approve
from worker import PAID_REQUEST_WORKFLOWS, PURCHASE_WORKFLOWS

ROUTES = {
    "/mandates",
    "/mandates/{mandate_id}/revoke",
    "/purchases/{purchase_id}/approve",
    "/payments/{payment_id}/approve",
    "/agentic_checkout/webhooks/order_events",
    "/codec/decode",
}


async def test_the_real_api_serves_every_money_route(money: MoneyStack) -> None:
    paths = (await money.call("service", "GET", "/openapi.json")).json()["paths"]
    assert set(paths) >= ROUTES


def test_the_worker_registers_every_money_workflow() -> None:
    import worker

    assert set(worker.WORKFLOWS) >= {*PURCHASE_WORKFLOWS, *PAID_REQUEST_WORKFLOWS}


def shown(money: MoneyStack, workflow_id: str, *options: str) -> str:
    """The history as Temporal's command line has it, with what is in its payloads."""
    address = ("--address", money.temporal.address)
    done = subprocess.run(
        [TEMPORAL, "workflow", "show", *address, "-w", workflow_id, "-o", "json", *options],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    payloads = re.findall(r'"data": ?"([A-Za-z0-9+/=]+)"', done.stdout)
    return done.stdout + "".join(base64.b64decode(one).decode(errors="replace") for one in payloads)


async def test_histories_are_encrypted_and_operators_can_read_them(money: MoneyStack) -> None:
    mandate = await money.mandate()
    clear = shown(money, mandate)
    assert PERSON not in clear
    assert "pm_card_visa" not in clear
    options = ("--codec-endpoint", f"{money.url}/codec", "--codec-auth")
    assert PERSON in shown(money, mandate, *options, f"Bearer {KEYS['operator']}")
    for role in ("service", "agent", "approver", "client"):
        refused = await money.call(role, "POST", "/codec/decode", {"payloads": []})
        assert refused.status_code == 403, role


@pytest.mark.thorough
async def test_signed_json_from_temporals_command_line_approves(money: MoneyStack) -> None:
    mandate = await money.mandate()
    async with money.client() as client, money.buying() as person:
        talk = await Talk.begin(client, "shopper")
        buyer = {"email": "ada@example.com", "first_name": "Ada"}
        await talk.ask(
            seller=money.sandbox.url("shop"), mandate=mandate, search="tides", details={"buyer": buyer}
        )
        asked = await talk.until("approval.requested")
        purchase_id = str(asked.data["purchase_id"])
        said = Approve(digest=str(asked.data["digest"]), approver=PERSON)
        wish = replaced(said, proof=SIGNER.sign("approve", purchase_id, said)).model_dump_json()
        command = [TEMPORAL, "workflow", "signal", "--address", money.temporal.address, "-w", purchase_id]
        process = await asyncio.create_subprocess_exec(*command, "--name", "approve", "--input", wish)
        assert await process.wait() == 0
        view = await person.wait(purchase_id, within_seconds=30)
        assert view.status == "completed"
        assert view.order is not None

        async def shipped() -> bool:
            order = (await person.purchase(purchase_id)).order
            return order is not None and order.status is not None

        await eventually(shipped, what="the shop's webhook reaches the purchase")
        tokens = [token["id"] for token in (await money.ask("processor", "/sandbox/ledger"))["tokens"]]
        assert tokens
        seen = shown(money, purchase_id) + money.logs() + str(await talk.events())
        assert [token for token in tokens if token in seen] == []
