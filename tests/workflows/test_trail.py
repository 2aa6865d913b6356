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


def answers(*said: str, into: Trail | None = None) -> Trail:
    """A trail of answers to one call, a second apart, each with a request id of its own."""
    made = into or Trail(max_entries=100)
    for number, status in enumerate(said):
        detail = {"status": status, "request_id": f"req_{number}"}
        made = made.called("checkout.read", "seller", detail, time=NOW + timedelta(seconds=number))
    return made


def test_equal_answers_are_one_entry_and_then_one_for_all_that_followed() -> None:
    polled = answers(*["in_progress"] * 100)
    assert len(polled.entries) == 1
    [repeated] = polled.of("p-1").repeated
    first, last = NOW + timedelta(seconds=1), NOW + timedelta(seconds=99)
    assert (repeated.count, repeated.first, repeated.last) == (99, first, last)
    assert repeated.detail["request_id"] == "req_99"
    done = answers("completed", into=polled)
    assert [entry.detail["status"] for entry in done.entries] == ["in_progress", "in_progress", "completed"]
    summed = done.entries[1].detail
    assert (summed["times"], summed["first"], summed["last"]) == (99, first.isoformat(), last.isoformat())
    assert done.of("p-1").repeated == ()
    assert verify(done.entries)


def test_calls_that_take_turns_are_summed_up_each_by_itself() -> None:
    made = Trail(max_entries=100)
    for _ in range(50):
        made = made.called("checkout.read", "seller", {"status": "open"}, time=NOW)
        made = made.called("checkout.complete_failed", "seller", {"code": "timeout"}, time=NOW)
    assert len(made.entries) == 2
    made = made.summed_up(time=NOW)
    assert [(entry.action, entry.detail["times"]) for entry in made.entries[2:]] == [
        ("checkout.read", 49),
        ("checkout.complete_failed", 49),
    ]
    assert made.summed_up(time=NOW) == made
    assert verify(made.entries)


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=80), st.integers(8, 40))
def test_no_answer_is_lost_and_the_trail_stays_bounded(said: list[str], most: int) -> None:
    made = Trail(max_entries=most)
    for number, status in enumerate(said):
        made = made.called("checkout.read", "seller", {"status": status}, time=NOW)
        if number % 7 == 6:
            made = made.noted("purchase.status", "waystation", {}, time=NOW)
    stored = Trail.model_validate_json(made.model_dump_json())
    assert len(stored.entries) <= most
    assert verify(stored.entries)
    counted = sum(
        int(str(entry.detail.get("times", 1))) for entry in stored.entries if entry.action == "checkout.read"
    )
    assert counted + sum(one.count for one in stored.repeated) == len(said)
    if len(stored.entries) < most:
        assert stored.summed_up(time=NOW).of("p-1").repeated == ()


def test_answers_leave_room_for_the_workflows_own_steps() -> None:
    made = answers(*(f"status {number}" for number in range(1_000)))
    assert len(made.entries) == 88
    [repeated] = made.of("p-1").repeated
    assert repeated.count == 1_000 - 88
    ended = made.summed_up(time=NOW).noted("purchase.ended", "waystation", {}, time=NOW)
    assert [entry.action for entry in ended.entries[-2:]] == ["checkout.read", "purchase.ended"]


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
