"""Scenarios of questions: asked, answered, and waited for without a process."""

from typing import Any, Final

from waystation.conformance.agent_bench import Bench, Turn
from waystation.conformance.scenarios import scenario
from waystation.conformance.temporal_side import Ended

PARK_AFTER_SECONDS: Final = 2
EARLY_SECONDS: Final = 1.2
LATE_SECONDS: Final = 6.0
ANSWER: Final = "tea"


@scenario("A-61", "A-62")
async def a_question_is_answered(bench: Bench) -> None:
    """The worker parks nothing; the answer comes twice, as it does after a reconnect."""
    turn = await bench.begin("ask")
    await turn.wait("A-61", lambda: _asked(turn), "the question comes")
    early = await turn.run.ended(PARK_AFTER_SECONDS)
    bench.report.check("A-62", early is None, f"without park_after_seconds: {early or 'the turn waits'}")
    if early is None:
        await _answered(bench, turn)


@scenario("A-60", "A-61", "A-62", "A-63", "A-64")
async def a_question_is_waited_for(bench: Bench) -> None:
    """Nobody answers in time, so that the attempt ends; another one begins, asks again, and is answered."""
    first, report = await bench.begin("ask", park_after_seconds=PARK_AFTER_SECONDS), bench.report
    await first.wait("A-61", lambda: _asked(first), "the question comes")
    early = await first.run.ended(EARLY_SECONDS)
    within = f"within {EARLY_SECONDS:g} of {PARK_AFTER_SECONDS} s"
    report.check("A-62", early is None, f"{within}: {early or 'the turn waits'}")
    if early is not None:
        return
    ended = await first.run.ended(LATE_SECONDS)
    report.check(
        "A-64", ended is not None, f"after {PARK_AFTER_SECONDS} s: {ended or 'the turn still waits'}"
    )
    if ended is None:
        report.check("A-63", True, "the attempt didn't wait outside its process")
        await _answered(bench, first)
        return
    asked = _asked(first)[-1]
    waiting = {"outcome": "waiting", "waiting_for": [asked.get("question_id")]}
    unsettled = first.play.unsettled_bytes()
    report.check(
        "A-63", _without_nothing(ended) == waiting and not unsettled, f"{ended}; {unsettled} bytes unsettled"
    )
    second = await bench.begin("ask", after=first, waited_for=waiting["waiting_for"])
    await second.wait("A-60", lambda: _asked(second), "the question comes again")
    again = _asked(second)[-1]
    report.check("A-60", again == asked, f"first {asked}, then {again}")
    await _answered(bench, second)


def _asked(turn: Turn) -> list[dict[str, Any]]:
    return [item["data"] for item in turn.play.items("input.requested") if isinstance(item.get("data"), dict)]


async def _answered(bench: Bench, turn: Turn) -> None:
    """Answers what the turn has asked, and looks at what it makes of that."""
    actor = {"id": "ada", "role": "user", "name": None}
    told = {"op": "answered", "outcome": "answered", "actor": actor, "reason": None}
    other = {**told, "question_id": "of-nobody", "value": "coffee"}
    ours = {**told, "question_id": _asked(turn)[-1].get("question_id"), "value": ANSWER}
    await turn.play.tell(other, ours, ours)
    ended = await turn.ended("A-61")
    wanted = {"outcome": "completed", "result": {"answer": ANSWER}}
    bench.report.check("A-61", _without_nothing(ended) == wanted, str(ended))


def _without_nothing(ended: Ended) -> object:
    """Returns the result without fields that say nothing."""
    if not isinstance(ended.result, dict):
        return ended.result
    return {name: value for name, value in ended.result.items() if value not in (None, [])}
