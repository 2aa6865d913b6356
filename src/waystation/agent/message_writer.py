"""A message as a turn writes it: piece by piece, and completed whatever happens."""

import asyncio

from pydantic import JsonValue

from waystation.agent.retelling import HeldMessage, Retelling
from waystation.agent.writer import Writer
from waystation.models.events import MAX_MESSAGE_CHARACTERS, EventType
from waystation.surrogates import hold_back_half, mend


class MessageWriter:
    """A message being written."""

    def __init__(self, writer: Writer, message_id: str, retelling: Retelling | None = None) -> None:
        """``retelling``: what it may be that an earlier attempt has told; nothing by default."""
        self.id = message_id
        self.length = 0
        self.begun = self.completed = False
        """Whether any of it was written, and its end: what has begun is completed, and nothing else."""
        self._writer, self._retelling = writer, retelling
        self._data: dict[str, JsonValue] = {}
        self._held: HeldMessage | None = None
        """What may yet be a message of an earlier attempt; nothing of it is written as long as it may."""
        self._order = asyncio.Lock()
        """What was held back is written before what follows."""
        self._half = ""
        """The first half of a character whose other half comes with the next text."""

    async def write(self, text: str) -> None:
        """Appends text: viewers see it immediately, and it is durable within a moment."""
        text, self._half = hold_back_half(self._half + text)
        await self._append(mend(text))

    async def start(self, data: dict[str, JsonValue]) -> None:
        """Starts the message; called by the turn."""
        self._data = data
        self._held = None if self._retelling is None else self._retelling.message(data)
        if self._held is None:
            await self._writer.write(EventType.MESSAGE_STARTED, data, self.id)
            self.begun = True

    async def complete(self) -> None:
        """Completes the message, whatever was refused before; called by the turn.

        Raises:
            WriteRefused: Something written earlier was refused; the message is complete all the same.
        """
        half, self._half = self._half, ""
        await self._append(mend(half), closes=True)
        if self._held is not None and not self._held.complete():
            await self._release(closes=True)
        if self.begun:
            await self._writer.write(EventType.MESSAGE_COMPLETED, {}, self.id, closes=True)
        self.completed = True
        self._writer.raise_refused()

    def cut_off(self) -> None:
        """Completes the message at once, as one that failed; called by the turn."""
        if self._held is not None and not self.completed and not self._held.complete(finish="failed"):
            held, self._held, self.begun = self._held, None, True
            self._writer.put(EventType.MESSAGE_STARTED, self._data, self.id)
            if held.text:
                self._writer.put(EventType.MESSAGE_DELTA, self._delta(held.text), self.id)
        if self.begun and not self.completed:
            self._writer.put(EventType.MESSAGE_COMPLETED, {"finish": "failed"}, self.id)
        self.completed = True

    async def _append(self, text: str, *, closes: bool = False) -> None:
        if not text:
            return
        async with self._order:
            if self._held is not None:
                if self._held.add(text):
                    return
                await self._release(closes=closes)
            await self._write(text, closes=closes)

    async def _release(self, *, closes: bool) -> None:
        """Writes what was held back: it is another message than any that was told."""
        assert self._held is not None
        held, self._held = self._held, None
        await self._writer.write(EventType.MESSAGE_STARTED, self._data, self.id, closes=closes)
        self.begun = True
        if held.text:
            await self._write(held.text, closes=closes)

    async def _write(self, text: str, *, closes: bool) -> None:
        await self._writer.write(EventType.MESSAGE_DELTA, lambda: self._delta(text), self.id, closes=closes)

    def _delta(self, text: str) -> dict[str, JsonValue]:
        offset, self.length = self.length, self.length + len(text)
        if self.length > MAX_MESSAGE_CHARACTERS:
            self.length = offset
            raise ValueError(f"A message has at most {MAX_MESSAGE_CHARACTERS} characters; start another one.")
        self.begun = True
        return {"offset": offset, "text": text}
