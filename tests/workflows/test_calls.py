"""What an activity without any answer is taken for: the silence of whoever was asked."""

import importlib
import pkgutil
from typing import Any

import pytest
import temporalio.exceptions
from temporalio.exceptions import ActivityError, TimeoutType

import activities.contract as contract
import workflows
from workflows.calls import CallFailure, CallOptions, settle

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
            if isinstance(value, dict) and value.keys() == CallOptions.__annotations__.keys():
                found[f"{name}.{attribute}"] = value
    return found


def test_each_call_says_whose_silence_it_would_be() -> None:
    calls = every_call()
    assert len(calls) > 10
    assert {options["silence"] for options in calls.values()} == KINDS
    asked = {name.rpartition(".")[2]: options["silence"] for name, options in calls.items()}
    assert asked["_MANDATE"] == contract.MANDATE_UNAVAILABLE
    assert asked["_TOKEN"] == asked["_REVOKE"] == asked["MINT"] == asked["CLOSE"] == "ProcessorUnavailable"
    assert asked["_COMPLETE"] == asked["REDEEM"] == contract.SELLER_UNAVAILABLE


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
