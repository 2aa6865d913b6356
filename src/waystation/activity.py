"""Text from your own activities, as it is made, to everybody who watches a session.

@activity.defn
async def answer(given: Question) -> str:
    async with writers.open(given.ref) as out:  # ``session.ref`` or ``turn.ref`` of waystation.workflow
        async for token in my_model(given.text):
            await out.write(token)
        return out.text

writers = await resources.enter_async_context(Writers())  # one for the worker's process
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from pydantic import JsonValue
from temporalio import activity
from temporalio.exceptions import ApplicationError

from waystation.agent.connection import IngestConnection
from waystation.agent.message_writer import MessageWriter
from waystation.agent.writer import Control, Writer, actor_of, refusal_of
from waystation.client import Client, Session
from waystation.client.transcript import Message
from waystation.errors import ApiError, ConflictError, NotAllowed, NotFound, StartError, WaystationError
from waystation.models.events import DATA_PREFIX, MAX_MESSAGE_CHARACTERS, EventType
from waystation.models.ingest import FencedFrame, OpenFrame, ProblemFrame, StopFrame
from waystation.models.owners import WriterRef
from waystation.models.refusals import RefusalCode
from waystation.settings import Settings, read_settings
from waystation.surrogates import mend
from waystation.temporal.names import TURN_STOPPED, WRITE_REFUSED

__all__ = ["ActivityWriter", "WriterRef", "Writers"]

HEARTBEATS_PER_TIMEOUT: Final = 4
_FINAL: Final = (ConflictError, NotAllowed, NotFound)
"""What trying again doesn't help against."""


class Writers:
    """The connection over which all activities of this process write. Use as ``async with``."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Reads WAYSTATION_URL and WAYSTATION_API_KEY: a key with the role 'agent', as agents have it.

        Raises:
            StartError: There is no key.
        """
        settings = settings or read_settings()
        if settings.api_key is None:
            raise StartError("WAYSTATION_API_KEY is not set: activities need a key with the role 'agent'.")
        key = settings.api_key.get_secret_value()
        self._client, self._ingest = Client(settings.url, key), IngestConnection(settings.url, key)
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._resources.enter_async_context(self._client)
        await self._resources.enter_async_context(self._ingest)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._resources.aclose()

    @asynccontextmanager
    async def open(self, ref: WriterRef) -> AsyncIterator["ActivityWriter"]:
        """Opens what this activity writes, in the name of its workflow; all of it is durable at the end.

        A later attempt of the activity goes on where an earlier one was cut off: messages that are complete
        stand, and one that is half written is shown anew when it is whole. Beats the activity's heart. If the
        turn is stopped, the block is left.

        Raises:
            ApplicationError: ``TurnStopped``, or ``WriteRefused`` with a code; neither is tried again.
        """
        writing = _Writing(self._ingest, ref)
        known = {} if activity.info().attempt == 1 else await _known(self._client.attach(ref.session_id), ref)
        beating = asyncio.create_task(_beat())
        writer = ActivityWriter(writing.writer, ref, known)
        try:
            yield writer
            await writer.finish()
        except asyncio.CancelledError:
            writing.raise_reason()
            raise
        except _FINAL as error:
            writing.raise_reason()
            raise _refusal(error) from None
        except Exception:
            await writer.give_up()
            raise
        finally:
            beating.cancel()
            writing.writer.close()


class ActivityWriter:
    """What one attempt of an activity writes."""

    def __init__(self, writer: Writer, ref: WriterRef, known: dict[str, Message]) -> None:
        self._writer, self._ref, self._known = writer, ref, known
        self._base = _base(ref)
        self._count = 0
        self._message: MessageWriter | _Whole | None = None
        self.text = ""
        """Everything written so far."""

    async def write(self, text: str) -> None:
        """Appends text to the message, starting one if none is open; everybody sees it immediately."""
        if self._message is None:
            self._message = await self._begin()
        self.text += text
        await self._message.write(text)

    async def end_message(self) -> None:
        """Completes the message; the next ``write`` begins another."""
        if self._message is not None:
            message, self._message = self._message, None
            await message.complete()

    async def emit(self, name: str, data: dict[str, JsonValue]) -> None:
        """Writes an event of your own, ``data.<name>``. An activity that is tried again writes it again."""
        await self._writer.write(DATA_PREFIX + name, data)

    async def flush(self) -> None:
        """Waits until everything written so far is durable."""
        await self._writer.flush()

    async def finish(self) -> None:
        """Completes what is open and makes everything durable; called where the block ends."""
        await self.end_message()
        await self._writer.flush()

    async def give_up(self) -> None:
        """Leaves a message to the next attempt, or to the turn's end; outside turns nothing would end it."""
        if self._message is not None and self._ref.turn_id is None:
            with contextlib.suppress(WaystationError):
                self._message.cut_off()
                await self._writer.flush()

    async def _begin(self) -> "MessageWriter | _Whole":
        self._count += 1
        message_id = f"{self._base}-{self._count}"
        known = self._known.get(message_id)
        if known is not None and known.data.get("finish") is not None:
            # It was given up: this one is another.
            message_id, known = f"{message_id}-{activity.info().attempt}", None
        if known is None:
            live = MessageWriter(self._writer, message_id)
            await live.start({})
            return live
        return _Whole(self._writer, message_id, stands=known.status != "streaming")


