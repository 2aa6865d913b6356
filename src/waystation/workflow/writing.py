"""What a workflow writes into a session, within a turn or outside turns.

Each item is recorded when the call returns. A workflow that is replayed, or whose worker dies, writes nothing
twice: items are numbered, under a writer's id that is the run's.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pydantic import JsonValue, ValidationError
from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

from waystation.models.events import (
    DATA_PREFIX,
    MAX_DATA_BYTES,
    MAX_MESSAGE_CHARACTERS,
    Actor,
    EventType,
    Item,
    Role,
    Write,
)
from waystation.models.owners import SessionWrite, WriterRef
from waystation.models.refusals import RefusalCode
from waystation.redaction import redact
from waystation.surrogates import mend, mend_json
from waystation.temporal.calls import start_activity
from waystation.temporal.messages import WRITE_TO_SESSION
from waystation.temporal.names import SESSION_TASK_QUEUE
from waystation.workflow.errors import SessionError, as_refusal, refused
from waystation.workflow.inbox import SessionInbox, inbox
from waystation.workflow.policies import WRITE_RETRY, WRITE_TIMEOUT

MAX_ERROR_CHARACTERS = 2_000


@dataclass
class ToolCall:
    """A tool call that is shown; set ``result`` before the block ends."""

    id: str
    name: str
    result: JsonValue = None


class Writing:
    """Something of a session that can be written to."""

    def __init__(self, session_id: str, agent: str, turn_id: str | None) -> None:
        self.ref = WriterRef(session_id=session_id, agent=agent, turn_id=turn_id)
        """In whose name it is written, and where."""

    @property
    def _inbox(self) -> SessionInbox:
        return inbox().of(self.ref.session_id)

    async def write_message(self, text: str, *, kind: str | None = None, **data: JsonValue) -> str:
        """Writes a whole message and returns its id; ``kind`` may be ``reasoning``.

        Raises:
            SessionError: It isn't recorded: the session is closed or full, or the turn was stopped.
        """
        text = mend(text)
        if len(text) > MAX_MESSAGE_CHARACTERS:
            raise refused(RefusalCode.MESSAGE_TOO_LONG)
        message_id = self._new_id()
        more = {"kind": kind} if kind else {}
        await self._write(EventType.MESSAGE_COMPLETED, {"text": text}, {**data, **more}, message_id)
        return message_id

    async def emit(self, name: str, data: dict[str, JsonValue]) -> None:
        """Writes an event of your own, ``data.<name>``.

        Raises:
            SessionError: It isn't recorded.
        """
        await self._write(DATA_PREFIX + name, {}, data)

    @asynccontextmanager
    async def tool(
        self, name: str, arguments: JsonValue = None, *, kind: str | None = None
    ) -> AsyncIterator[ToolCall]:
        """Shows a tool call and what came of it.

        Raises:
            SessionError: It isn't recorded.
        """
        call = ToolCall(id=self._new_id(), name=name)
        shown: dict[str, JsonValue] = {"call_id": call.id, "name": name}
        more: dict[str, JsonValue] = {"kind": kind} if kind else {}
        await self._write(EventType.TOOL_CALLED, shown, {"arguments": arguments, **more})
        try:
            yield call
            await self._write(EventType.TOOL_RETURNED, shown, {"result": call.result})
        except (FailureError, asyncio.CancelledError) as error:
            # Any other exception is a mistake in the workflow's code: its task is tried again from here.
            with contextlib.suppress(SessionError):
                await self._write(EventType.TOOL_RETURNED, shown, {"error": brief(error)})
            raise

    def _new_id(self) -> str:
        """Returns a new id of a message or call, which is the same in a replay, after a reset too."""
        return f"{self.ref.turn_id or 'workflow'}-{workflow.uuid4().hex}"

    async def _write(
        self,
        kind: str,
        fixed: dict[str, JsonValue],
        data: dict[str, JsonValue],
        message_id: str | None = None,
    ) -> None:
        """Writes one item: what it has by its type, and what the caller adds, which is bounded."""
        _check_size(data)
        heard = self._inbox
        async with heard.lock:
            number = heard.numbered + 1
            try:
                item = Item(n=number, type=kind, message_id=message_id, data={**_mended(data), **fixed})
            except ValidationError:
                raise refused(RefusalCode.BAD_ITEM) from None
            heard.numbered = number
            await self._record(item)

    async def _record(self, *items: Item) -> None:
        """Has items recorded; with none, sees whether the session would take any."""
        write = Write(
            writer=f"workflow:{workflow.info().run_id}",
            actor=Actor(id=self.ref.agent, role=Role.AGENT),
            turn_id=self.ref.turn_id,
            attempt=1 if self.ref.turn_id else 0,
            items=items,
        )
        recording = start_activity(
            WRITE_TO_SESSION,
            SessionWrite(session_id=self.ref.session_id, write=write),
            task_queue=SESSION_TASK_QUEUE,
            start_to_close_timeout=WRITE_TIMEOUT,
            retry_policy=WRITE_RETRY,
        )
        recording.add_done_callback(_retrieve)
        try:
            await asyncio.shield(recording)
        except asyncio.CancelledError:
            # What has its number is recorded before anything that comes after it.
            await workflow.wait([recording], timeout=WRITE_TIMEOUT.total_seconds())
            raise
        except ActivityError as error:
            raise as_refusal(error) or error from None


def _mended(data: dict[str, JsonValue]) -> dict[str, JsonValue]:
    mended = mend_json(data)
    assert isinstance(mended, dict), "mending keeps the shape"
    return mended


def _check_size(data: dict[str, JsonValue]) -> None:
    try:
        size_bytes = len(json.dumps(data))
    except (TypeError, ValueError, RecursionError):
        raise refused(RefusalCode.BAD_ITEM) from None
    if size_bytes > MAX_DATA_BYTES:
        raise refused(RefusalCode.DATA_TOO_LARGE)


def _retrieve(recording: "asyncio.Future[None]") -> None:
    """Looks at how the recording has ended: after a cancellation nobody else does, and the SDK logs that."""
    if not recording.cancelled():
        recording.exception()


def brief(error: BaseException) -> str:
    """Returns an error as a session's log may hold it: what is behind it, without secrets, bounded."""
    if isinstance(error, asyncio.CancelledError):
        return "canceled"
    while isinstance(error, FailureError) and error.cause is not None:
        error = error.cause
    return mend(redact(str(error))[:MAX_ERROR_CHARACTERS])
