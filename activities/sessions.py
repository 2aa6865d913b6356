"""Writes into sessions what other people's workflows want written, and tells them what is recorded."""

from typing import Final

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities.announcements import Announcements
from waystation.models.events import Publish, Write
from waystation.models.owners import QuestionRef, SessionWrite
from waystation.models.questions import QuestionOutcome
from waystation.models.refusals import REASONS, RefusalCode
from waystation.models.sessions import LogPosition, LogReading
from waystation.temporal.calls import Handle, ask, tell
from waystation.temporal.messages import (
    READ_OUTCOME,
    SESSION_PUBLISH,
    SESSION_QUESTION,
    SESSION_READ,
    WRITE_TO_SESSION,
)
from waystation.temporal.names import WRITE_REFUSED

_PAST_EVERYTHING: Final = 2**53
"""A cursor behind which there are no events: only the receipts are wanted."""


class SessionWrites:
    """The ``write_to_session`` activity. What is written again is recorded once, for writers number it."""

    def __init__(self, client: Client, news: Announcements) -> None:
        self._client, self._news = client, news

    @activity.defn(name=WRITE_TO_SESSION.name)
    async def write_to_session(self, call: SessionWrite) -> None:
        """Returns once it is recorded; with nothing to write, if the session would take something.

        Raises:
            ApplicationError: ``WriteRefused``; its first detail is why. Anything else is worth trying again.
        """
        handle = self._client.get_workflow_handle(call.session_id)
        ended = not await _publish(handle, call.write)
        if not ended:
            await self._news.announce(call.session_id)
        reading = await _read(handle, call.write)
        if code := _why_not(call.write, reading, ended=ended):
            raise _refused(code, REASONS[code])

    @activity.defn(name=READ_OUTCOME.name)
    async def read_outcome(self, of: QuestionRef) -> QuestionOutcome | None:
        """Returns what has become of a question; a session that doesn't know it will never settle it.

        Raises:
            ApplicationError: ``WriteRefused``: there is no such session. Anything else is worth trying again.
        """
        try:
            view = await ask(
                self._client.get_workflow_handle(of.session_id), SESSION_QUESTION, of.question_id
            )
        except RPCError as error:
            raise _without_session(error) from None
        if view is None:
            gone = "its session does not know it"
            return QuestionOutcome(question_id=of.question_id, outcome="withdrawn", seq=0, reason=gone)
        return view.outcome


async def _publish(handle: Handle, write: Write) -> bool:
    """Returns whether there is a session that takes it; one that has ended may have taken it before."""
    try:
        await tell(handle, SESSION_PUBLISH, Publish(writes=(write,)))
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True


async def _read(handle: Handle, write: Write) -> LogReading:
    position = LogPosition(after=_PAST_EVERYTHING, limit=1, writers=(write.writer,))
    try:
        return await ask(handle, SESSION_READ, position)
    except RPCError as error:
        raise _without_session(error) from None


def _without_session(error: RPCError) -> Exception:
    """Returns what is raised where a session can't be asked."""
    if error.status == RPCStatusCode.NOT_FOUND:
        return _refused("unknown-session", "There is no such session; check its id.")
    return error


def _why_not(write: Write, reading: LogReading, *, ended: bool) -> RefusalCode | None:
    """Returns why something of it isn't recorded, or ``None``."""
    if not write.items:
        return RefusalCode.SESSION_CLOSED if ended or reading.page.closed else None
    receipt = reading.receipts[write.writer]
    first, last = write.items[0].n, write.items[-1].n
    for known in receipt.refused:
        if known.first <= last and first <= known.last:
            return known.code
    if receipt.n >= last:
        return None
    if ended or reading.page.closed:
        return RefusalCode.SESSION_CLOSED
    return RefusalCode.TURN_OVER if write.turn_id else RefusalCode.NOT_RECORDED


def _refused(code: str, why: str) -> ApplicationError:
    return ApplicationError(why, code, type=WRITE_REFUSED, non_retryable=True)
