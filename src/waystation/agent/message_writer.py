"""A message as a turn writes it: piece by piece, and completed whatever happens."""

from pydantic import JsonValue

from waystation.agent.writer import Writer
from waystation.models.events import MAX_MESSAGE_CHARACTERS, EventType
from waystation.surrogates import hold_back_half, mend


class MessageWriter:
    """A message being written."""

    def __init__(self, writer: Writer, message_id: str) -> None:
        self.id = message_id
        self.length = 0
        self.begun = self.completed = False
        """Whether any of it was written, and its end: what has begun is completed, and nothing else."""
        self._writer = writer
        self._half = ""
        """The first half of a character whose other half comes with the next text."""

    async def write(self, text: str) -> None:
        """Appends text: viewers see it immediately, and it is durable within a moment."""
        text, self._half = hold_back_half(self._half + text)
        await self._append(mend(text))

    async def start(self, data: dict[str, JsonValue]) -> None:
        """Starts the message; called by the turn."""
        await self._writer.write(EventType.MESSAGE_STARTED, data, self.id)
        self.begun = True

    async def complete(self) -> None:
        """Completes the message, whatever was refused before; called by the turn.

        Raises:
            WriteRefused: Something written earlier was refused; the message is complete all the same.
        """
        half, self._half = self._half, ""
        await self._append(mend(half), closes=True)
        if self.begun:
            await self._writer.write(EventType.MESSAGE_COMPLETED, {}, self.id, closes=True)
        self.completed = True
        self._writer.raise_refused()

    def cut_off(self) -> None:
        """Completes the message at once, as one that failed; called by the turn."""
        if self.begun and not self.completed:
            self._writer.put(EventType.MESSAGE_COMPLETED, {"finish": "failed"}, self.id)
            self.completed = True

    async def _append(self, text: str, *, closes: bool = False) -> None:
        if text:
            await self._writer.write(
                EventType.MESSAGE_DELTA, lambda: self._delta(text), self.id, closes=closes
            )

    def _delta(self, text: str) -> dict[str, JsonValue]:
        offset, self.length = self.length, self.length + len(text)
        if self.length > MAX_MESSAGE_CHARACTERS:
            self.length = offset
            raise ValueError(f"A message has at most {MAX_MESSAGE_CHARACTERS} characters; start another one.")
        self.begun = True
        return {"offset": offset, "text": text}
