"""Scenarios of what a session refuses: each item between two that it must record."""

from typing import Final, NamedTuple

from pydantic import JsonValue

from waystation.conformance.api_bench import FLUSH_SECONDS, RECORDED, ApiBench, Pen, Written
from waystation.conformance.scenarios import Scenario, scenario
from waystation.models.events import MAX_DATA_BYTES, MAX_MESSAGE_CHARACTERS
from waystation.models.ingest import AckFrame
from waystation.models.questions import MAX_QUESTIONS
from waystation.models.refusals import MAX_OPEN_MESSAGES, MAX_OPEN_TOOLS, MAX_REFUSALS_PER_WRITER

BEFORE: Final[Written] = ("data.before", None, {})
AFTER: Final[Written] = ("data.after", None, {})
_WHOLE: Final[Written] = ("message.completed", "m", {"text": "whole"})


class Case(NamedTuple):
    """An item that is refused, and what is written before it."""

    number: str
    code: str
    refused: Written
    prelude: tuple[Written, ...] = ()


def _tool(at: int) -> Written:
    return ("tool.called", None, {"call_id": f"c{at}", "name": "n"})


def _question(question_id: str, **more: JsonValue) -> Written:
    return ("input.requested", None, {"question_id": question_id, "prompt": "Which?", **more})


CASES: Final = (
    Case("S-20", "bad-type", ("turn.completed", None, {})),
    Case("S-21", "bad-delta", ("message.delta", "m", {"offset": 0, "text": "a", "mood": "sunny"})),
    Case("S-22", "bad-item", ("tool.called", None, {"call_id": "c"})),
    Case("S-23", "invalid", ("data.x", None, {"number": float("nan")})),
    Case("S-24", "invalid", ("message.delta", "m", {"offset": 0, "text": "half \ud83d"})),
    Case("S-25", "data-too-large", ("data.x", None, {"x": "y" * (MAX_DATA_BYTES + 1)})),
    Case("S-26", "message-too-long",
         ("message.completed", "m", {"text": "y" * (MAX_MESSAGE_CHARACTERS + 1)})),
    Case("S-27", "gap", ("message.delta", "m", {"offset": 5, "text": "a"})),
    Case("S-28", "unknown-call", ("tool.returned", None, {"call_id": "c9", "name": "n", "result": 1})),
    Case("S-29", "unknown-message", ("message.completed", "m", {})),
    Case("S-30", "message-id-taken", ("message.started", "m", {}), (_WHOLE,)),
    Case("S-31", "message-over", ("message.delta", "m", {"offset": 0, "text": "a"}), (_WHOLE,)),
    Case("S-32", "too-many-messages", ("message.started", "more", {}),
         tuple(("message.started", f"m{at}", {}) for at in range(MAX_OPEN_MESSAGES))),
    Case("S-33", "too-many-tools", _tool(MAX_OPEN_TOOLS), tuple(map(_tool, range(MAX_OPEN_TOOLS)))),
    Case("S-39", "call-id-taken", ("tool.called", None, {"call_id": "c1", "name": "other"}), (_tool(1),)),
    Case("S-70", "bad-question", _question("q", schema={"$ref": "#"})),
    Case("S-71", "question-id-taken", _question("q", prompt="Another?"), (_question("q"),)),
    Case("S-72", "too-many-questions", _question("more"),
         tuple(_question(f"q{at}") for at in range(MAX_QUESTIONS))),
    Case("S-73", "unknown-question", ("input.withdrawn", None, {"question_id": "q9"})),
    Case("S-34", "unknown-steer", ("steer.consumed", None, {"steer_id": "s9"})),
)  # fmt: skip
"""S-24's half of a surrogate pair is what a program of UTF-16 strings sends that cuts between two units."""


