"""What an activity without any answer is taken for, and that no call leaves the house without its entry."""

import ast
import asyncio
import contextlib
import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import temporalio.exceptions
from temporalio.exceptions import ActivityError, TimeoutType

import activities.contract as contract
import workflows
import workflows.calls as workflow_calls
import workflows.policies as policies
from workflows.calls import CallFailure, CallOptions, PeerCall, PeerOptions, peer_options, settle

MODULES = [one.name for one in pkgutil.walk_packages(workflows.__path__, "workflows.")]
KINDS = {
    contract.SELLER_UNAVAILABLE,
    contract.PROCESSOR_UNAVAILABLE,
    contract.MANDATE_UNAVAILABLE,
    contract.HOUSE_UNAVAILABLE,
}


def every_call() -> dict[str, Any]:
    found = {}
    for name in MODULES:
        for attribute, value in vars(importlib.import_module(name)).items():
            options = value.options if isinstance(value, PeerCall) else value
            options = options.call if isinstance(options, PeerOptions) else options
            if isinstance(options, dict) and options.keys() == CallOptions.__annotations__.keys():
                found[f"{name}.{attribute}"] = options
    return found


def test_each_call_says_whose_silence_it_would_be() -> None:
    calls = every_call()
    assert len(calls) > 10
    assert {options["silence"] for options in calls.values()} == KINDS
    asked = {name.rpartition(".")[2]: options["silence"] for name, options in calls.items()}
    assert asked["_MANDATE"] == contract.MANDATE_UNAVAILABLE
    assert asked["_TOKEN"] == asked["_REVOKE"] == asked["_MINT"] == asked["CLOSE"] == "ProcessorUnavailable"
    assert asked["_COMPLETE"] == asked["_REDEEM"] == contract.SELLER_UNAVAILABLE


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_call_without_an_answer_fails_as_the_silence_of_the_one_asked(kind: str) -> None:
    async def unanswered() -> None:
        error = ActivityError(
            "failed",
            scheduled_event_id=1,
            started_event_id=2,
            identity="",
            activity_type="x",
            activity_id="1",
            retry_state=None,
        )
        cause = temporalio.exceptions.TimeoutError(
            "too long", type=TimeoutType.START_TO_CLOSE, last_heartbeat_details=[]
        )
        raise error from cause

    with pytest.raises(CallFailure) as caught:
        await settle(unanswered(), silence=kind)
    assert (caught.value.kind, caught.value.code) == (kind, "no_answer_in_time")


# What leaves the house

PEERS = (contract.CheckoutCalls, contract.PaymentTokenCalls, contract.PaidRequestCalls)
WITHIN = {"read_payment_offers"}
"""Of their methods, what asks nobody: it reads an answer that is there already."""


def calls_to_peers(tree: ast.AST) -> list[ast.Attribute]:
    names = {one.__name__ for one in PEERS}
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names
    ]


def test_whatever_is_asked_of_sellers_and_processors_is_asked_with_a_witness() -> None:
    asked: set[str] = set()
    for path in Path(inspect.getfile(workflows)).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        witnessed = [
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "PeerCall"
            for inner in calls_to_peers(node)
        ]
        for node in calls_to_peers(tree):
            assert node in witnessed or node.attr in WITHIN, f"{path}: {node.attr} leaves without an entry"
        asked |= {node.attr for node in witnessed}
    methods = {name for peer in PEERS for name in vars(peer) if not name.startswith("_")}
    assert asked == methods - WITHIN


class Entries:
    """A witness that keeps what it is told."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str, dict[str, Any]]] = []

    def note_call(self, action: str, actor: str, detail: Any) -> None:
        self.noted.append((action, actor, dict(detail)))


@pytest.mark.parametrize(
    ("outcome", "entry"),
    [
        (7, ("thing.answered", "seller", {"of": "x", "number": 7})),
        (
            CallFailure("SellerRefused", "no_way", "never"),
            (
                "thing.failed",
                "seller",
                {"of": "x", "kind": "SellerRefused", "code": "no_way", "message": "never"},
            ),
        ),
        (asyncio.CancelledError(), ("thing.failed", "seller", {"of": "x", "kind": "canceled"})),
    ],
    ids=["answered", "failed", "canceled"],
)
@pytest.mark.parametrize("once_local", [False, True])
async def test_however_a_call_ends_there_is_an_entry(
    monkeypatch: pytest.MonkeyPatch, outcome: Any, entry: tuple[str, str, dict[str, Any]], once_local: bool
) -> None:
    async def activity(method: object, call: object, options: object) -> int:
        if isinstance(outcome, BaseException):
            raise outcome
        return int(outcome)

    async def method(self: object, argument: str) -> int:
        raise NotImplementedError

    monkeypatch.setattr(workflow_calls, "_once_local" if once_local else "_durable", activity)
    call = PeerCall(
        method=method,
        options=peer_options(policies.SELLER_CALL_TIMEOUT, policies.SELLER_CALL_RETRY, peer="seller"),
        once_local=once_local,
        asked="thing.asked",
        answered="thing.answered",
        failed="thing.failed",
    )
    witness = Entries()
    with contextlib.suppress(CallFailure, asyncio.CancelledError):
        await call.make(witness, "x", heard=lambda number: {"number": number}, about={"of": "x"})
    assert witness.noted == [("thing.asked", "waystation", {"of": "x"}), entry]
