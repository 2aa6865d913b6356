"""What a workflow writes into a session, within a turn or outside turns.

Each item is recorded when the call returns. A workflow that is replayed, or whose worker dies, writes nothing
twice: items are numbered, under a writer's id that is the run's.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import JsonValue, TypeAdapter, ValidationError
from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

from waystation.errors import is_raised
from waystation.models.base import JsonObject
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
from waystation.models.owners import QuestionRef, SessionWrite, WriterRef
from waystation.models.questions import Audience, Choice, QuestionKind, QuestionOutcome
from waystation.models.refusals import RefusalCode
from waystation.redaction import redact
from waystation.surrogates import mend, mend_json
from waystation.temporal.calls import start_activity
from waystation.temporal.messages import READ_OUTCOME, WRITE_TO_SESSION
from waystation.temporal.names import SESSION_TASK_QUEUE
from waystation.workflow.errors import SessionError, as_refusal, refused
from waystation.workflow.inbox import SessionInbox, inbox
from waystation.workflow.policies import WRITE_RETRY, WRITE_TIMEOUT
from waystation.workflow.questions import (
    RAISE,
    Approval,
    QuestionWithdrawn,
    adapter_of,
    answer_of,
    approval_of,
    checked,
    seconds,
    value_of,
    what_is_asked,
)

T = TypeVar("T")

MAX_ERROR_CHARACTERS = 2_000
LOOKS_AT_APPROVALS = "waystation-looks-at-approvals"
"""Runs that took an approval from the signal alone are replayed so."""
_TURN_IS_OVER = frozenset({RefusalCode.TURN_OVER, RefusalCode.TURN_STOPPED})
"""Codes by which a workflow may learn that a turn has ended before the session's own news of it."""


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
        """What an activity needs to write here as well (``waystation.activity``)."""

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

    async def ask(
        self,
        prompt: str,
        *,
        answer: "type[T] | TypeAdapter[T]" = str,  # type: ignore[assignment]
        choices: Sequence[str | Choice] = (),
        audience: Audience | None = None,
        expires_in: timedelta | None = None,
        on_expiry: object = RAISE,
    ) -> T:
        """Asks the people of the session, and returns the first valid answer, however long that takes.

        ``answer`` is the type of the answer: text by default, a number, ``bool``, or a model, for which
        people fill in a form; ``choices`` offers texts instead. ``audience`` says who may answer, by default
        users and operators. After ``expires_in`` the answer is ``on_expiry``; an exception is raised.

        Raises:
            QuestionExpired: Nobody has answered in time, and there is no ``on_expiry``.
            QuestionWithdrawn: The session is closed, or the turn over.
            AnswerNotUsable: A validator of the type's own refuses the answer.
            SessionError: It isn't asked: it can't be, or the session takes nothing more.
        """
        adapter = adapter_of(answer)
        details = what_is_asked(adapter, prompt, choices=choices, audience=audience, expires_in=expires_in)
        outcome = await self._settled(details)
        if outcome.outcome == "expired" and on_expiry is not RAISE:
            if is_raised(on_expiry):
                raise on_expiry
            return on_expiry  # type: ignore[return-value]
        return answer_of(adapter, value_of(outcome))

    async def approve(
        self,
        tool: str,
        arguments: JsonObject,
        *,
        prompt: str | None = None,
        editable: bool = False,
        schema: JsonObject | None = None,
        audience: Audience | None = None,
        expires_in: timedelta | None = None,
    ) -> Approval:
        """Asks whether a tool may run with exactly these arguments, and returns those with which it may.

        Rules that the session was started with decide first. With ``editable``, whoever approves may change
        the arguments, within ``schema`` (JSON Schema) if there is one.

        Raises:
            ApprovalRejected: A person, or a rule of the session, has said no.
            QuestionExpired: Nobody has decided in time.
            QuestionWithdrawn: The session is closed, or the turn over.
            SessionError: It isn't asked.
        """
        details = {
            "kind": QuestionKind.APPROVAL,
            "prompt": prompt or f"Allow {tool}?",
            "tool": tool,
            "arguments": arguments,
            "schema": schema,
            "editable": editable,
            "audience": audience,
            "expires_in_seconds": seconds(expires_in),
        }
        return approval_of(tool, arguments, await self._settled(details))

    async def _settled(self, details: dict[str, Any]) -> QuestionOutcome:
        """Asks, and returns what becomes of it."""
        question_id = self._new_id()
        asked = checked({**details, "question_id": question_id, "reply_to": workflow.info().workflow_id})
        told, heard = inbox().settled, self._inbox
        try:
            await self._write(EventType.INPUT_REQUESTED, {}, asked)
            while True:
                await workflow.wait_condition(lambda: question_id in told or heard.closed)
                if question_id not in told:
                    raise QuestionWithdrawn("session_closed")
                outcome = told.pop(question_id)
                if details["kind"] is not QuestionKind.APPROVAL or not workflow.patched(LOOKS_AT_APPROVALS):
                    return outcome
                # Anybody who reaches the namespace may send the signal. What counts is in the session.
                if recorded := await self._outcome_of(question_id):
                    return recorded
        except asyncio.CancelledError:
            with contextlib.suppress(SessionError):
                await self._write(EventType.INPUT_WITHDRAWN, {}, {"question_id": question_id})
            raise

    async def _outcome_of(self, question_id: str) -> QuestionOutcome | None:
        """Returns what the session has recorded of a question; nothing while it waits there."""
        reading = start_activity(
            READ_OUTCOME,
            QuestionRef(session_id=self.ref.session_id, question_id=question_id),
            task_queue=SESSION_TASK_QUEUE,
            start_to_close_timeout=WRITE_TIMEOUT,
            retry_policy=WRITE_RETRY,
        )
        reading.add_done_callback(_retrieve)
        try:
            return await asyncio.shield(reading)
        except ActivityError as error:
            raise as_refusal(error) or error from None

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
            refusal = as_refusal(error)
            if refusal and refusal.code in _TURN_IS_OVER and self.ref.turn_id:
                self._inbox.stopped.add(self.ref.turn_id)
            raise refusal or error from None


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


def _retrieve(recording: "asyncio.Future[Any]") -> None:
    """Looks at how an activity has ended: after a cancellation nobody else does, and the SDK logs that."""
    if not recording.cancelled():
        recording.exception()


def brief(error: BaseException) -> str:
    """Returns an error as a session's log may hold it: what is behind it, without secrets, bounded."""
    if isinstance(error, asyncio.CancelledError):
        return "canceled"
    while isinstance(error, FailureError) and error.cause is not None:
        error = error.cause
    return mend(redact(str(error))[:MAX_ERROR_CHARACTERS])
