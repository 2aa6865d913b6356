"""``waystation payment …`` against a running ``waystation dev`` and its paid API."""

import json
import uuid
from typing import Any

import pytest

from tests.cli.commands import DevProcess, run
from tests.support import eventually
from waystation.client import Client
from waystation.client.payments import Payments
from waystation.dev.local import DEFAULT_STATE_FOLDER, read_dev_environment
from waystation.models.money import Money
from waystation.models.payments import PaidHttpRequest, PaidRequestStart

AGENT = "shopper"


def waystation(dev: DevProcess, *arguments: str) -> str:
    result = run(*arguments, cwd=dev.folder)
    assert result.returncode == 0, result.stderr
    return result.stdout


def shown(dev: DevProcess, payment: str) -> dict[str, Any]:
    view: dict[str, Any] = json.loads(waystation(dev, "payment", "show", payment))
    return view


@pytest.fixture(scope="module")
def paid_api(dev: DevProcess) -> str:
    [state] = dev.folder.rglob("sandbox.json")
    return f"http://127.0.0.1:{json.loads(state.read_text())['ports']['paid-api']}"


@pytest.fixture
async def payment(dev: DevProcess, paid_api: str) -> str:
    """A paid request that waits for a person."""
    mandate = f"mandate-{uuid.uuid4().hex[:8]}"
    waystation(
        dev, "mandate", "create", "--owner", "dev-approver", "--agent", AGENT, "--cap", "1000",
        "--seller", paid_api, "--payment-method", "pm_card_visa", "--id", mandate,
    )  # fmt: skip
    known = read_dev_environment(dev.folder / DEFAULT_STATE_FOLDER)
    start = PaidRequestStart(
        request=PaidHttpRequest(url=f"{paid_api}/v1/reports/{mandate}"),
        max_price=Money(amount=60, currency="usd"),
        mandate_id=mandate,
        agent=AGENT,
    )
    async with Client(known["WAYSTATION_URL"], known["WAYSTATION_API_KEY"]) as client:
        payment_id = (await Payments(client).start(start)).payment_id
    await eventually(
        lambda: shown(dev, payment_id)["status"] == "awaiting_approval", what="a person is asked"
    )
    return payment_id


async def test_approve_with_the_digest_of_the_terms_pays(dev: DevProcess, payment: str) -> None:
    view = shown(dev, payment)
    assert view["offer"]["price"] == {"amount": 50, "currency": "usd"}
    stale = run("payment", "approve", payment, "--digest", "sha256:" + "0" * 64, cwd=dev.folder)
    assert (stale.returncode, "other terms" in stale.stderr) == (1, True)
    waystation(dev, "payment", "approve", payment, "--digest", view["terms_digest"])
    await eventually(lambda: shown(dev, payment)["status"] == "delivered", what="it is delivered")
    final = shown(dev, payment)
    assert (final["money_moved"], final["approved_by"]) == ("yes", "dev-approver")
    trail = json.loads(waystation(dev, "payment", "audit", payment, "--json"))
    actions = [entry["action"] for entry in trail["entries"]]
    assert actions.index("approval.received") < actions.index("credential.sent")
    printed = waystation(dev, "payment", "audit", payment)
    assert len(printed.splitlines()) == len(actions)
    late = run("payment", "cancel", payment, cwd=dev.folder)
    assert (late.returncode, "already" in late.stderr) == (1, True)


async def test_reject_pays_nothing_and_says_why(dev: DevProcess, payment: str) -> None:
    waystation(dev, "payment", "reject", payment, "--reason", "too dear")
    view = shown(dev, payment)
    assert (view["status"], view["money_moved"], view["refusal"]["rule"]) == ("refused", "no", "rejected")
    assert "too dear" in view["refusal"]["message"]


async def test_cancel_stops_it(dev: DevProcess, payment: str) -> None:
    waystation(dev, "payment", "cancel", payment, "--reason", "never mind")
    await eventually(lambda: shown(dev, payment)["status"] == "refused", what="it is canceled")
    assert shown(dev, payment)["refusal"]["rule"] == "canceled"


@pytest.mark.parametrize("command", ["show", "audit", "approve", "reject", "cancel"])
async def test_an_unknown_payment_is_said_to_be_unknown(dev: DevProcess, command: str) -> None:
    result = run("payment", command, "no-such-payment", cwd=dev.folder)
    assert result.returncode == 1
    assert "'no-such-payment', or you may not see it. (404 unknown-payment)" in result.stderr
