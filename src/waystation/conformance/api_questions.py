"""Scenarios of questions, from the API's side."""

from typing import Any, Final

from waystation.conformance.api_bench import FLUSH_SECONDS, ApiBench, Written
from waystation.conformance.scenarios import scenario
from waystation.models.questions import Choice

CHOICES: Final = [Choice(value=value).model_dump(exclude_none=True) for value in ("tea", "coffee")]
QUESTION: Final[Written] = (
    "input.requested", None, {"question_id": "q", "kind": "choice", "prompt": "Which?", "choices": CHOICES}
)  # fmt: skip


@scenario("S-74", "S-75", "S-76")
async def a_question_is_answered(bench: ApiBench) -> None:
    """It is asked twice and answered once, and the agent's process connects again."""
    pen, report = await bench.pen(message="Wait."), bench.report
    await pen.settled(await pen.write(("data.before", None, {}), QUESTION))
    await pen.settled(await pen.write(QUESTION))
    recorded = [event for event in await bench.events(pen.session) if event.type == "input.requested"]
    report.check("S-76", len(recorded) == 1, f"asked twice, and recorded {len(recorded)} times")
    await pen.session.answer("q", "tea")
    told = await pen.line.hears("answered", within=FLUSH_SECONDS, question_id="q")
    report.check("S-74", _is_as_it_should(told), f"the answer is told as {told}")
    later = await bench.pen(session=pen.session, message="Wait.", line=await bench.line())
    again = await later.line.hears("answered", within=FLUSH_SECONDS, question_id="q")
    report.check("S-75", again is not None, f"to a later connection the answer is told as {again}")


def _is_as_it_should(told: dict[str, Any] | None) -> bool:
    if told is None or not isinstance(told.get("actor"), dict):
        return False
    return (told.get("outcome"), told.get("value"), told["actor"].get("role")) == ("answered", "tea", "user")
