"""A session as a workflow sees it, and the turns that it runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self, TypeVar

from pydantic import JsonValue, ValidationError
from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

from waystation.malformed import what_is_wrong
from waystation.models.events import Actor, EventType
from waystation.models.owners import SteerGiven, WriterRef
from waystation.models.refusals import RefusalCode
from waystation.models.sessions import (
    Close,
    SessionLimits,
    SessionOpening,
    SessionOwner,
    Steer,
    Stop,
    TurnEnded,
    TurnInput,
    TurnResult,
)
from waystation.temporal.calls import start_activity, start_child_workflow, tell_workflow
from waystation.temporal.messages import (
    ANNOUNCE,
    SESSION,
    SESSION_CLOSE,
    SESSION_STEER,
    SESSION_STOP,
    SESSION_TELL_AGAIN,
    SESSION_TURN_ENDED,
)
from waystation.temporal.names import SESSION_TASK_QUEUE, TURN_STOPPED, TURNS_TAKEN_BY
from waystation.temporal.tokens import SignalName
from waystation.workflow.errors import SESSION_ID_TAKEN, SessionError, no_session, refused
from waystation.workflow.policies import ANNOUNCE_RETRY, ANNOUNCE_TIMEOUT
from waystation.workflow.writing import Writing, brief

Argument = TypeVar("Argument")

Steering = SteerGiven
"""What somebody has said to a running turn: ``text`` and ``actor``."""


class Session(Writing):
    """A session that this workflow writes to: one that it has started, or any other by its id."""

    def __init__(self, session_id: str, *, agent: str) -> None:
        """``agent`` is the name that this workflow writes under.

        Raises:
            SessionError: No session can have this id, or no agent this name.
        """
        try:
            ref = WriterRef(session_id=session_id, agent=agent)
        except ValidationError as error:
            raise SessionError(RefusalCode.BAD_ITEM, "; ".join(what_is_wrong(error))) from None
        super().__init__(ref.session_id, ref.agent, None)

    @classmethod
    async def start(
        cls,
        agent: str,
        *,
        session_id: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, str] | None = None,
        started_by: Actor | None = None,
        limits: SessionLimits | None = None,
        takes_turns: bool = False,
    ) -> "Session":
        """Starts a session that belongs to this workflow and outlives it.

        With ``takes_turns`` this workflow is the agent: it gets what people say by ``turns``. Without, turns
        go to a process that runs the agent, and this workflow writes beside it.

        Raises:
            SessionError: The id was used before, or something can't be used.
        """
        session = cls(session_id or workflow.uuid4().hex, agent=agent)
        try:
            opening = SessionOpening(
                agent=agent,
                title=title,
                metadata=dict(metadata or {}),
                started_by=started_by,
                limits=limits or SessionLimits(),
                owner=SessionOwner(workflow_id=workflow.info().workflow_id, takes_turns=takes_turns),
            )
        except ValidationError as error:
            raise SessionError(RefusalCode.BAD_ITEM, "; ".join(what_is_wrong(error))) from None
        heard = session._inbox
        try:
            started = await start_child_workflow(
                SESSION,
                opening,
                id=session.id,
                task_queue=SESSION_TASK_QUEUE,
                # People go on in it, whatever becomes of this workflow.
                parent_close_policy=ParentClosePolicy.ABANDON,
                cancellation_type=ChildWorkflowCancellationType.ABANDON,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                memo={
                    "agent": agent,
                    "title": title,
                    TURNS_TAKEN_BY: workflow.info().workflow_id if takes_turns else None,
                },
            )
        except WorkflowAlreadyStartedError:
            taken = f"There is, or was, a session '{session.id}'; choose another id, or write by Session(…)."
            raise SessionError(SESSION_ID_TAKEN, taken) from None

        def note_end(session_workflow: "asyncio.Future[None]") -> None:
            """Also of a session that was ended in Temporal, and could tell nobody."""
            heard.closed = True
            if not session_workflow.cancelled():
                session_workflow.exception()

        heard.begun = True
        started.add_done_callback(note_end)
        return session

    @property
    def id(self) -> str:
        """The session's id."""
        return self.ref.session_id

    @property
    def closed(self) -> bool:
        """Whether this workflow has been told that the session is closed."""
        return self._inbox.closed

    async def turns(self) -> AsyncIterator["Turn"]:
        """Yields what people say, one turn at a time, until the session is closed.

        Use each as ``async with turn``. For the workflow that has started the session with ``takes_turns``,
        in this run or an earlier one: after continue-as-new, call it on ``Session(session_id, agent=…)``.

        Raises:
            SessionError: There is no such session.
        """
        heard = self._inbox
        if not heard.begun:
            heard.begun = True
            await self._ask_what_runs()
        while True:
            await workflow.wait_condition(lambda: bool(heard.waiting) or bool(heard.untold) or heard.closed)
            if heard.untold:
                await self.report(heard.untold.popleft())
                continue
            if not heard.waiting:
                return
            turn = Turn(self, heard.waiting.popleft())
            if turn.id in heard.stopped:
                await self.report(TurnEnded(turn_id=turn.id, outcome="stopped"))
            else:
                yield turn

    async def _ask_what_runs(self) -> None:
        try:
            await self.tell(SESSION_TELL_AGAIN, None)
        except SessionError:
            # No workflow runs under this id: it may have been closed in the meantime.
            try:
                await self._record()
            except SessionError as error:
                if error.code != RefusalCode.SESSION_CLOSED:
                    raise
                self._inbox.closed = True

    async def stop(self, turn_id: str | None = None, *, reason: str | None = None) -> None:
        """Stops a turn; without an id whatever runs.

        Raises:
            SessionError: There is no such session, or it is closed.
        """
        await self.tell(SESSION_STOP, Stop(turn_id=turn_id, reason=reason, actor=self._actor()))

    async def steer(self, text: str, *, actor: Actor | None = None) -> None:
        """Says something to the running turn; with none running, it begins one.

        ``actor`` is who says it, by default a user without a name.

        Raises:
            SessionError: There is no such session, or it is closed.
        """
        await self.tell(SESSION_STEER, Steer(text=text, actor=actor))

    async def close(self, *, reason: str | None = None) -> None:
        """Closes the session; one that is closed already stays so."""
        with contextlib.suppress(SessionError):
            await self.tell(SESSION_CLOSE, Close(reason=reason, actor=self._actor()))

    def _actor(self) -> Actor:
        return Actor.model_validate({"id": self.ref.agent, "role": "agent"})

    async def tell(self, signal: SignalName[Argument], argument: Argument) -> None:
        """Sends the session a signal, and has the API look for what came of it."""
        try:
            await tell_workflow(self.id, signal, argument)
        except ApplicationError:
            raise no_session(self.id) from None
        await self.announce()

    async def report(self, ended: TurnEnded) -> None:
        """Reports a turn's end to the session; one that has ended itself needs none."""
        self._inbox.note_end(ended)
        with contextlib.suppress(SessionError):
            await self.tell(SESSION_TURN_ENDED, ended)

    async def announce(self) -> None:
        """Has the API look for news, which it would find a little later by itself."""
        with contextlib.suppress(ActivityError):
            await start_activity(
                ANNOUNCE,
                self.id,
                task_queue=SESSION_TASK_QUEUE,
                schedule_to_close_timeout=ANNOUNCE_TIMEOUT,
                retry_policy=ANNOUNCE_RETRY,
            )


