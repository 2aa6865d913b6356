"""The chain of entries, its bound, and the keys of steps."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waystation.models.trail import AuditEntry
from workflows.keys import note_key, step_key
from workflows.trail import MAX_TEXT_CHARACTERS, Trail, verify

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def trail(length: int, max_entries: int = 100) -> Trail:
    made = Trail(max_entries=max_entries)
    for number in range(length):
        made = made.noted(
            "checkout.read",
            "seller",
            {"total": number, "note": "ü" * number, "list": ["a", 1], "none": None},
            time=NOW + timedelta(seconds=number),
        )
    return made


@given(st.integers(0, 12))
def test_the_chain_is_whole_also_after_storage(length: int) -> None:
    stored = Trail.model_validate_json(trail(length).model_dump_json())
    assert len(stored.entries) == length
    assert verify(stored.entries)


@given(st.integers(0, 7), st.sampled_from(["detail", "actor", "action", "time", "drop", "swap", "seq"]))
def test_a_changed_trail_is_seen(position: int, how: str) -> None:
    entries = list(trail(9).entries)
    entry = entries[position]
    match how:
        case "drop":
            del entries[position]
        case "swap":
            entries[position], entries[position + 1] = entries[position + 1], entries[position]
        case "detail":
            entries[position] = entry.model_copy(update={"detail": {"total": 1_000_000}})
        case "time":
            entries[position] = entry.model_copy(update={"time": NOW - timedelta(days=1)})
        case "seq":
            entries[position] = entry.model_copy(update={"seq": 99})
        case _:
            entries[position] = entry.model_copy(update={how: "someone else"})
    assert not verify(entries)


@pytest.mark.parametrize("heard", [0, 4, 5, 50])
def test_what_others_say_leaves_room_for_the_workflows_own_steps(heard: int) -> None:
    made = Trail(max_entries=10)
    for _ in range(heard):
        made = made.heard("cancel.received", "somebody", {}, time=NOW)
    assert len(made.entries) == min(heard, 5)
    for _ in range(20):
        made = made.noted("payment.status", "waystation", {}, time=NOW)
    assert len(made.entries) == 10
    assert verify(made.entries)
    assert made.heard("cancel.received", "somebody", {}, time=NOW) == made


def test_long_texts_are_cut_and_nothing_is_left_as_null() -> None:
    entry: AuditEntry = (
        Trail(max_entries=1).noted("said", "seller", {"text": "x" * 10_000, "no": None}, time=NOW).entries[0]
    )
    assert entry.detail == {"text": "x" * MAX_TEXT_CHARACTERS}


def test_keys_come_from_the_workflow_and_the_step_alone() -> None:
    assert step_key("p-1", "complete", 2) == "p-1:complete:2"
    assert step_key("p-1", "budget") == "p-1:budget"
    assert len(step_key("p" * 200, "complete", 10**6)) <= 255
    assert len(note_key("p" * 200, 10**6)) <= 128
