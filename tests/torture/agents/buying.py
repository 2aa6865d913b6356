"""An agent that spends as its scripts say: it buys, fetches, and pays from allowances, one within another."""

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from tests.torture.record import Recorder
from tests.torture.wishes import read_answer
from waystation.agent import Agent, Turn
from waystation.buyer.payer import Paid, PaymentRefusedError
from waystation.models.money import Money

agent = Agent("shopper")
_name = os.environ.get("TORTURE_NAME", "buying")
_record = Recorder(Path(os.environ["TORTURE_RECORD"]))
Step = dict[str, Any]
DETAILS: Final[dict[str, Any]] = {"buyer": {"email": "alice@example.com", "first_name": "Alice"}}


@agent.turn
async def spend(turn: Turn) -> None:
    await turn.write("Going shopping.")
    for step in json.loads(turn.text):
        await _do(turn, step)


async def _do(turn: Turn, step: Step) -> None:
    if step["do"] == "buy":
        view = await turn.buy(
            step["seller"], step["items"], mandate_id=step["mandate"], key=step["key"], **DETAILS,
            approval_timeout_seconds=step["approval_timeout_seconds"],
        )  # fmt: skip
        _note(turn, "bought", id=view.purchase_id, status=view.status)
    elif step["do"] == "fetch":
        await _fetch(turn, step)
    else:
        await _pay_from_allowance(turn, step)


async def _fetch(turn: Turn, step: Step) -> None:
    try:
        paid: Paid = await turn.fetch(
            step["url"], max_price=Money(**step["max_price"]), mandate_id=step["mandate"], key=step.get("key")
        )
    except PaymentRefusedError as refused:
        _note(turn, "fetch_refused", id=refused.payment_id, rule=refused.rule, moved=refused.money_moved)
    else:
        got = read_answer(paid.response.status_code, paid.response.content)
        _note(
            turn, "fetched", id=paid.payment_id, moved=paid.money_moved, subject=step["subject"],
            answered=paid.response.status_code, got=got.get("subject"),
        )  # fmt: skip


async def _pay_from_allowance(turn: Turn, step: Step) -> None:
    try:
        async with turn.allowance(
            step["seller"],
            budget=Money(**step["budget"]),
            max_price=Money(**step["max_price"]),
            mandate_id=step["mandate"],
            lifetime=timedelta(seconds=step["lifetime_seconds"]),
            key=step["key"],
        ) as allowance:
            _note(turn, "allowance", id=allowance)
            for inner in step["steps"]:
                await _do(turn, inner)
    except PaymentRefusedError as refused:
        _note(turn, "allowance_refused", rule=refused.rule)


def _note(turn: Turn, operation: str, **what: object) -> None:
    _record.note(_name, operation, session=turn.session_id, turn=turn.id, attempt=turn.attempt, **what)