class _Whole:
    """A message that an earlier attempt has begun: its new text replaces the old when it is whole."""

    def __init__(self, writer: Writer, message_id: str, *, stands: bool) -> None:
        self._writer, self._id, self._stands = writer, message_id, stands
        self._text = ""

    async def write(self, text: str) -> None:
        self._text += text
        if len(self._text) > MAX_MESSAGE_CHARACTERS:
            raise ValueError(f"A message has at most {MAX_MESSAGE_CHARACTERS} characters; start another one.")

    async def complete(self) -> None:
        if not self._stands:
            await self._writer.write(EventType.MESSAGE_COMPLETED, {"text": mend(self._text)}, self._id)

    def cut_off(self) -> None:
        if not self._stands:
            self._writer.put(EventType.MESSAGE_COMPLETED, {"finish": "failed"}, self._id)


class _Writing:
    """The writer of one attempt, and what ends it."""

    def __init__(self, ingest: IngestConnection, ref: WriterRef) -> None:
        self._task, self._ref = asyncio.current_task(), ref
        self._stopped = False
        self._refused: WaystationError | None = None
        """Why nothing more is taken."""
        opening = OpenFrame(
            session_id=ref.session_id,
            writer=f"{_base(ref)}.{activity.info().attempt}",
            actor=actor_of(ref.agent),
            turn_id=ref.turn_id,
            attempt=1 if ref.turn_id else 0,
        )
        self.writer = ingest.writer(opening, self._control)

    def _control(self, frame: Control) -> None:
        match frame:
            case StopFrame():
                self._stopped = True
            case FencedFrame() if self._ref.turn_id:
                self._stopped = True
            case FencedFrame():
                self._refused = ConflictError(409, frame.code, "The session takes nothing more.")
            case ProblemFrame():
                self._refused = refusal_of(frame)
            case _:
                return
        if self._task:
            self._task.cancel()

    def raise_reason(self) -> None:
        """Raises why the block was left, if it wasn't for a cancellation by Temporal."""
        if self._stopped:
            raise ApplicationError("The turn was stopped.", type=TURN_STOPPED, non_retryable=True) from None
        if self._refused:
            raise _refusal(self._refused) from None


def _base(ref: WriterRef) -> str:
    """Returns what the ids of this activity's messages begin with, the same in every attempt."""
    info = activity.info()
    run = f"{info.workflow_run_id}/{info.activity_id}"
    return f"{ref.turn_id or 'activity'}-{hashlib.sha256(run.encode()).hexdigest()[:16]}"


async def _known(session: Session, ref: WriterRef) -> dict[str, Message]:
    """Returns the messages that earlier attempts have begun."""
    try:
        transcript = await session.load()
    except _FINAL as error:
        raise _refusal(error) from None
    base = _base(ref)
    return {message.id: message for message in transcript.messages if message.id.startswith(f"{base}-")}


def _refusal(error: WaystationError) -> ApplicationError:
    code = str(error.code if isinstance(error, ApiError) else RefusalCode.NOT_RECORDED)
    return ApplicationError(str(error), code, type=WRITE_REFUSED, non_retryable=True)


async def _beat() -> None:
    timeout = activity.info().heartbeat_timeout or timedelta(seconds=10)
    while True:
        activity.heartbeat()
        await asyncio.sleep(timeout.total_seconds() / HEARTBEATS_PER_TIMEOUT)
