"""A turn without servers: what it writes goes through the ingest's checks into a real session log."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from api.live.channels import check_item
from tests.agent.memory import RecordsInMemory, steps, waits
from tests.support import eventually
from waystation.agent import Agent, Turn
from waystation.agent.connection import IngestConnection
from waystation.agent.money import Purse, Spender
from waystation.agent.told import Told
from waystation.agent.writer import Writer, actor_of
from waystation.client import Client
from waystation.client.transcript import Message, Transcript
from waystation.models.events import Actor, Event, Item, Role, Visibility, Write
from waystation.models.ingest import AnsweredFrame, OpenFrame, SteerFrame
from waystation.models.sessions import TurnInput
from waystation.models.steps import MAX_INLINE_STEP_RESULT_BYTES, MAX_INLINE_STEPS_BYTES
from waystation.settings import Settings
from workflows.session.log import SessionLog

ADA = Actor(id="ada", role=Role.USER, name="Ada")
BOB = Actor(id="bob", role=Role.USER, name="Bob")
OLGA = Actor(id="olga", role=Role.OPERATOR, name="Olga")
BOT = Actor(id="bot", role=Role.AGENT)
SYSTEM = Actor(id="waystation", role=Role.SYSTEM)
OTHER = Actor(id="researcher", role=Role.AGENT)


class Script:
    """A streaming model that plays one list of chunks a request and keeps what it was given."""

    def __init__(self, *requests: list[Any]) -> None:
        self.requests = list(requests)
        self.given: list[list[ModelMessage]] = []

    async def stream(self, messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[Any]:
        self.given.append(list(messages))
        for chunk in self.requests[len(self.given) - 1]:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk() if callable(chunk) else chunk

    @property
    def model(self) -> FunctionModel:
        return FunctionModel(stream_function=self.stream)


def call(name: str, arguments: str = "{}", call_id: str = "c1") -> dict[int, DeltaToolCall]:
    return {0: DeltaToolCall(name=name, json_args=arguments, tool_call_id=call_id)}


class Records(RecordsInMemory):
    """What a turn's workflow keeps, within its own bounds."""

    max_result_bytes = MAX_INLINE_STEP_RESULT_BYTES
    max_bytes = MAX_INLINE_STEPS_BYTES


class LoggedWriter(Writer):
    """A writer whose items are recorded at once, as the API and the workflow would record them."""

    def __init__(self, log: SessionLog, turn_id: str, attempt: int) -> None:
        frame = OpenFrame(
            session_id="s", writer=f"{turn_id}.{attempt}", actor=actor_of("bot"), turn_id=turn_id,
            attempt=attempt,
        )  # fmt: skip
        super().__init__(IngestConnection("http://unused", ""), frame, lambda _: None)
        self.log, self.opened = log, frame
        self.written: list[Item] = []

    def put(
        self,
        kind: str,
        data: dict[str, Any],
        message_id: str | None = None,
        *,
        flush: bool = False,
        visibility: Visibility | None = None,
    ) -> int:
        item = Item(
            n=len(self.written) + 1, type=kind, message_id=message_id, data=data, visibility=visibility
        )
        self.written.append(item)
        write = Write(
            writer=self.opened.writer,
            actor=self.opened.actor,
            turn_id=self.opened.turn_id,
            attempt=self.opened.attempt,
            items=(item,),
        )
        check_item(item)
        if kind.startswith("input."):
            return item.n  # questions are the course's, which a log alone doesn't have
        accepted = self.log.accept(write, datetime.now(UTC))
        assert accepted.refused == 0, f"the session refused {item}"
        return item.n

    async def flush(self) -> None:
        return


class Stage:
    """A turn of the agent ``bot`` over a log of its own."""

    def __init__(
        self,
        text: str = "Hi",
        conversation: Sequence[Message] = (),
        *,
        attempt: int = 1,
        parent_turn_id: str | None = None,
        records: RecordsInMemory | None = None,
    ) -> None:
        self.log = SessionLog()
        self.log.open_fence("t1", attempt)
        self.writer = LoggedWriter(self.log, "t1", attempt)
        asking = next((m.id for m in conversation if m.turn_id is None and m.text == text), None)
        given = TurnInput(
            session_id="s", turn_id="t1", attempt=attempt, agent="bot", text=text,
            parent_turn_id=parent_turn_id, message_id=asking,
        )  # fmt: skip
        session = Client("http://unused", "key").attach("s")
        purse = Purse(Spender("s", "t1", "bot"), session, self.writer.flush, Settings(), lambda _: False)
        self.waits = waits()
        records = records or Records()
        kept = steps(records, attempt=attempt, remembered=dict(records.recorded))
        self.turn = Turn(given, session, self.writer, conversation, purse, self.waits, kept, Told())

    async def run(self, agent: Agent) -> Any:
        result = await agent(self.turn)
        await self.turn.end_message()
        return result

    def steer(self, text: str, steer_id: str = "s1", actor: Actor = ADA) -> None:
        self.turn.hear(SteerFrame(writer="w", steer_id=steer_id, text=text, actor=actor))

    async def asked(self, count: int = 1) -> list[dict[str, Any]]:
        """Returns what has been asked, once it is so many questions."""
        await eventually(lambda: len(self.of("input.requested")) >= count)
        return self.of("input.requested")

    def answer(self, question: dict[str, Any], value: Any, actor: Actor = ADA) -> None:
        question_id = question["question_id"]
        frame = AnsweredFrame(
            writer="w", question_id=question_id, outcome="answered", value=value, actor=actor
        )
        self.turn.hear(frame)

    def expire(self, question: dict[str, Any]) -> None:
        question_id = question["question_id"]
        frame = AnsweredFrame(writer="w", question_id=question_id, outcome="expired", actor=SYSTEM)
        self.turn.hear(frame)

    @property
    def events(self) -> list[Event]:
        return self.log.state.events

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [item.data for item in self.writer.written if item.type == kind]

    @property
    def transcript(self) -> list[tuple[str, str]]:
        """``(kind, text)`` of every message, in order."""
        state = Transcript()
        for event in self.events:
            state.apply(event)
        return [(message.kind, message.text) for message in state.messages]


def said(message_id: str, actor: Actor, text: str, turn_id: str | None = None, **data: Any) -> Message:
    return Message(id=message_id, actor=actor, turn_id=turn_id, text=text, status="completed", data=data)
