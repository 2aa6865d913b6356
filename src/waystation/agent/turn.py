"""What agent code is written against. It runs in its own process, with its own Temporal worker.

    agent = Agent("assistant")

    @agent.turn
    async def answer(turn: Turn) -> None:
        async for token in my_model(turn.conversation):
            await turn.write(token)

    # waystation agent my_module:agent

A turn survives everything but its own process: should that die, another process starts the
turn anew, and what the first had left unfinished is superseded.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import JsonValue
from temporalio import activity
from temporalio.client import Client as TemporalClient
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from waystation.agent.connection import Control, IngestConnection, Writer, actor_of
from waystation.agent.money import MoneyTurn
from waystation.backoff import Backoff
from waystation.client import Client, Session
from waystation.client.transcript import Message
from waystation.errors import WaystationError, seconds_before_retry
from waystation.models.events import DATA_PREFIX, MAX_MESSAGE_CHARACTERS, Actor, EventType
from waystation.models.ingest import FencedFrame, FinishedFrame, OpenFrame, SteerFrame, StopFrame
from waystation.models.sessions import Spawn, TurnInput, TurnResult
from waystation.redaction import redact
from waystation.settings import Settings
from waystation.temporal.connect import connect
from waystation.temporal.names import (
    AGENT_FAILED,
    RETRY_TURN,
    RUN_TURN_ACTIVITY,
    WORKER_SHUTDOWN,
    agent_task_queue,
)

logger = logging.getLogger(__name__)

GRACEFUL_SHUTDOWN = timedelta(seconds=10)
HEARTBEATS_PER_TIMEOUT = 4
STOP_FLUSH_SECONDS = 1.0
"""How long a stopped or failed turn may take to make durable what is on screens already."""
MAX_ERROR_CHARACTERS = 2_000
MIN_RETRY_PAUSE_SECONDS = 0.1
MAX_RETRY_PAUSE_SECONDS = 5.0

TurnFunction = Callable[["Turn"], Awaitable[JsonValue | None]]


class RetryTurn(Exception):
    """Raise it in a turn to have the turn tried again (up to the session's limit)."""


class SubAgentFailed(WaystationError):
    """A sub-agent didn't complete: it failed or was stopped."""


@dataclass(frozen=True)
class Steering:
    """A message that came while the turn ran, and that the turn has taken up."""

    id: str
    text: str
    actor: Actor


class Agent:
    """An agent by its name, and the function that runs its turns.

    >>> agent = Agent("echo")
    >>> @agent.turn
    ... async def answer(turn: Turn) -> None:
    ...     await turn.write(f"You said: {turn.text}")
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._function: TurnFunction | None = None

    def turn(self, function: TurnFunction) -> TurnFunction:
        """Decorates the coroutine function that runs a turn; what it returns is the turn's result."""
        self._function = function
        return function

    async def __call__(self, turn: "Turn") -> JsonValue | None:
        if self._function is None:
            raise RuntimeError(
                f"The agent '{self.name}' has no turn function; decorate one with @agent.turn."
            )
        return await self._function(turn)

    def run(self) -> None:
        """Runs this agent until the process is told to stop.

        >>> agent.run()  # doctest: +SKIP
        """
        asyncio.run(serve(self))


class SubAgent:
    """A sub-agent at work in the same session."""

    def __init__(self, turn_id: str, finished: "asyncio.Future[FinishedFrame]") -> None:
        self.turn_id = turn_id
        self._finished = finished

    async def result(self) -> JsonValue:
        """Waits for its end and answers its result; raises ``SubAgentFailed``.

        >>> answer = await sub_agent.result()  # doctest: +SKIP
        """
        frame = await asyncio.shield(self._finished)
        if frame.outcome != "completed":
            raise SubAgentFailed(
                f"{self.turn_id} ended as {frame.outcome}: {frame.detail or 'no reason given'}"
            )
        return frame.result


class MessageWriter:
    """A message being written."""

    def __init__(self, writer: Writer, message_id: str) -> None:
        self.id = message_id
        self.length = 0
        self._writer = writer

    async def write(self, text: str) -> None:
        """Appends text: on every screen at once, durable within a moment."""
        if not text:
            return
        # Half a surrogate pair can't be encoded; it never was a character.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if self.length + len(text) > MAX_MESSAGE_CHARACTERS:
            raise ValueError(f"A message has at most {MAX_MESSAGE_CHARACTERS} characters; start another one.")
        await self._writer.write(EventType.MESSAGE_DELTA, {"offset": self.length, "text": text}, self.id)
        self.length += len(text)


@dataclass
class ToolCall:
    """A tool at work; set ``result`` before the block ends."""

    id: str
    name: str
    result: JsonValue = None


class Turn(MoneyTurn):
    """One turn of an agent: what was said so far, and everything the agent can do."""

    def __init__(
        self, given: TurnInput, session: Session, writer: Writer, conversation: Sequence[Message]
    ) -> None:
        self.id = given.turn_id
        self.session_id = given.session_id
        self.attempt = given.attempt
        self.agent = given.agent
        self.text = given.text
        self.message_id = given.message_id
        self.data = given.data
        self.parent_turn_id = given.parent_turn_id
        self.conversation = list(conversation)
        self.written = [m for m in conversation if m.turn_id == self.id and m.actor.id == self.agent]
        """Messages that an earlier attempt of this turn has completed: they stand, don't write them again."""
        self.session = session
        self._writer = writer
        self._open: MessageWriter | None = None
        self._count = 0
        self._steers: list[SteerFrame] = []
        self._steers_seen: set[str] = set()
        self._steered = asyncio.Event()
        self._finished: dict[str, asyncio.Future[FinishedFrame]] = {}

    # Writing

    async def write(self, text: str) -> None:
        """Appends text to the answer, starting a message if none is open.

        >>> await turn.write("Hello")  # doctest: +SKIP
        """
        if self._open is None:
            self._open = await self._start_message({})
        await self._open.write(text)

    async def end_message(self) -> None:
        """Completes the message that ``write`` has begun; the next ``write`` begins another.

        >>> await turn.end_message()  # doctest: +SKIP
        """
        if self._open is not None:
            message, self._open = self._open, None
            await self._writer.write(EventType.MESSAGE_COMPLETED, {}, message.id)

    @asynccontextmanager
    async def message(self, *, kind: str | None = None, **data: JsonValue) -> AsyncIterator[MessageWriter]:
        """A message of its own, completed when the block ends; ``kind`` may be ``reasoning``.

        >>> async with turn.message(kind="reasoning") as thoughts:  # doctest: +SKIP
        ...     await thoughts.write("Let me see.")
        """
        await self.end_message()
        message = await self._start_message({**({"kind": kind} if kind else {}), **data})
        yield message
        await self._writer.write(EventType.MESSAGE_COMPLETED, {}, message.id)

    async def emit(self, name: str, data: dict[str, JsonValue]) -> None:
        """Writes an event of your own, ``data.<name>``.

        >>> await turn.emit("progress", {"percent": 40})  # doctest: +SKIP
        """
        await self._writer.write(DATA_PREFIX + name, data)

    async def flush(self) -> None:
        """Waits until everything written so far is durable. Raises ``ConflictError`` when the turn is over.

        >>> await turn.flush()  # doctest: +SKIP
        """
        await self._writer.flush()

    async def _start_message(self, data: dict[str, Any]) -> MessageWriter:
        self._count += 1
        message = MessageWriter(self._writer, f"{self.id}-{self.attempt}-{self._count}")
        await self._writer.write(EventType.MESSAGE_STARTED, data, message.id)
        return message

    # Tools and sub-agents

    @asynccontextmanager
    async def tool(self, name: str, arguments: JsonValue = None) -> AsyncIterator[ToolCall]:
        """Shows a tool call and what came of it.

        >>> async with turn.tool("search", {"q": "waystation"}) as call:  # doctest: +SKIP
        ...     call.result = await search("waystation")
        """
        await self.end_message()
        self._count += 1
        call = ToolCall(id=f"{self.id}-{self.attempt}-{self._count}", name=name)
        shown = {"call_id": call.id, "name": name}
        await self._writer.write(EventType.TOOL_CALLED, {**shown, "arguments": arguments})
        try:
            yield call
        except Exception as error:
            await self._writer.write(EventType.TOOL_RETURNED, {**shown, "error": _brief(error)})
            raise
        await self._writer.write(EventType.TOOL_RETURNED, {**shown, "result": call.result})

    async def spawn(self, agent: str, text: str, *, key: str | None = None) -> SubAgent:
        """Starts a sub-agent that writes to this session itself, behind what the turn has written so far.

        ``key`` (by default agent and text) makes it idempotent: a turn that is tried again gets
        the sub-agent of the first try, with its result.

        >>> researcher = await turn.spawn("researcher", "Find the price.")  # doctest: +SKIP
        """
        spawn = Spawn(
            parent_turn_id=self.id,
            attempt=self.attempt,
            key=key or _key(agent, text),
            agent=agent,
            text=text,
        )
        turn_id = await self._writer.spawn(spawn)
        return SubAgent(turn_id, self._finish_of(turn_id))

    def _finish_of(self, turn_id: str) -> "asyncio.Future[FinishedFrame]":
        if turn_id not in self._finished:
            self._finished[turn_id] = asyncio.get_running_loop().create_future()
        return self._finished[turn_id]

    # Steering

    async def take_steers(self) -> list[Steering]:
        """Takes up what people have said since the turn began; they are told it was consumed.

        >>> for steer in await turn.take_steers():  # doctest: +SKIP
        ...     plan = revise(plan, steer.text)
        """
        taken, self._steers = self._steers, []
        self._steered.clear()
        for steer in taken:
            await self._writer.write(EventType.STEER_CONSUMED, {"steer_id": steer.steer_id})
        return [Steering(id=steer.steer_id, text=steer.text, actor=steer.actor) for steer in taken]

    async def wait_for_steer(self) -> None:
        """Waits until there is something for ``take_steers``.

        >>> await turn.wait_for_steer()  # doctest: +SKIP
        """
        await self._steered.wait()

    def _control(self, frame: Control) -> None:
        match frame:
            # After a reconnect the API tells of all the turn's steers again.
            case SteerFrame() if frame.steer_id not in self._steers_seen:
                self._steers_seen.add(frame.steer_id)
                self._steers.append(frame)
                self._steered.set()
            case FinishedFrame():
                finished = self._finish_of(frame.turn_id)
                if not finished.done():
                    finished.set_result(frame)
            case _:
                pass


def _key(agent: str, text: str) -> str:
    import hashlib

    return f"{agent}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"[-128:]


def _brief(error: BaseException) -> str:
    # It becomes part of the session's log.
    return redact(f"{type(error).__name__}: {error}")[:MAX_ERROR_CHARACTERS]


class Runner:
    """Runs turns of some agents in this process: the ``run_turn`` activity."""

    def __init__(self, agents: Sequence[Agent], client: Client, ingest: IngestConnection) -> None:
        self._agents = {agent.name: agent for agent in agents}
        self._client, self._ingest = client, ingest

    @activity.defn(name=RUN_TURN_ACTIVITY)
    async def run_turn(self, given: TurnInput) -> TurnResult:
        """Runs one attempt of a turn to its end, a stop, or the process's shutdown."""
        beating = asyncio.create_task(_beat())
        try:
            return await _Attempt(self._agents[given.agent], given, self._client, self._ingest).run()
        finally:
            beating.cancel()


class _Attempt:
    """One attempt: the agent's function beside everything that may end it."""

    def __init__(self, agent: Agent, given: TurnInput, client: Client, ingest: IngestConnection) -> None:
        self._agent, self._given = agent, given
        self._session = client.attach(given.session_id)
        self._task: asyncio.Task[JsonValue | None] | None = None
        self._turn: Turn | None = None
        self._stopped = False
        self._writer = ingest.writer(
            OpenFrame(
                session_id=given.session_id,
                writer=f"{given.turn_id}.{given.attempt}",
                actor=actor_of(given.agent),
                turn_id=given.turn_id,
                attempt=given.attempt,
                after=given.after,
            ),
            self._control,
        )
        self._early: list[Control] = []

    async def run(self) -> TurnResult:
        self._task = asyncio.create_task(self._run_agent())
        if self._stopped:
            self._task.cancel()
        try:
            result = await self._task
        except asyncio.CancelledError as error:
            if not self._stopped and not activity.is_cancelled() and not activity.is_worker_shutdown():
                raise ApplicationError(
                    "The agent's code was cancelled from within.", type=AGENT_FAILED, non_retryable=True
                ) from error
            return await self._wind_down()
        except RetryTurn as error:
            raise ApplicationError(_brief(error), type=RETRY_TURN) from error
        except Exception as error:
            if self._stopped:
                return await self._wind_down()
            logger.exception("Turn %s of %s failed", self._given.turn_id, self._given.session_id)
            await self._flush()
            raise ApplicationError(_brief(error), type=AGENT_FAILED, non_retryable=True) from error
        else:
            return TurnResult(outcome="stopped" if self._stopped else "completed", result=result)
        finally:
            self._writer.close()

    async def _run_agent(self) -> JsonValue | None:
        turn = Turn(self._given, self._session, self._writer, await self._conversation())
        self._turn = turn
        for frame in self._early:
            turn._control(frame)
        try:
            result = await self._agent(turn)
        finally:
            await turn.close_payments()
        await turn.end_message()
        await self._writer.flush()
        return result

    async def _conversation(self) -> list[Message]:
        """What was said so far. A turn that begins while the API or Temporal is away waits for it."""
        backoff = Backoff(MIN_RETRY_PAUSE_SECONDS, MAX_RETRY_PAUSE_SECONDS)
        while True:
            try:
                transcript = await self._session.load()
                break
            except WaystationError as error:
                await backoff.wait(at_least_seconds=seconds_before_retry(error))
        return [
            message for message in transcript if message.status == "completed" and message.kind != "reasoning"
        ]

    async def _wind_down(self) -> TurnResult:
        """Stopped, by a person or by Temporal: makes durable what is on screens, and says so."""
        if self._task and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=STOP_FLUSH_SECONDS)
        details = activity.cancellation_details()
        if details and details.worker_shutdown and not self._stopped:
            raise ApplicationError("The agent's process is shutting down.", type=WORKER_SHUTDOWN)
        await self._flush()
        return TurnResult(outcome="stopped")

    async def _flush(self) -> None:
        """Makes durable what is on screens, as far as that goes at once."""
        with contextlib.suppress(TimeoutError, WaystationError):
            await asyncio.wait_for(self._writer.flush(), STOP_FLUSH_SECONDS)

    def _control(self, frame: Control) -> None:
        match frame:
            case StopFrame() | FencedFrame():
                self._stopped = True
                if self._task:
                    self._task.cancel()
            case _ if self._turn is None:
                self._early.append(frame)
            case _:
                self._turn._control(frame)