async def _refuses(bench: ApiBench, case: Case) -> None:
    pen, report = await bench.pen(message="Wait."), bench.report
    numbers = await pen.write(*case.prelude, BEFORE, case.refused, AFTER)
    *others, before, refused, after = await pen.settled(numbers)
    report.check(case.number, refused == case.code, f"became {refused}")
    frames = [frame for frame in pen.line.heard("refused") if frame.get("first") == numbers[-2]]
    said = all(isinstance(frame.get("detail"), str) and frame["detail"] for frame in frames)
    report.check("S-14", bool(frames) and said, f"named in {frames}")
    report.check(
        "S-15", {before, after, *others} == {RECORDED}, f"its neighbours became {before} and {after}"
    )
    counted = pen.line.heard("ack", n=numbers[-2])
    report.check("S-16", not counted, f"{len(counted)} acknowledgements end with what was refused")


def _scenario(case: Case) -> Scenario[ApiBench]:
    async def run(bench: ApiBench) -> None:
        await _refuses(bench, case)

    return Scenario(f"an item is refused: {case.code}", frozenset({case.number, "S-14", "S-15", "S-16"}), run)


REFUSED: Final = tuple(map(_scenario, CASES))


@scenario("S-35")
async def too_much_is_refused(bench: ApiBench) -> None:
    """A thousand runs of refusals, then what would be taken of another writer."""
    pen = await bench.pen()
    pairs = [
        ("data.x", None, {}),
        ("message.delta", "m", {"offset": 9, "text": "a"}),
    ] * MAX_REFUSALS_PER_WRITER
    numbers = await pen.write(*pairs, AFTER)
    fates = await pen.settled(numbers, 4 * FLUSH_SECONDS)
    bench.report.check("S-35", fates[-1] == "too-many-refusals", f"the item after them became {fates[-1]}")


@scenario("S-36")
async def another_attempt_writes(bench: ApiBench) -> None:
    """The first attempt runs; the second says that it does."""
    pen = await bench.pen(message="Wait.", attempt=2)
    await _is_over(bench, "S-36", pen, "turn-over")


@scenario("S-38")
async def a_closed_session_is_written_to(bench: ApiBench) -> None:
    """Somebody has closed the session."""
    pen = await bench.pen()
    await pen.settled(await pen.write(BEFORE))
    await pen.session.close()
    await _is_over(bench, "S-38", pen, "session-closed")


async def _is_over(bench: ApiBench, number: str, pen: Pen, code: str) -> None:
    [n] = await pen.write(AFTER)
    fenced = await pen.line.hears("fenced", writer=pen.writer)
    fate = pen.fate(n)
    # A writer that was fenced before it wrote is told so again, and no more.
    refused = fate == code or (not fate and fenced is not None)
    bench.report.check(number, refused and fenced is not None, f"became {fate or 'nothing'}, then {fenced}")


@scenario("S-50", "S-51")
async def events_are_posted(bench: ApiBench) -> None:
    """Without a socket: twice the same, then with something wrong."""
    session = await bench.session()
    body = {"writer": "cron", "items": [{"n": 1, "type": "data.x", "data": {}}]}
    path = f"/sessions/{session.id}/events"
    answers = [await bench.client.request("POST", path, AckFrame, body) for _ in range(2)]
    count = sum(event.type == "data.x" for event in await bench.events(session))
    right = [(answer.writer, answer.n) for answer in answers] == [("cron", 1)] * 2
    bench.report.check("S-50", right and count == 1, f"answered with {answers[-1].n}, recorded {count} times")
    gap = {"n": 2, "type": "message.delta", "message_id": "m", "data": {"offset": 9, "text": "a"}}
    posted = {"writer": "cron", "items": [gap, {"n": 3, "type": "data.y", "data": {}}]}
    answer = await bench.client.http.post(bench.client.url + path, json=posted, headers=bench.client.headers)
    refused = [
        (one.get("first"), one.get("last"), one.get("code")) for one in answer.json().get("refused", ())
    ]
    right = (answer.status_code, refused) == (409, [(2, 2, "gap")])
    bench.report.check("S-51", right, f"answered with {answer.status_code}, naming {refused}")
