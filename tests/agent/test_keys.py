"""A question's key finds the answer in a later attempt, and never the answer to something else."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import JsonValue

from waystation.agent import AnswerNotUsable, Approval, Audience
from waystation.agent.questions import ApprovalTerms, Questions
from waystation.agent.retelling import Retelling
from waystation.agent.told import told_of
from waystation.agent.waits import Waits
from waystation.client.transcript import Transcript
from waystation.models.events import Actor, EventType, Item, Role, Write
from waystation.models.ingest import AnsweredFrame
from waystation.models.questions import AnswerQuestion
from waystation.models.sessions import TurnInput
from workflows.session import questions as rules
from workflows.session.log import SessionLog

BOT = Actor(id="bot", role=Role.AGENT)
ANN = Actor(id="ann", role=Role.OPERATOR)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
APPROVED: JsonValue = {"decision": "approve"}


class Session:
    """A session's log and questions, and the attempts of one turn that asks in it."""

    def __init__(self) -> None:
        self.log = SessionLog()
        self.rules = rules.Questions(rules.QuestionsState(), "s", (), self.log, lambda: NOW)
        self.attempt = 0
        self.questions = self.begin()

    def begin(self) -> Questions:
        """Begins another attempt; the one before was killed. It is told what is settled already."""
        self.attempt += 1
        self.log.open_fence("t1", self.attempt)
        transcript = Transcript()
        for event in self.log.state.events:
            transcript.apply(event)
        given = TurnInput(session_id="s", turn_id="t1", attempt=self.attempt, agent="bot", text="")
        told = told_of(transcript, given)
        writer: Any = Pen(self)
        waits = Waits(None, lambda waiting_for: None)
        self.questions = Questions("t1", writer, waits, Retelling(told), told.asked)
        for question_id in self.rules.state.questions:
            self.tell(question_id)
        return self.questions

    def take(self, item: Item) -> None:
        write = Write(
            writer=f"t1.{self.attempt}", actor=BOT, turn_id="t1", attempt=self.attempt, items=(item,)
        )
        assert self.log.accept(write, NOW, take_input=self.rules.take).codes == []

    def answer(self, value: JsonValue, question_id: str = "t1:k") -> None:
        digest = self.rules.state.questions[question_id].digest
        given = AnswerQuestion(
            question_id=question_id, value=value, actor=ANN, answers_as="operator", digest=digest
        )
        assert self.rules.why_not_answer(given) is None
        self.rules.answer(given)
        self.tell(question_id)

    def tell(self, question_id: str) -> None:
        view = self.rules.view(question_id)
        if view and (came := view.outcome):
            frame = {"writer": "w", "question_id": question_id, "outcome": came.outcome, "value": came.value}
            self.questions.hear(AnsweredFrame.model_validate({**frame, "actor": came.actor}))

    def asked(self) -> list[str]:
        """The words of everything that people have been asked."""
        return [str(e.data["prompt"]) for e in self.log.state.events if e.type == EventType.INPUT_REQUESTED]


class Pen:
    """A writer whose items are recorded at once."""

    def __init__(self, session: Session) -> None:
        self.session, self.count = session, 0

    async def write(self, kind: str, data: dict[str, Any], **_: Any) -> None:
        self.put(kind, data)

    def put(self, kind: str, data: dict[str, Any], **_: Any) -> None:
        self.count += 1
        self.session.take(Item(n=self.count, type=kind, data=data))

    async def record(self, kind: str, data: dict[str, Any]) -> None:
        self.put(kind, data)

    async def flush(self) -> None:
        return


async def approve(session: Session, arguments: dict[str, Any], **terms: Any) -> Approval:
    return await session.questions.approve("pay", arguments, ApprovalTerms(**{"key": "k", **terms}))