class Turn(Writing):
    """One turn that this workflow runs, as ``async with turn``.

    It is completed where the block ends. Where it is stopped, the block is left as by a cancellation, and the
    workflow goes on behind it. A failure that the block raises (of an activity, say) fails the turn, and goes
    on to the workflow. Any other exception is a mistake in the code: Temporal tries it again once that is
    corrected, and the turn waits.
    """

    def __init__(self, session: Session, given: TurnInput) -> None:
        super().__init__(session.id, session.ref.agent, given.turn_id)
        self.session, self.given = session, given
        self.id, self.text, self.data = given.turn_id, given.text, given.data
        self.actor = given.actor
        """Who has said it."""
        self.result: JsonValue = None
        """What the turn comes to; everybody who may read the session sees it."""
        self._task: asyncio.Task[object] | None = None
        self._cancelled = self._over = False

    @property
    def stopped(self) -> bool:
        """Whether it was stopped: what it writes counts no more."""
        return self.id in self._inbox.stopped

    async def take_steers(self) -> list[Steering]:
        """Takes up what people have said since the turn began; they are told it was consumed.

        Raises:
            SessionError: The turn was stopped.
        """
        heard = self._inbox
        taken = [steer for steer in heard.steers if steer.turn_id == self.id]
        heard.steers = [steer for steer in heard.steers if steer.turn_id != self.id]
        for steer in taken:
            await self._write(EventType.STEER_CONSUMED, {"steer_id": steer.steer_id}, {})
        return taken

    async def wait_for_steer(self) -> None:
        """Waits until there is something for ``take_steers``."""
        heard = self._inbox
        await workflow.wait_condition(lambda: any(steer.turn_id == self.id for steer in heard.steers))

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._inbox.stop_turn[self.id] = self._stop
        if self.stopped:
            # Within the block, which is what ends where it is stopped.
            asyncio.get_running_loop().call_soon(self._stop)
        return self

    def _stop(self) -> None:
        if self._task and not (self._cancelled or self._over):
            self._cancelled = True
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        # From here on a stop comes too late to cancel anything.
        self._over = True
        self._inbox.stop_turn.pop(self.id, None)
        if _was_stopped(error):  # the news of it may be on its way
            self._inbox.stopped.add(self.id)
        others = self._task.uncancel() if self._task and self._cancelled else 0
        ended = self._ended(error)
        if ended is None:
            return False
        await self.session.report(ended)
        return self.stopped and not others

    def _ended(self, error: BaseException | None) -> TurnEnded | None:
        """Returns what to report; nothing of what is a mistake in the code."""
        if error is None and not self.stopped:
            try:
                result = TurnResult(outcome="completed", result=self.result).result
            except ValidationError as invalid:
                raise refused(RefusalCode.BAD_ITEM) from invalid
            return TurnEnded(turn_id=self.id, outcome="completed", result=result)
        if error is None or isinstance(error, asyncio.CancelledError) or is_cancelled_exception(error):
            return TurnEnded(turn_id=self.id, outcome="stopped")
        if isinstance(error, FailureError) and self.stopped:
            return TurnEnded(turn_id=self.id, outcome="stopped")
        if isinstance(error, FailureError):
            return TurnEnded(turn_id=self.id, outcome="failed", code="agent_error", detail=brief(error))
        return None


def _was_stopped(error: BaseException | None) -> bool:
    """Whether an activity has ended because it heard of a stop, which may be before its workflow does."""
    while isinstance(error, FailureError):
        if isinstance(error, ApplicationError) and error.type == TURN_STOPPED:
            return True
        error = error.cause
    return False
