"""A turn without servers: what it writes goes through the ingest's checks into a real session log."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from api.live.channels import check_item
from tests.agent.memory import steps, waits
from waystation.agent import Agent, Turn
from waystation.agent.connection import IngestConnection
from waystation.agent.money import Purse, Spender
from waystation.agent.told import Told
from waystation.agent.writer import Writer, actor_of
from waystation.client import Client
from waystation.client.transcript import Message, Transcript
from waystation.models.events import Actor, Event, Item, Role, Write
from waystation.models.ingest import OpenFrame, SteerFrame
from waystation.models.sessions import TurnInput
from waystation.settings import Settings
from workflows.session.log import SessionLog

ADA = Actor(id="ada", role=Role.USER, name="Ada")
BOB = Actor(id="bob", role=Role.USER, name="Bob")
OLGA = Actor(id="olga", role=Role.OPERATOR, name="Olga")
BOT = Actor(id="bot", role=Role.AGENT)
OTHER = Actor(id="researcher", role=Role.AGENT)


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
        self, kind: str, data: dict[str, Any], message_id: str | None = None, *, flush: bool = False
    ) -> None:
        item = Item(n=len(self.written) + 1, type=kind, message_id=message_id, data=data)
        self.written.append(item)
        write = Write(
            writer=self.opened.writer,
            actor=self.opened.actor,
            turn_id=self.opened.turn_id,
            attempt=self.opened.attempt,
            items=(item,),
        )
        check_item(item)
        accepted = self.log.accept(write, datetime.now(UTC))
        assert accepted.refused == 0, f"the session refused {item}"

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
        self.turn = Turn(
            given, session, self.writer, conversation, purse, waits(), steps(attempt=attempt), Told()
        )

    async def run(self, agent: Agent) -> Any:
        result = await agent(self.turn)
        await self.turn.end_message()
        return result

    def steer(self, text: str, steer_id: str = "s1", actor: Actor = ADA) -> None:
        self.turn.hear(SteerFrame(writer="w", steer_id=steer_id, text=text, actor=actor))

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