async def waiting(coroutine: Any) -> "asyncio.Task[Any]":
    """Returns it as a task that has asked, and waits for people."""
    task = asyncio.create_task(coroutine)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_within_an_attempt_a_key_names_one_question() -> None:
    session = Session()
    first = await waiting(approve(session, {"cents": 5}))
    session.answer(APPROVED)
    assert (await first).arguments == {"cents": 5}
    for other in ({"cents": 500_000}, {"cents": True}, {"cents": 5.5}):
        with pytest.raises(ValueError, match="the key 'k' is taken: this attempt has asked something else"):
            await approve(session, other)
    with pytest.raises(ValueError, match="the key 'k' is taken"):
        await session.questions.ask("How many?", answer=int, key="k")
    assert (await approve(session, {"cents": 5})).arguments == {"cents": 5}, "the same again is the same"
    assert len(session.asked()) == 1


@pytest.mark.parametrize("answered_before", [True, False])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"arguments": {"cents": 500_000}}, "with other arguments"),
        ({"arguments": {"cents": True}}, "with other arguments"),
        ({"audience": Audience(roles=("approver",))}, "with other people"),
    ],
)
async def test_a_later_attempt_is_not_approved_for_what_nobody_has_seen(
    change: dict[str, Any], says: str, answered_before: bool
) -> None:
    session = Session()
    first = await waiting(approve(session, {"cents": 1}))
    if answered_before:
        session.answer(APPROVED)
    first.cancel()
    session.begin()
    with pytest.raises(ValueError, match=says):
        await approve(session, **{"arguments": {"cents": 1}, **change})


@pytest.mark.parametrize("answered_before", [True, False])
async def test_a_later_attempt_may_ask_in_other_words(answered_before: bool) -> None:
    session = Session()
    first = await waiting(approve(session, {"cents": 1}, prompt="It is 10:00. Pay?"))
    if answered_before:
        session.answer(APPROVED)
    session.begin()
    second = asyncio.create_task(approve(session, {"cents": 1}, prompt="It is 10:05. Pay?"))
    await asyncio.sleep(0)
    if not answered_before:
        session.answer(APPROVED)
    assert (await second).arguments == {"cents": 1}
    assert session.asked() == ["It is 10:00. Pay?"], "people see one question, in the words that they know"
    first.cancel()


async def test_the_order_of_an_audience_says_nothing() -> None:
    session = Session()
    first = await waiting(approve(session, {"cents": 1}, audience=Audience(roles=("operator", "approver"))))
    session.answer(APPROVED)
    await first
    session.begin()
    again = await approve(session, {"cents": 1}, audience=Audience(roles=("approver", "operator")))
    assert again.arguments == {"cents": 1}


async def test_edited_arguments_count_only_where_they_may_still_be_edited() -> None:
    session = Session()
    first = await waiting(approve(session, {"cents": 1}, editable=True))
    session.answer({"decision": "approve", "arguments": {"cents": 900}})
    assert (await first).arguments == {"cents": 900}
    session.begin()
    with pytest.raises(AnswerNotUsable, match="only the arguments that it asked for"):
        await approve(session, {"cents": 1})


async def test_an_answer_fits_what_is_asked_now() -> None:
    session = Session()
    first = await waiting(session.questions.ask("Size?", answer=str, choices=["s", "m"], key="k"))
    session.answer("s")
    assert await first == "s"
    session.begin()
    with pytest.raises(AnswerNotUsable, match="choose one of 'm', 'l'"):
        await session.questions.ask("Size?", answer=str, choices=["m", "l"], key="k")


class Late(Exception):
    """Nobody came."""


@pytest.mark.parametrize("on_expiry", [Late, Late("too late")])
async def test_an_exception_on_expiry_is_raised_as_a_class_or_an_instance(on_expiry: object) -> None:
    session = Session()
    asking = await waiting(
        session.questions.ask("Now?", answer=str, choices=(), on_expiry=on_expiry, key="k")
    )
    expired = {"writer": "w", "question_id": "t1:k", "outcome": "expired", "actor": BOT}
    session.questions.hear(AnsweredFrame.model_validate(expired))
    with pytest.raises(Late):
        await asking
