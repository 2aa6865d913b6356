"""The API's way to sessions."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import (
    Client,
    WorkflowHandle,
)
from temporalio.common import QueryRejectCondition, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.workflow import UpdateMethodMultiParam

from api.errors import CarriedOut, Conflict, Problem, TooMany, Unavailable, UnknownSession
from api.gateways.calls import Calls, Wording, ask_unless_ended, memo_of
from api.gateways.index import SearchIndex, row_of
from api.gateways.lists import Lists
from api.gateways.search import SessionSearch
from waystation.models.attention import Waiting
from waystation.models.base import replaced
from waystation.models.events import Publish
from waystation.models.questions import Answered, AnswerQuestion, OpenApprovals, QuestionView
from waystation.models.requests import AgentView
from waystation.models.sessions import (
    LogPosition,
    LogReading,
    Outcome,
    ReplayPage,
    SendMessage,
    Sent,
    SessionStatus,
    Snapshot,
    Spawn,
    Spawned,
    StartSession,
    Withdraw,
    Withdrawn,
)
from waystation.proofs import Signer
from waystation.temporal.messages import SESSION_PUBLISH
from waystation.temporal.names import (
    LISTED,
    SESSION_TASK_QUEUE,
    SESSION_WORKFLOW,
    TURNS_TAKEN_BY,
    agent_task_queue,
)
from waystation.temporal.tokens import SignalName
from workflows.session import AgentSession, SessionInput

T = TypeVar("T")
Argument = TypeVar("Argument")

POLLS_WITHIN = timedelta(seconds=75)
"""A process asks for tasks again once a minute at least: a poll without an answer lasts that long."""
HEDGE_AFTER_SECONDS = 0.25
FULL_FOR_SECONDS = 1.0
"""How long a session whose queue is full isn't asked again. Each refusal costs it a task, as a message does;
clients that press on would take the time in which it works the queue off."""


def _closed() -> Problem:
    return Conflict("The session is closed; start another one.", code="session-closed")


def _unreadable(session_id: str) -> Problem:
    why = f"The session '{session_id}' was encrypted with a key that isn't set here."
    return Unavailable(why, CarriedOut.UNKNOWN)


WORDING: Final = Wording(
    unknown=UnknownSession,
    unreadable=_unreadable,
    ended=_closed,
    not_taken="The session takes no more requests at the moment.",
    no_worker="No worker answered for the session in time; is 'waystation worker' running?",
)


class Gateway:
    """Calls to session workflows."""

    def __init__(
        self,
        client: Client,
        timeout_seconds: float,
        *,
        signer: Signer | None = None,
        index: SearchIndex | None = None,
    ) -> None:
        """Without ``signer``, people's approvals count only where workers take unsigned ones.

        Without ``index``, sessions are started without search attributes.
        """
        self.client, self._signer, self._index = client, signer, index
        self._calls = Calls(client, timeout_seconds, SESSION_WORKFLOW, WORDING)
        self.lists, self.search = Lists(self._calls, index), SessionSearch(self._calls, index)
        self._queries: dict[str, tuple[asyncio.Lock, int]] = {}
        self._full: dict[str, str] = {}
        """Sessions whose queue was full just now, and what they said."""

    def handle(self, session_id: str) -> WorkflowHandle[AgentSession, None]:
        """Returns the handle of a session's workflow."""
        return self.client.get_workflow_handle_for(AgentSession.run, session_id)

    async def start(
        self, session_id: str, start: StartSession, *, task_queue: str = SESSION_TASK_QUEUE
    ) -> bool:
        """Starts the session; returns False if it already exists (then nothing changes)."""

        async def call() -> bool:
            opening, found_by = SessionInput(**start.model_dump()), None
            memo: dict[str, object] = {"agent": start.agent, "title": start.title}
            if self._index and await self._index.may_be_set():
                opening = replaced(opening, search_key=self._index.key)
                found_by = self._index.of_session(start)
                memo[LISTED] = row_of(start).model_dump(mode="json", exclude_none=True)
            try:
                await self.client.start_workflow(
                    AgentSession.run,
                    opening,
                    id=session_id,
                    task_queue=task_queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    memo=memo,
                    search_attributes=found_by,
                    rpc_timeout=self._calls.timeout,
                )
            except WorkflowAlreadyStartedError:
                return False
            return True

        return await self._calls.guarded(session_id, call)

    async def agent(self, name: str) -> AgentView:
        """Returns how many processes take an agent's turns."""
        request = DescribeTaskQueueRequest(
            namespace=self.client.namespace,
            task_queue=TaskQueue(name=agent_task_queue(name)),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        )

        async def call() -> AgentView:
            service = self.client.workflow_service
            described = await service.describe_task_queue(request, timeout=self._calls.timeout)
            seen = [poller.last_access_time.ToDatetime(UTC) for poller in described.pollers]
            oldest = datetime.now(UTC) - POLLS_WITHIN
            return AgentView(
                name=name, processes=sum(one >= oldest for one in seen), last_seen=max(seen, default=None)
            )

        return await self._calls.guarded("", call, looks=True)

    async def is_taken_by_a_workflow(self, session_id: str) -> bool:
        """Returns whether a workflow of somebody else's takes the session's turns, in an agent's place."""
        handle = self.handle(session_id)
        described = await self._calls.guarded(
            session_id, lambda: handle.describe(rpc_timeout=self._calls.timeout), looks=True
        )
        return (await memo_of(described)).get(TURNS_TAKEN_BY) is not None

    async def snapshot(self, session_id: str) -> Snapshot:
        """Returns what the session is doing now."""
        handle = self.handle(session_id)
        snapshot, ended = await self._query(
            session_id,
            lambda reject: handle.query(
                AgentSession.snapshot, reject_condition=reject, rpc_timeout=self._calls.timeout
            ),
        )
        if not ended:
            return snapshot
        return replaced(snapshot, status=SessionStatus.CLOSED, running=(), queued=(), questions=())

    async def replay(self, session_id: str, after: int, limit: int) -> ReplayPage:
        """Returns one page of the log."""
        handle = self.handle(session_id)
        page, ended = await self._query(
            session_id,
            lambda reject: handle.query(
                AgentSession.replay,
                args=[after, limit],
                reject_condition=reject,
                rpc_timeout=self._calls.timeout,
            ),
        )
        return replaced(page, closed=True) if ended else page

    async def read(self, session_id: str, position: LogPosition) -> LogReading:
        """Returns one page of the log, and the receipts of some writers as of the same moment."""
        handle = self.handle(session_id)
        reading, ended = await self._query(
            session_id,
            lambda reject: handle.query(
                AgentSession.read, position, reject_condition=reject, rpc_timeout=self._calls.timeout
            ),
        )
        return replaced(reading, page=replaced(reading.page, closed=True)) if ended else reading

    async def outcome(self, session_id: str, request_id: str) -> Outcome | None:
        """Returns what became of a stop or a steer."""
        handle = self.handle(session_id)
        outcome, _ = await self._query(
            session_id,
            lambda reject: handle.query(
                AgentSession.outcome, request_id, reject_condition=reject, rpc_timeout=self._calls.timeout
            ),
        )
        return outcome

    async def question(self, session_id: str, question_id: str) -> QuestionView | None:
        """Returns a question of the session; ``None`` for an unknown one."""
        handle = self.handle(session_id)
        view, _ = await self._query(
            session_id,
            lambda reject: handle.query(
                AgentSession.question, question_id, reject_condition=reject, rpc_timeout=self._calls.timeout
            ),
        )
        return view

    async def approvals(self, session_id: str, *, questions: bool = False) -> OpenApprovals:
        """Returns the approvals of tools for which the session waits, with ``questions`` all that it asks.

        Of one that has ended, nothing.
        """
        handle = self.handle(session_id)
        wanted = AgentSession.open_questions if questions else AgentSession.approvals
        waiting, ended = await self._query(
            session_id,
            lambda reject: handle.query(wanted, reject_condition=reject, rpc_timeout=self._calls.timeout),
        )
        return OpenApprovals(questions=(), count=0) if ended else waiting

    async def waiting(self, session_id: str) -> Waiting:
        """Returns what in the session may wait for a person; in one that has ended, nothing does."""
        handle = self.handle(session_id)
        waiting, ended = await self._query(
            session_id,
            lambda reject: handle.query(
                AgentSession.waiting, reject_condition=reject, rpc_timeout=self._calls.timeout
            ),
        )
        return Waiting(session_id=session_id, agent=waiting.agent) if ended else waiting

    async def answer(self, session_id: str, answer: AnswerQuestion, *, vouched: bool) -> Answered:
        """Answers a question; ``vouched``: signed, as decisions on approvals are."""
        if vouched and self._signer is not None:
            answer = replaced(answer, proof=self._signer.sign("answer", session_id, answer))
        return await self.update(session_id, AgentSession.answer_question, answer)

    async def publish(self, session_id: str, publish: Publish) -> None:
        """Hands a batch of writes to the session."""
        await self.signal(session_id, SESSION_PUBLISH, publish)

    async def send(self, session_id: str, message: SendMessage) -> Sent:
        """Sends a message; its id makes that idempotent."""
        if said := self._full.get(session_id):
            raise TooMany(said, code="queue-full")
        try:
            sent = await self.update(session_id, AgentSession.send, message, update_id=message.message_id)
        except TooMany as problem:
            self._full[session_id] = problem.detail
            asyncio.get_running_loop().call_later(FULL_FOR_SECONDS, self._full.pop, session_id, None)
            raise
        # Temporal itself answers a repeated id with the first answer, so this is where a mismatch shows.
        if sent.digest is not None and not message.matches(sent.digest):
            raise Conflict(
                f"The message id {message.message_id} stands for another message already; choose another.",
                code="id-taken",
            )
        return sent

    async def withdraw(self, session_id: str, withdraw: Withdraw) -> Withdrawn:
        """Takes back a message that waits for its turn; repeating it is harmless."""
        return await self.update(session_id, AgentSession.withdraw, withdraw)

    async def spawn(self, session_id: str, spawn: Spawn) -> Spawned:
        """Starts a sub-agent; its key makes that idempotent."""
        return await self.update(session_id, AgentSession.spawn, spawn)

    async def signal(self, session_id: str, signal: SignalName[Argument], argument: Argument) -> None:
        """Signals the session."""
        await self._calls.signal(session_id, signal, argument)

    async def update(
        self,
        session_id: str,
        update: UpdateMethodMultiParam[[AgentSession, Argument], T],
        argument: Argument,
        *,
        update_id: str | None = None,
    ) -> T:
        """Executes an update of the session."""
        return await self._calls.update(self.handle(session_id), update, argument, update_id=update_id)

    async def _query(
        self, session_id: str, query: Callable[[QueryRejectCondition], Awaitable[T]]
    ) -> tuple[T, bool]:
        """Returns the answer, and whether Temporal has ended the session (somebody terminated it, say).

        What such a session says of itself is from before its end, which it was never told of.
        """

        async def call() -> tuple[T, bool]:
            # The wait for a turn counts towards the request's time.
            async with self._one_at_a_time(session_id):
                return await ask_unless_ended(lambda reject: _hedged(lambda: query(reject)))

        return await self._calls.guarded(session_id, call, looks=True)

    @asynccontextmanager
    async def _one_at_a_time(self, session_id: str) -> AsyncIterator[None]:
        """Lets queries through singly: while a workflow is busy, Temporal lets few wait (one, by default)."""
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


async def _hedged(call: Callable[[], Awaitable[T]]) -> T:
    """Asks once more if the answer is slow, and returns whichever comes first.

    If Temporal refuses a query because another process's query is waiting, the SDK tries it again only after
    a second; a fresh one gets through immediately.
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
