"""Histories are run again within a bound, and what fails is said of the one that failed."""

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory

from tests.support import ROOT
from tests.torture import replaying
from tests.torture.replaying import HUNG, replayed
from waystation.temporal.connect import CLEAR_DATA_CONVERTER

RECORDED = ROOT / "tests" / "workflows" / "purchase" / "histories" / "purchase-approved.json"


def recorded(path: Path = RECORDED, *, events: int | None = None, without: str = "") -> WorkflowHistory:
    """A history as it was, cut off after some events, or without those of a type."""
    history = json.loads(path.read_text())
    history["events"] = [one for one in history["events"][:events] if one["eventType"] != without]
    return WorkflowHistory.from_json("recorded", history)


def test_a_history_that_replays_and_one_that_does_not_are_told_apart() -> None:
    other = recorded(without="EVENT_TYPE_ACTIVITY_TASK_SCHEDULED")
    outcomes = replayed(CLEAR_DATA_CONVERTER, {"first": recorded(), "wrong": other, "last": recorded()})
    assert (outcomes["first"], outcomes["last"]) == (None, None)
    assert outcomes["wrong"]


def test_a_history_without_a_task_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert replayed(CLEAR_DATA_CONVERTER, {"only begun": recorded(events=1)}) == {}


def test_a_replay_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "REPLAY_SECONDS", 2.0)
    monkeypatch.setattr(replaying, "_can_be_run", lambda history: True)  # the replayer waits for ever for it
    outcomes = replayed(CLEAR_DATA_CONVERTER, {"hangs": recorded(events=1), "then": recorded()})
    assert outcomes == {"hangs": HUNG, "then": None}
