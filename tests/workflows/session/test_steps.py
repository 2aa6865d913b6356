"""What a turn remembers of its steps: the first result counts, and all of it is bounded."""

from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from waystation.models.steps import (
    MAX_STEP_RESULT_BYTES,
    MAX_STEPS,
    MAX_STEPS_BYTES,
    MAX_STEPS_PAGE_BYTES,
    RecordStep,
)
from waystation.temporal.names import STEP_REFUSED, TURN_OVER
from workflows.session.steps import TurnSteps


def step(key: str, result: JsonValue = None, attempt: int = 1) -> RecordStep:
    return RecordStep(attempt=attempt, key=key, result=result)


def recorded(steps: TurnSteps) -> dict[str, JsonValue]:
    """Everything, page by page, as a later attempt reads it."""
    found: dict[str, JsonValue] = {}
    after, more = 0, True
    while more:
        page = steps.page(after)
        assert page.steps or not page.more, "each page gets further"
        found.update((one.key, one.result) for one in page.steps)
        after, more = page.next_after, page.more
    return found


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers() | st.text(max_size=60_000)), max_size=30)
)
def test_the_first_result_under_a_key_counts_and_all_come_back_in_order(
    given: list[tuple[str, int | str]],
) -> None:
    steps, first = TurnSteps(), dict[str, JsonValue]()
    for key, result in given:
        assert steps.why_not(step(key, result)) is None
        told = steps.record(step(key, result))
        assert told.is_first == (key not in first)
        assert told.is_first or told.result == first[key]
        first.setdefault(key, result)
    assert recorded(steps) == first
    assert list(recorded(steps)) == list(first)


def test_a_page_is_bounded_and_a_large_result_has_one_for_itself() -> None:
    steps = TurnSteps()
    for key, size in {"a": 100_000, "b": 100_000, "c": 1_000_000, "d": 1}.items():
        steps.record(step(key, "x" * size))
    pages = [steps.page(after) for after in range(4)]
    assert [[one.key for one in page.steps] for page in pages] == [["a"], ["b"], ["c"], ["d"]]
    assert [page.more for page in pages] == [True, True, True, False]
    assert MAX_STEPS_PAGE_BYTES < 200_000


def test_another_attempt_than_the_current_one_records_nothing() -> None:
    steps = TurnSteps()
    steps.record(step("a", 1))
    steps.attempt = 2
    for attempt in (1, 3):
        refused = steps.why_not(step("b", attempt=attempt))
        assert refused is not None
        assert refused.kind == TURN_OVER
    assert steps.why_not(step("b", attempt=2)) is None


def test_the_number_of_steps_is_bounded_and_known_ones_are_still_answered() -> None:
    steps = TurnSteps()
    for n in range(MAX_STEPS):
        assert steps.why_not(step(f"k{n}")) is None
        steps.record(step(f"k{n}"))
    refused = steps.why_not(step("one more"))
    assert refused is not None
    assert (refused.kind, refused.message) == (STEP_REFUSED, "A turn has at most 1,000 steps.")
    assert steps.why_not(step("k7")) is None
    assert len(recorded(steps)) == MAX_STEPS


def test_each_result_and_all_together_are_bounded() -> None:
    steps = TurnSteps()
    too_large = steps.why_not(step("a", "x" * MAX_STEP_RESULT_BYTES))
    assert too_large is not None
    assert "8,388,608 bytes" in too_large.message
    largest = "x" * (MAX_STEP_RESULT_BYTES - 2)
    for n in range(MAX_STEPS_BYTES // MAX_STEP_RESULT_BYTES):
        assert steps.why_not(step(f"k{n}", largest)) is None
        steps.record(step(f"k{n}", largest))
    too_much = steps.why_not(step("one more", largest))
    assert too_much is not None
    assert "32,000,000 bytes" in too_much.message
