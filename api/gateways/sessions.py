"""The API's way to Temporal: every call bounded in time, every failure a problem that says what to do."""

import asyncio
import uuid
from base64 import b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from api.errors import Invalid, Problem, Unavailable, UnknownSession, refusal
from waystation.models.events import Publish
from waystation.models.requests import ListedSession
from waystation.models.sessions import (
    Outcome,
    ReplayPage,
    SendMessage,
    Sent,
    Snapshot,
    Spawn,
    Spawned,
    StartSession,
)
from waystation.temporal.encryption import PayloadDecryptionError
from waystation.temporal.names import SESSION_TASK_QUEUE, SESSION_WORKFLOW
from workflows.session import AgentSession, SessionInput

T = TypeVar("T")

HEDGE_AFTER_SECONDS = 0.25
MAX_UPDATE_ATTEMPTS = 4
UPDATE_PAUSE_SECONDS = 0.05
"""Before an update is repeated, times the attempts made: the task that dropped it is repeated at once."""

_GONE_STATES = (RPCStatusCode.NOT_FOUND,)
_NEVER_CONNECTED = "Failed client connect"
_TASK_FAILED = "workflow task failure"
_BAD_STATES = (RPCStatusCode.INVALID_ARGUMENT,)


class Gateway:
    """Calls to session workflows."""

    def __init__(self, client: Client, timeout_seconds: float) -> None:
        self.client = client
        self._timeout = timedelta(seconds=timeout_seconds)
        self._queries: dict[str, tuple[asyncio.Lock, int]] = {}

    def handle(self, session_id: str) -> WorkflowHandle[AgentSession, None]:
        return self.client.get_workflow_handle_for(AgentSession.run, session_id)

    async def start(
        self, session_id: str, start: StartSession, *, task_queue: str = SESSION_TASK_QUEUE
    ) -> bool:
        """Starts the session; false if it exists already (then nothing changes)."""

        async def call() -> bool:
            try:
                await self.client.start_workflow(
                    AgentSession.run,
                    SessionInput(**start.model_dump()),
                    id=session_id,
                    task_queue=task_queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    memo={"agent": start.agent, "title": start.title},
                    rpc_timeout=self._timeout,
                )
            except WorkflowAlreadyStartedError:
                return False
            return True

        return await self._guarded(session_id, call)

    async def list_sessions(
        self, limit: int, cursor: str | None, *, only_open: bool
    ) -> tuple[list[ListedSession], str | None]:
        """A page of sessions, newest first, and the cursor of the next page."""
        query = f"WorkflowType='{SESSION_WORKFLOW}'" + (" AND ExecutionStatus='Running'" if only_open else "")
        # A session that has continued as new is one session, not one a run.
        query += " AND ExecutionStatus!='ContinuedAsNew'"
        try:
            token = b64decode(cursor, altchars=b"-_", validate=True) if cursor else None
        except ValueError as error:
            raise Invalid(
                "The cursor is not one of ours; leave it out to begin anew.", code="wrong-cursor"
            ) from error

        async def call() -> tuple[list[ListedSession], str | None]:
            page = self.client.list_workflows(
                query, page_size=limit, next_page_token=token, rpc_timeout=self._timeout
            )
            await page.fetch_next_page()
            listed = [await _listed(execution) for execution in page.current_page or ()]
            following = urlsafe_b64encode(page.next_page_token).decode() if page.next_page_token else None
            return listed, following

        return await self._guarded("", call)

    async def snapshot(self, session_id: str) -> Snapshot:
        snapshot: Snapshot = await self._query(session_id, AgentSession.snapshot, [])
        return snapshot

    async def replay(self, session_id: str, after: int, limit: int) -> ReplayPage:
        page: ReplayPage = await self._query(session_id, AgentSession.replay, [after, limit])
        return page

    async def outcome(self, session_id: str, request_id: str) -> Outcome | None:
        outcome: Outcome | None = await self._query(session_id, AgentSession.outcome, [request_id])
        return outcome

    async def publish(self, session_id: str, publish: Publish) -> None:
        await self.signal(session_id, "publish", publish)

    async def send(self, session_id: str, message: SendMessage) -> Sent:
        update_id = message.message_id
        sent: Sent = await self.update(session_id, AgentSession.send, message, update_id=update_id)
        return sent

    async def spawn(self, session_id: str, spawn: Spawn) -> Spawned:
        spawned: Spawned = await self.update(session_id, AgentSession.spawn, spawn)
        return spawned

    async def signal(self, session_id: str, name: str, argument: Any) -> None:
        handle = self.handle(session_id)
        await self._guarded(session_id, lambda: handle.signal(name, argument, rpc_timeout=self._timeout))

    async def update(
        self, session_id: str, update: Any, argument: Any, *, update_id: str | None = None
    ) -> Any:
        handle = self.handle(session_id)
        return await self._guarded(
            session_id, lambda: execute_update(handle, update, argument, self._timeout, update_id=update_id)
        )

    async def _query(self, session_id: str, query: Any, args: list[Any]) -> Any:
        handle = self.handle(session_id)

        async def call() -> Any:
            # Waiting for its turn is part of a request's time.
            async with self._one_at_a_time(session_id):
                return await _hedged(lambda: handle.query(query, args=args, rpc_timeout=self._timeout))

        return await self._guarded(session_id, call)

    @asynccontextmanager
    async def _one_at_a_time(self, session_id: str) -> AsyncIterator[None]:
        """While a workflow is busy, Temporal lets only so many queries wait (one, by default)."""
        lock, users = self._queries.get(session_id, (asyncio.Lock(), 0))
        self._queries[session_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._queries[session_id]
            if users > 1:
                self._queries[session_id] = (lock, users - 1)
            else:
                del self._queries[session_id]

    async def _guarded(self, session_id: str, call: Callable[[], Awaitable[T]]) -> T:
        try:
            # Over all: an update is several calls, each with a time of its own.
            async with asyncio.timeout(self._timeout.total_seconds()):
                return await call()
        except TimeoutError as error:
            raise Unavailable(
                "Temporal did not answer in time; try again.", code="temporal-unavailable"
            ) from error
        except WorkflowUpdateFailedError as error:
            if isinstance(error.cause, ApplicationError):
                raise refusal(error.cause) from error
            raise Unavailable("The session did not take the request; try again.") from error
        except WorkflowQueryFailedError as error:
            # Another kind of workflow has this id: for callers of this API there is no such session.
            raise UnknownSession(session_id) from error
        except WorkflowUpdateRPCTimeoutOrCancelledError as error:
            raise _no_worker() from error
        except RPCError as error:
            raise _problem(error, session_id) from error
        except RuntimeError as error:
            # What the SDK raises where it has never been connected.
            if _NEVER_CONNECTED not in str(error):
                raise
            raise _unreachable() from error


async def execute_update(
    handle: WorkflowHandle[Any, Any],
    update: Any,
    argument: Any,
    rpc_timeout: timedelta,
    *,
    update_id: str | None = None,
) -> Any:
    """Executes an update, and again when Temporal drops it untouched.

    A workflow that continues as new while a signal arrives fails its task and repeats it. Temporal
    then refuses the updates that came with that task instead of handing them to the next one.
    """
    update_id = update_id or uuid.uuid4().hex
    for attempt in range(1, MAX_UPDATE_ATTEMPTS):
        try:
            return await handle.execute_update(update, argument, id=update_id, rpc_timeout=rpc_timeout)
        except RPCError as error:
            if not _was_dropped(error):
                raise
        await asyncio.sleep(UPDATE_PAUSE_SECONDS * attempt)
    return await handle.execute_update(update, argument, id=update_id, rpc_timeout=rpc_timeout)


def _was_dropped(error: RPCError) -> bool:
    return error.status == RPCStatusCode.FAILED_PRECONDITION and _TASK_FAILED in str(error)


async def _hedged(call: Callable[[], Awaitable[T]]) -> T:
    """Asks once more when the answer is slow, and takes whichever comes first.

    A query that Temporal has refused because another process's query is waiting is tried again
    by the SDK only after a second; a fresh one gets through at once.
    """
    first = asyncio.ensure_future(call())
    tasks = {first}
    try:
        await asyncio.wait(tasks, timeout=HEDGE_AFTER_SECONDS)
        if not first.done():
            tasks.add(asyncio.ensure_future(call()))
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return await done.pop()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def memo_of(execution: WorkflowExecution) -> Mapping[str, Any]:
    """A listed workflow's memo; empty where it was encrypted with a key that is no longer known.

    One old workflow must not make the whole list fail.
    """
    try:
        return await execution.memo()
    except PayloadDecryptionError:
        return {}


async def _listed(execution: WorkflowExecution) -> ListedSession:
    memo = await memo_of(execution)
    return ListedSession(
        session_id=execution.id,
        agent=memo.get("agent"),
        title=memo.get("title"),
        open=execution.status == WorkflowExecutionStatus.RUNNING,
        started=execution.start_time,
    )


def _no_worker() -> Problem:
    return Unavailable(
        "No worker took up the session in time; is 'waystation worker' running?", code="no-worker"
    )


def _unreachable() -> Problem:
    return Unavailable("Temporal can't be reached; nothing was lost, try again.", code="temporal-unavailable")


def _problem(error: RPCError, session_id: str) -> Problem:
    if error.status in _GONE_STATES:
        if "already completed" in str(error):
            return refusal(
                ApplicationError("The session is closed; start another one.", type="SessionClosed")
            )
        return UnknownSession(session_id)
    if error.status in _BAD_STATES:
        return Invalid(str(error))
    if error.status in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.FAILED_PRECONDITION):
        return _no_worker()
    return _unreachable()
