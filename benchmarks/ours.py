"""Waystation as it runs in production: Temporal, worker, API and agent as processes of their own."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from temporalio.client import Client as TemporalClient

from benchmarks.readers import STAMP, Readings, Subscription
from benchmarks.scenario import OURS
from benchmarks.streaming import RATE_PER_SECOND, Load, subscribed, warm_up
from tests.world.stack import KEYS, Stack, running_stack
from tests.world.temporal import running_temporal
from waystation.client import Client, Session
from waystation.errors import ConflictError, TryLater
from waystation.temporal.connect import open_client
from waystation.temporal.names import turn_workflow_id

AGENT = "benchmarks.agents:agent"
ENDS = '"type":"turn.completed"'
CALLS_AT_ONCE = 20

Given = TypeVar("Given")
Answer = TypeVar("Answer")


class Waystation:
    """A running Waystation and a client of it."""

    name = OURS

    def __init__(self, stack: Stack, client: Client, temporal: TemporalClient) -> None:
        self.stack, self.client, self.temporal = stack, client, temporal

    def skips(self, load: Load) -> str | None:
        """Returns ``None``: every load is measured."""
        return None

    async def stream(self, load: Load) -> Readings:
        """Streams the load once; each stream is a session with one turn of the agent."""
        sessions = await self.sessions(load.streams)
        subscriptions = [self.subscription(s.id) for s in sessions for _ in range(load.subscribers)]

        async def begin() -> None:
            await each(sessions, lambda s: send(s, f"tokens={load.tokens} rate={RATE_PER_SECOND}"))

        readings = await subscribed(subscriptions, load, begin)
        readings.history_events = sum(await each(sessions, self.history_events))
        await each(sessions, close)
        return readings

    async def history_events(self, session: Session) -> int:
        """Returns the number of events in the histories of the session's workflow and of its first turn's."""
        names = (session.id, turn_workflow_id(session.id, "t1"))
        described = [await self.temporal.get_workflow_handle(name).describe() for name in names]
        return sum(workflow.history_length for workflow in described)

    async def sessions(self, count: int) -> list[Session]:
        """Starts sessions of the agent."""
        return await each(range(count), lambda _: self.start())

    async def start(self, message: str | None = None) -> Session:
        """Starts a session of the agent, with a first message if one is given."""
        session_id = f"bench-{uuid.uuid4().hex}"
        return await patiently(lambda: self.client.start("bench", session_id=session_id, message=message))

    def subscription(
        self, session_id: str, *, after: int = 0, ends: str = ENDS, tokens: str = STAMP
    ) -> Subscription:
        """Returns a subscription to the session's event stream."""
        return Subscription(
            port=self.stack.ports[0],
            request=f"GET /sessions/{session_id}/events?after={after} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {KEYS['service']}\r\n\r\n",
            ready="retry:",
            ends=ends,
            tokens=tokens,
        )


async def each(
    given: Iterable[Given], call: Callable[[Given], Awaitable[Answer]], at_once: int = CALLS_AT_ONCE
) -> list[Answer]:
    """Calls ``call`` for each value, at most ``at_once`` at the same time; returns the results in order."""
    room = asyncio.Semaphore(at_once)

    async def one(value: Given) -> Answer:
        async with room:
            return await call(value)

    return await asyncio.gather(*(one(value) for value in given))


async def send(session: Session, text: str, **data: Any) -> None:
    """Sends a message."""
    message_id = uuid.uuid4().hex
    await patiently(lambda: session.send(text, message_id=message_id, data=data))


async def close(session: Session) -> None:
    """Closes a session; one that an earlier attempt has already closed is no error."""
    with contextlib.suppress(ConflictError):
        await patiently(session.close)


async def patiently(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """Repeats the call for as long as the machine is too busy; the call must be safe to repeat."""
    while True:
        try:
            return await call()
        except TryLater as refusal:
            await asyncio.sleep(refusal.retry_after_seconds or 0.5)


@asynccontextmanager
async def running(
    *, agents: Sequence[str] = (AGENT,), temporal_options: Sequence[str] = (), **settings: Any
) -> AsyncIterator[Waystation]:
    """Starts everything; Temporal keeps its database in a file, as under ``waystation dev``."""
    async with AsyncExitStack() as resources:
        folder = Path(resources.enter_context(TemporaryDirectory()))
        temporal = await resources.enter_async_context(
            running_temporal(folder, durable=True, options=temporal_options)
        )
        stack = await resources.enter_async_context(running_stack(folder, temporal, *agents, **settings))
        client = await resources.enter_async_context(stack.client())
        system = Waystation(stack, client, await open_client(temporal.address))
        await warm_up(system)
        yield system
