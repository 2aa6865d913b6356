"""Each promise about money can be seen broken: records of a purchase, a payment and an allowance."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tests.torture.evidence import Evidence, Final
from tests.torture.oracle import judge
from tests.torture.plan import Plan
from tests.torture.record import Line
from workflows.trail import GENESIS

Json = dict[str, Any]
TERMS: Json = {
    "cap": {"amount": 5_000, "currency": "usd"}, "per_payment_cap": 2_000, "approval_threshold": 0,
    "approvers": ["alice"], "refunds_give_room": True,
    "constraints": [{"type": "max_payments", "count": 3}, {"type": "allowed_items", "item_ids": ["mug"]}],
}  # fmt: skip


def reservation(holder: str, spent: int, **changes: Any) -> Json:
    return {
        "key": f"{holder}:reserve:1", "holder": holder, "amount": spent, "state": "committed",
        "spent": spent, "refunded": 0, **changes,
    }  # fmt: skip


def token(whose: str, charged: int) -> Json:
    return {
        "id": f"spt_{whose}", "shared_metadata": {"purchase_id": whose}, "deactivated_at": 7,
        "status": "deactivated", "usage_details": {"amount_captured": {"value": charged}},
    }  # fmt: skip


def entry(kind: str, whose: str, amount: int) -> Json:
    return {"kind": kind, "amount": amount, "token": f"spt_{whose}", "payment_intent": f"pi_{whose}"}


MONEY: Json = {
    "purchases": {
        "b": {
            "status": "completed", "final": True, "money_moved": True, "refusal": None,
            "request": {"mandate_id": "m", "items": [{"id": "mug", "quantity": 1}]},
            "cart": {"checkout_id": "cs", "total": 1_800},
            "charge": {"status": "captured", "amount": 1_800}, "receipt": {"amount": 1_800},
            "approval": {"approver": "alice", "digest": "sha256:1", "auto": False},
            "order": {"id": "o", "adjustments": []},
        },
    },
    "payments": {
        "p": {
            "status": "delivered", "final": True, "money_moved": "yes", "approved_by": "alice",
            "offer": {"price": {"amount": 50, "currency": "usd"}, "rail": "mpp-stripe"},
            "terms_digest": "sha256:2", "session_id": None,
        },
    },
    "allowances": {
        "a": {
            "open": False, "spent": 100, "held": 0, "budget": {"amount": 300, "currency": "usd"},
            "holder": None, "refusal": None,
        },
    },
    "mandates": {
        "m": {
            "mandate_id": "m", "terms": TERMS, "payments": 3,
            "reservations": [reservation("b", 1_800), reservation("p", 50), reservation("a", 100)],
            "spent": {"amount": 1_950}, "reserved": {"amount": 0}, "refunded": {"amount": 0},
        },
    },
    "trails": {"b": [{"seq": 1, "actor": "alice", "action": "approval.received", "detail": {}}]},
    "running": {"b": "COMPLETED", "p": "COMPLETED", "m": "RUNNING"},
    "unreadable": {},
    "ledger": {
        "entries": [entry("charge", "b", 1_800), entry("charge", "p", 50), entry("charge", "a:0", 100)],
        "tokens": [token("b", 1_800), token("p", 50), token("a:0", 100)],
        "payment_intents": [],
    },
    "transfers": [],
    "sales": {"shop-1": [{"checkout": "cs", "order_id": "o", "total": 1_800}]},
    "checkouts": {"cs": {"line_items": [{"item": {"id": "mug"}, "quantity": 1}]}},
}  # fmt: skip
TRAIL_ENTRY: Json = {
    "seq": 1, "time": "2026-01-01T00:00:00Z", "actor": "alice", "action": "approval.received", "detail": {},
    "previous": GENESIS, "hash": "sha256:wrong",
}  # fmt: skip


def line(operation: str, **what: Any) -> Line:
    return {"at": 1.0, "actor": "somebody", "op": operation, **what}


def started(operation: str, id_: str, status: int = 201) -> Line:
    limit = {"amount": 80, "currency": "usd"}
    asked = {"request": {"max_price": limit, "mandate_id": "m"}}
    return line(operation, id=id_, status=status, proxied=False, asked=asked, began=0.5, answer=None)


def decided(id_: str, digest: str, kind: str = "purchases", **changes: Any) -> Line:
    given = {"who": "alice", "verdict": "approve", "status": 200, "definite": True, "total": 1_800, **changes}
    return line("decided", id=id_, digest=digest, kind=kind, code=None, **given)


OUTCOME: Json = {
    "status": "delivered", "money_moved": "yes", "price": {"amount": 50, "currency": "usd"},
    "rail": "mpp-stripe", "answered": 200, "subject": "reports/x", "run": 1, "rule": None,
}  # fmt: skip
FETCHED = line("fetched", id="a:pay-0", attempt=2, answered=200, subject="reports/x", got="reports/x")
SDK_PAID = line("sdk_paid", id="sdk", answered=200, subject="reports/x", got="reports/x", moved="yes", run=1)
REFUNDED = line("refunded", shop="shop-1", checkout="cs", seen=True)
FORGED = line("order_event", manner="unsigned", known_as_wrong=True, status=401, proxied=False)
PAID = line("paid", id="p", subject="reports/x", outcome=OUTCOME)
HELD = line(
    "held",
    mandate="m",
    cap=5_000,
    spent=1_800,
    reserved=50,
    refunded=0,
    left=3_150,
    payments=2,
    status="active",
)
LINES = (
    started("buy", "b"), started("pay", "p"), started("grant", "m"), decided("b", "sha256:1"),
    decided("p", "sha256:2", "payments", total=50), PAID, HELD,
    started("buy_other", "b", 409), SDK_PAID, SDK_PAID, FETCHED, REFUNDED, FORGED,
)  # fmt: skip


def evidence(*lines: Line, without: str = "", **changes: Any) -> Evidence:
    """A run in which all went well but for what is given: ``purchases__b__status="failed"``."""
    money = deepcopy(MONEY)
    # Of the trail only who said what is looked at here; a whole one has hashes.
    for where, value in changes.items():
        *path, last = where.split("__")
        place = money
        for part in path:
            place = place[part]
        place[last] = value
    told = [one for one in LINES if one["op"] != without]
    return Evidence(
        Plan(1, 60.0, "money"), [*told, *lines], Final(more={"money": money}, secrets={"key": "hunter2"})
    )


LEDGER = MONEY["ledger"]
BROKEN: dict[str, Callable[[], Evidence]] = {
    "a_purchase_is_charged_once": lambda: evidence(
        ledger={**LEDGER, "entries": [*LEDGER["entries"], entry("charge", "b", 1)]}
    ),
    "charges_have_orders": lambda: evidence(sales={}),
    "charges_are_shown": lambda: evidence(purchases__b__money_moved=False),
    "booked_is_captured": lambda: evidence(mandates__m__reservations=[reservation("b", 1_700)]),
    "tokens_end": lambda: evidence(ledger={**LEDGER, "tokens": [{**token("b", 0), "deactivated_at": None}]}),
    "purchases_end": lambda: evidence(purchases__b__final=False, purchases__b__status="paying"),
    "approvals_are_of_what_was_shown": lambda: evidence(
        purchases__b__approval={"approver": "alice", "digest": "sha256:9", "auto": False}
    ),
    "decisions_are_in_the_trail": lambda: evidence(trails={"b": []}),
    "deliveries_are_what_was_asked": lambda: evidence(
        checkouts={"cs": {"line_items": [{"item": {"id": "lamp"}, "quantity": 1}]}}
    ),
    "caps_hold": lambda: evidence({**HELD, "reserved": 4_000}),
    "charges_stay_within_limits": lambda: evidence(
        ledger={**LEDGER, "entries": [entry("charge", "b", 2_001)]}
    ),
    "balances_add_up": lambda: evidence(mandates__m__spent={"amount": 1_951}),
    "nothing_stays_reserved": lambda: evidence(
        mandates__m__reservations=[reservation("b", 1_800, state="held")]
    ),
    "a_payment_is_charged_once": lambda: evidence(
        ledger={**LEDGER, "entries": [entry("charge", "p", 50)] * 2}
    ),
    "payments_tell_the_truth": lambda: evidence(payments__p__money_moved="no"),
    "transfers_are_accounted_for": lambda: evidence(
        transfers=[{"payer": "0x1", "nonce": "0x2", "amount": 1_000}]
    ),
    "payments_end": lambda: evidence(payments__p__final=False),
    "payers_get_what_they_paid_for": lambda: evidence(
        {**PAID, "outcome": {**OUTCOME, "subject": "reports/y"}}
    ),
    "payments_are_approved": lambda: evidence(payments__p__approved_by="mallory"),
    "allowances_are_settled": lambda: evidence(allowances__a__open=True),
    "what_was_started_is_there": lambda: evidence(started("buy", "c")),
    "ids_stand_for_one_thing": lambda: evidence(started("buy_other", "b", 200)),
    "trails_are_whole": lambda: evidence(trails={"b": [TRAIL_ENTRY]}),
    "agents_get_what_they_paid_for": lambda: evidence(
        line("fetched", id="p", attempt=2, answered=200, subject="reports/x", got="reports/y")
    ),
    "nothing_is_stolen": lambda: evidence(line("attacked", role="stranger", made="b")),
    "errands_are_told_the_truth": lambda: evidence(
        line("errand", id="b", status="canceled", money_moved=False)
    ),
    "secrets_are_sealed_in_histories": lambda: evidence(clear={"b@1": "paid with hunter2"}),
    "allowances_are_charged_once": lambda: evidence(
        ledger={
            **LEDGER,
            "entries": [*LEDGER["entries"], *[entry("charge", "a:1", 50)] * 2],
            "tokens": [*LEDGER["tokens"], token("a:1", 100)],
        }
    ),
    "allowances_stay_open_for_their_turn": lambda: evidence(
        line("fetch_refused", id="a:pay-1", attempt=2, rule="AllowanceClosed"),
        allowances__a__refusal=None,
    ),
    "programs_pay_once": lambda: evidence({**SDK_PAID, "run": 2}),
    "order_events_are_signed": lambda: evidence({**FORGED, "status": 200}),
    "refunds_count_once": lambda: evidence(
        mandates__m__reservations=[reservation("b", 1_800, refunded=1_900)]
    ),
    "refunds_arrive": lambda: evidence({**REFUNDED, "seen": False}),
    "refused_decisions_do_nothing": lambda: evidence(decided("b", "sha256:" + "0" * 64)),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_promise_about_money_is_seen(name: str) -> None:
    assert judge_one(name, BROKEN[name]()).broken


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_kept_promise_about_money_is_not_called_broken(name: str) -> None:
    judged = judge_one(name, evidence(trails={}) if name == "trails_are_whole" else evidence())
    assert judged.violations == []


def judge_one(name: str, left: Evidence) -> Any:
    return judge(left, name)[name]
