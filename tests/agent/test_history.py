"""What a turn's model reads: the request last, and nothing that waits for a turn of its own."""

from datetime import UTC, datetime
from typing import Any

from waystation.agent.history import history_of
from waystation.client.transcript import Message, ToolUse, Transcript
from waystation.models.events import Actor, EventType, Item, Role, Write
from waystation.models.requests import TranscriptView
from waystation.models.sessions import (
    OnBusy,
    SendMessage,
    SessionLimits,
    Stop,
    TurnAttempt,
    TurnEnded,
    Withdraw,
)
from workflows.session.log import SessionLog
from workflows.session.people import People, PeopleState
from workflows.session.purchases import Purchases, PurchasesState
from workflows.session.questions import Questions, QuestionsState
from workflows.session.turn_state import Identity, TurnsState
from workflows.session.turns import Turns

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ADA = Actor(id="ada", role=Role.USER)
BOT = Actor(id="bot", role=Role.AGENT)


class Talk:
    """A session without servers: its real machines, and an agent that answers what it is told to."""

    def __init__(self) -> None:
        self.log = SessionLog()
        people = People(PeopleState(), self.log, lambda: NOW)
        identity = Identity("s", "bot", SessionLimits())
        purchases = Purchases(PurchasesState())
        questions = Questions(QuestionsState(), "s", (), self.log, lambda: NOW)
        self.turns = Turns(TurnsState(), identity, self.log, people, purchases, questions, lambda: NOW)
        self.written = 0

    def say(self, text: str, on_busy: OnBusy = OnBusy.QUEUE) -> str:
        sent = self.turns.send(SendMessage(text=text, actor=ADA, on_busy=on_busy))
        self.turns.state.launch.clear()
        return str(sent.turn_id)

    def write(self, turn_id: str, kind: str, data: dict[str, Any], message: str | None = None) -> None:
        self.written += 1
        item = Item(n=self.written, type=kind, message_id=message, data=data)
        attempt = self.turns.state.turns[turn_id].input.attempt
        write = Write(writer="w", actor=BOT, turn_id=turn_id, attempt=attempt, items=(item,))
        assert not self.log.accept(write, NOW).refused

    def answer(self, turn_id: str, text: str) -> None:
        self.write(turn_id, EventType.MESSAGE_COMPLETED, {"text": text}, f"a-{turn_id}-{self.written}")

    def use(self, turn_id: str, call_id: str, result: str | None) -> None:
        self.write(turn_id, EventType.TOOL_CALLED, {"call_id": call_id, "name": "clock", "arguments": {}})
        if result:
            self.write(
                turn_id, EventType.TOOL_RETURNED, {"call_id": call_id, "name": "clock", "result": result}
            )

    def end(self, turn_id: str, outcome: Any = "completed") -> None:
        self.turns.turn_ended(TurnEnded(turn_id=turn_id, outcome=outcome))
        self.turns.state.launch.clear()

    def read_by(self, turn_id: str) -> list[str]:
        """What the turn's agent is given, read as events and as a transcript that was fetched."""
        given = self.turns.state.turns[turn_id].input
        live = Transcript()
        for event in self.log.state.events:
            live.apply(event)
        late = Transcript()
        late.load(fetched(live))
        read = history_of(live, given)
        assert history_of(late, given) == read
        return [shown(one) for one in read]


def shown(one: Message | ToolUse) -> str:
    return one.text if isinstance(one, Message) else f"{one.name}: {one.result or one.error}"


def fetched(state: Transcript) -> TranscriptView:
    """What ``GET /transcript`` answers, through JSON."""
    view = state.view("s", closed=False)
    return TranscriptView.model_validate_json(view.model_dump_json(exclude_none=True))


def test_a_message_that_waits_is_left_out_until_its_own_turn() -> None:
    talk = Talk()
    first = talk.say("A")
    second = talk.say("B")
    assert talk.read_by(first) == ["A"]
    talk.answer(first, "to A")
    talk.end(first)
    assert talk.read_by(second) == ["A", "to A", "B"]


def test_the_request_is_last_also_when_another_went_before_it() -> None:
    talk = Talk()
    first = talk.say("A")
    waiting = talk.say("B")
    urgent = talk.say("C", OnBusy.INTERRUPT)
    talk.end(first, "stopped")
    assert talk.read_by(urgent) == ["A", "C"]
    talk.answer(urgent, "to C")
    talk.end(urgent)
    assert talk.read_by(waiting) == ["A", "C", "to C", "B"]


def test_a_message_whose_turn_was_stopped_while_it_waited_was_said_all_the_same() -> None:
    talk = Talk()
    first = talk.say("A")
    second = talk.say("B")
    talk.turns.stop(Stop(turn_id=second))
    assert talk.read_by(first) == ["B", "A"]


def test_a_message_that_was_withdrawn_was_never_said() -> None:
    talk = Talk()
    first = talk.say("A")
    second = talk.say("B")
    third = talk.say("C")
    message_id = talk.turns.state.turns[second].input.message_id
    assert message_id
    talk.turns.withdraw(Withdraw(message_id=message_id, actor=ADA))
    talk.answer(first, "to A")
    talk.end(first)
    assert talk.read_by(third) == ["A", "to A", "C"]


def test_tools_are_there_in_their_place_and_what_a_given_up_attempt_left_unfinished_is_not() -> None:
    talk = Talk()
    first = talk.say("A")
    talk.use(first, "c0", "20:14")
    talk.use(first, "c1", None)
    talk.turns.turn_attempt(TurnAttempt(turn_id=first, attempt=2, code="agent_lost"))
    talk.use(first, "c2", "20:15")
    talk.answer(first, "It is 20:15.")
    talk.use(first, "c3", None)
    talk.end(first, "failed")
    second = talk.say("B")
    assert talk.read_by(second) == [
        "A",
        "clock: 20:14",
        "clock: 20:15",
        "It is 20:15.",
        "clock: the turn failed",
        "B",
    ]


def test_what_an_earlier_attempt_of_the_turn_has_completed_comes_after_the_request() -> None:
    talk = Talk()
    first = talk.say("A")
    talk.answer(first, "to A")
    second = talk.say("B")
    talk.end(first)
    talk.answer(second, "half of B")
    assert talk.read_by(second) == ["A", "to A", "B", "half of B"]