async def _beat() -> None:
    timeout = activity.info().heartbeat_timeout or timedelta(seconds=10)
    while True:
        activity.heartbeat()
        await asyncio.sleep(timeout.total_seconds() / HEARTBEATS_PER_TIMEOUT)


def workers(
    temporal: TemporalClient, agents: Sequence[Agent], runner: Runner, settings: Settings
) -> list[Worker]:
    """A Temporal worker for each agent, on the agent's own task queue."""
    return [
        Worker(
            temporal,
            task_queue=agent_task_queue(agent.name),
            activities=[runner.run_turn],
            max_concurrent_activities=settings.agent_concurrency,
            graceful_shutdown_timeout=GRACEFUL_SHUTDOWN,
        )
        for agent in agents
    ]


async def serve(*agents: Agent, settings: Settings | None = None) -> None:
    """Runs agents in this process until SIGINT or SIGTERM.

    >>> await serve(assistant, researcher)  # doctest: +SKIP
    """
    settings = settings or Settings()
    if settings.api_key is None:
        raise RuntimeError("WAYSTATION_API_KEY is not set: agents need a key with the role 'agent'.")
    key = settings.api_key.get_secret_value()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as resources:
        temporal = await connect(settings, resources)
        client = await resources.enter_async_context(Client(settings.url, key))
        ingest = await resources.enter_async_context(IngestConnection(settings.url, key))
        runner = Runner(agents, client, ingest)
        for worker in workers(temporal, agents, runner, settings):
            await resources.enter_async_context(worker)
        logger.info("Running agents: %s", ", ".join(agent.name for agent in agents))
        await stop.wait()
