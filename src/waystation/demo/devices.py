"""Who watches the session: people's devices, and a witness that trusts nobody."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Self

from httpx_sse import EventSource

from waystation.client import Client, Session
from waystation.client.transcript import Message
from waystation.models.events import Event, EventType


class Device:
    """A person's screen: an ordinary client that also records whatever should not happen.

    ``faults`` says where text on the screen changed other than by growing.
    """

    def __init__(self, name: str, session: Session) -> None:
        self.name, self.session = name, session
        self.events: list[Event] = []
        self.page: list[Message | Event] = []
        self.superseded: dict[str, str] = {}
        self.faults: list[str] = []
        self.ended = False
        self._shown: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        async for event in self.session.events():
            if isinstance(event, Event):
                self.events.append(event)
                if event.message_id is None:
                    self.page.append(event)
            if event.message_id:
                self._look_at(self.session.transcript[event.message_id])
        self.ended = True

    def _look_at(self, message: Message) -> None:
        if message.id not in self._shown:
            self.page.append(message)
        before = self._shown.get(message.id, "")
        if message.status == "superseded":
            self.superseded[message.id] = before
        elif not message.text.startswith(before):
            self.faults.append(f"{message.id}: '{before[-40:]}' became '{message.text[-40:]}'")
        self._shown[message.id] = message.text

    def turn_page(self) -> None:
        """Starts an empty screen."""
        self.page = []

    def count(self, event_type: EventType, turn_id: str | None = None) -> int:
        """Returns how many events of a type arrived, in one turn or in all."""
        return sum(
            event.type == event_type and (turn_id is None or event.turn_id == turn_id)
            for event in self.events
        )

    def answer(self, turn_id: str | None) -> str:
        """Returns what agents said in a turn, as this device shows it."""
        return "".join(
            message.text
            for message in self.session.transcript
            if message.turn_id == turn_id and message.actor.role == "agent" and message.status != "superseded"
        )

    def texts(self) -> list[tuple[str, str, str]]:
        """Returns every message's id, status and text, in order."""
        return [(message.id, message.status, message.text) for message in self.session.transcript]


class Witness:
    """Records every block on the wire as it is, without any of a client's cleanup."""

    def __init__(self, client: Client, session: Session) -> None:
        self._client, self._session = client, session
        self._cursor = session.transcript.cursor
        self.blocks: list[dict[str, Any]] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._record())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _record(self) -> None:
        url = f"{self._client.url}/sessions/{self._session.id}/events?after={self._cursor}"
        async with self._client.http.stream("GET", url, headers=self._client.headers) as response:
            async for block in EventSource(response).aiter_sse():
                if block.data:
                    self.blocks.append(json.loads(block.data))

    def after(self, holds: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]] | None:
        """Returns what came after the first block for which this holds; ``None`` if it never came."""
        for position, block in enumerate(self.blocks):
            if holds(block):
                return self.blocks[position + 1 :]
        return None
