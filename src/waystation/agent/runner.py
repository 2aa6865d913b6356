"""Runs agents in a process of its own: their Temporal workers, and each attempt of a turn."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, runtime_checkable

from pydantic import JsonValue
from temporalio import activity
from temporalio.client import Client as TemporalClient
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from waystation.agent.brief import brief
from waystation.agent.connection import IngestConnection
from waystation.agent.containment import exited, new_task, within_a_turn
from waystation.agent.history import all_said, history_of
from waystation.agent.money import Purse, Spender
from waystation.agent.retelling import TurnDiverged
from waystation.agent.step_records import WorkflowStepRecords
from waystation.agent.steps import Steps
from waystation.agent.suggestions import NoSuggestions, SuggestionRequest, SuggestsReplies
from waystation.agent.told import told_of
from waystation.agent.turn import RetryTurn, Turn
from waystation.agent.waits import Waits
from waystation.agent.writer import Control, actor_of, refusal_of
from waystation.backoff import Backoff
from waystation.client import Client
from waystation.client.transcript import Transcript
from waystation.errors import NotAllowed, StartError, WaystationError, seconds_before_retry
from waystation.models.ingest import FencedFrame, OpenFrame, ProblemFrame, StopFrame
from waystation.models.sessions import Suggestion, SuggestionInput, TurnInput, TurnResult
from waystation.settings import Settings, read_settings
from waystation.temporal.connect import connect
from waystation.temporal.messages import RUN_TURN, SUGGEST_REPLY
from waystation.temporal.names import (
    AGENT_FAILED,
    NO_SUGGESTIONS,
    RETRY_TURN,
    TURN_DIVERGED,
    WORKER_SHUTDOWN,
    agent_task_queue,
)

logger = logging.getLogger(__name__)

GRACEFUL_SHUTDOWN = timedelta(seconds=8)
"""What turns may take to finish. Then they flush and say so, within the 10 s of docs/operations.md."""
HEARTBEATS_PER_TIMEOUT = 4
STOP_FLUSH_SECONDS = 1.0
"""How long a stopped or failed turn may take to make durable what viewers already see."""
PARK_GRACE_SECONDS = 5.0
"""How long the code of a turn that is parked may take to end."""
GIVE_BACK_AFTER_SECONDS = 10.0
"""How long the API may be out of reach before turns are given back; an API that restarts takes less."""
MIN_RETRY_PAUSE_SECONDS = 0.1
MAX_RETRY_PAUSE_SECONDS = 5.0


class RunsTurns(Protocol):
    """What a runner needs of an ``Agent``."""

    @property
    def name(self) -> str:
        """The name under which sessions ask for it."""
        ...

    async def __call__(self, turn: Turn) -> JsonValue | None:
        """Runs one turn, and returns its result."""
        ...


@runtime_checkable
class OffersStarters(Protocol):
    """What a runner needs of an agent that offers people something to begin with."""

    @property
    def starters(self) -> tuple[str, ...]:
        """The texts, as ``Agent`` checks them."""
        ...


class Runner:
    """Runs turns of some agents in this process: the activities ``run_turn`` and ``suggest_reply``."""

    def __init__(
        self, agents: Sequence[RunsTurns], client: Client, ingest: IngestConnection, settings: Settings
    ) -> None:
        self._agents = {agent.name: agent for agent in agents}
        self._client, self._ingest, self._settings = client, ingest, settings

    @activity.defn(name=RUN_TURN.name)
    async def run_turn(self, given: TurnInput) -> TurnResult:
        """Runs one attempt of a turn to its end, a stop, or the process's shutdown."""
        beating = asyncio.create_task(_beat())
        try:
            agent = self._agents[given.agent]
            return await _Attempt(agent, given, self._client, self._ingest, self._settings).run()
        finally:
            beating.cancel()

    @activity.defn(name=SUGGEST_REPLY.name)
    async def suggest_reply(self, given: SuggestionInput) -> Suggestion:
        """Has an agent draft a reply for the operator who has taken over the session."""
        beating = asyncio.create_task(_beat())
        try:
            within_a_turn.set(True)
            return Suggestion(text=await self._suggested(given))
        except NoSuggestions as error:
            raise ApplicationError(str(error), type=NO_SUGGESTIONS, non_retryable=True) from None
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            logger.exception("A suggestion of %s for %s failed", given.agent, given.session_id)
            failed = error if isinstance(error, Exception) else exited(error)
            raise ApplicationError(brief(failed), type=AGENT_FAILED, non_retryable=True) from None
        finally:
            beating.cancel()

    async def _suggested(self, given: SuggestionInput) -> str:
        agent = self._agents[given.agent]
        if not isinstance(agent, SuggestsReplies):
            raise NoSuggestions(f"The agent '{given.agent}' suggests no replies.")
        said = tuple(all_said(await self._client.attach(given.session_id).load()))
        return await agent.suggest(SuggestionRequest(given.session_id, given.operator, given.text, said))


class _Attempt:
    """One attempt: the agent's function, and everything that may end it."""

    def __init__(
        self, agent: RunsTurns, given: TurnInput, client: Client, ingest: IngestConnection, settings: Settings
    ) -> None:
        self._agent, self._given, self._settings = agent, given, settings
        self._session = client.attach(given.session_id)
        self._task: asyncio.Task[JsonValue | None] | None = None
        self._turn: Turn | None = None
        self._stopped = self._fenced = False
        self._parked: TurnResult | None = None
        """Set once the turn does nothing but wait for people, and its attempt ends for now."""
        self._parking: asyncio.Task[None] | None = None
        self._given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waits = Waits(given.park_after_seconds, self._begin_to_park)
        self._problem: ProblemFrame | None = None
        """Why the API lets this attempt write nothing."""
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
        if self._stopped or self._problem:
            self._task.cancel()
        try:
            ends: set[asyncio.Future[Any]] = {self._task, self._given_up}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._given_up.done() and self._parked and not self._stopped:
                return self._parked  # its code has caught the cancellation, and goes on for nobody
            result = await self._task
            if self._parked and not self._stopped:
                return self._parked
            # Within this block: a result that is no JSON, or nested too deeply, fails the turn for good.
            return TurnResult(outcome="stopped" if self._stopped else "completed", result=result)
        except asyncio.CancelledError as error:
            if self._parked and not self._stopped:
                return self._parked
            if self._problem and not self._stopped:
                said = brief(refusal_of(self._problem))
                raise ApplicationError(said, type=AGENT_FAILED, non_retryable=True) from error
            if not self._stopped and not activity.is_cancelled() and not activity.is_worker_shutdown():
                raise ApplicationError(
                    "The agent's code was cancelled from within.", type=AGENT_FAILED, non_retryable=True
                ) from None
            return await self._wind_down()
        except Exception as error:
            if self._parked and not self._stopped:
                return self._parked
            if self._stopped:
                return await self._wind_down()
            if retry := _wish_to_retry(error):
                raise ApplicationError(brief(retry), type=RETRY_TURN) from None
            logger.exception("Turn %s of %s failed", self._given.turn_id, self._given.session_id)
            await self._flush()
            if isinstance(error, TurnDiverged):
                raise ApplicationError(brief(error), type=TURN_DIVERGED, non_retryable=True) from None
            # Without its cause: what an error says has no bound, may be secret, and may not be encodable.
            raise ApplicationError(brief(error), type=AGENT_FAILED, non_retryable=True) from None
        finally:
            self._waits.close()
            self._writer.close()

    async def _run_agent(self) -> JsonValue | None:
        given, transcript = self._given, await self._load()
        steps = await self._steps()

        async def settle() -> None:
            await turn.end_message()
            await turn.flush()

        purse = Purse(
            Spender(session_id=given.session_id, turn_id=given.turn_id, agent=given.agent),
            self._session,
            settle,
            self._settings,
            self._comes_back,
        )
        self._turn = turn = Turn(
            given,
            self._session,
            self._writer,
            history_of(transcript, given),
            purse,
            self._waits,
            steps,
            told_of(transcript, given),
        )
        for frame in self._early:
            turn.hear(frame)
        within_a_turn.set(True)
        try:
            result = await self._agent(turn)
        except Exception as error:
            if turn.diverged:
                raise turn.diverged from error
            raise
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            raise exited(error) from error
        finally:
            await steps.close()
            await purse.close()
        await turn.end_message()
        turn.returns()
        await self._writer.flush()
        return result

    async def _steps(self) -> Steps:
        """Returns the turn's steps, with what earlier attempts have recorded."""
        given, info = self._given, activity.info()
        # Of this run of the turn's workflow: of a session that was reset, an earlier one's steps aren't its.
        turn = activity.client().get_workflow_handle(info.workflow_id or "", run_id=info.workflow_run_id)
        has_storage = bool(self._settings.storage_dir or self._settings.storage_s3_bucket)
        records = WorkflowStepRecords(turn, given.attempt, has_storage=has_storage)
        remembered = await records.read() if given.attempt > 1 else {}
        return Steps(given.session_id, given.turn_id, given.attempt, self._waits, records, remembered)

    def _comes_back(self, error: BaseException) -> bool:
        details, info = activity.cancellation_details(), activity.info()
        return another_attempt_follows(
            error,
            fenced=self._fenced,
            stopped=self._stopped,
            parked=self._parked is not None,
            gives_back=details is not None and (details.worker_shutdown or was_missed(details, info)),
        )

    def _begin_to_park(self, waiting_for: tuple[str, ...]) -> None:
        self._parking = asyncio.create_task(self._park(waiting_for))

    async def _park(self, waiting_for: tuple[str, ...]) -> None:
        """Ends the attempt, unless there is an answer in the meantime: all it wrote is durable by then."""
        try:
            if not await self._writer.settle():
                return  # its code is told of what was refused when it goes on
        except WaystationError:
            return
        if self._waits.waiting_for != waiting_for or self._stopped or self._task is None:
            return
        self._waits.close()
        self._parked = TurnResult(outcome="waiting", waiting_for=waiting_for)
        # First: what its code still writes as it is cut off was never meant for anybody.
        self._writer.close()
        self._task.cancel()
        _, running = await asyncio.wait([self._task], timeout=PARK_GRACE_SECONDS)
        if running:
            logger.error("%s was parked, and goes on: let CancelledError through", self._given.turn_id)
            self._given_up.set_result(None)

    async def _load(self) -> Transcript:
        """Returns the session so far; waits while the API or Temporal can't be reached."""
        backoff = Backoff(MIN_RETRY_PAUSE_SECONDS, MAX_RETRY_PAUSE_SECONDS)
        while True:
            try:
                return await self._session.load()
            except NotAllowed as error:
                # A credential that is being changed, perhaps: the turn has other attempts.
                raise RetryTurn(str(error)) from error
            except WaystationError as error:
                await backoff.wait(at_least_seconds=seconds_before_retry(error))

    async def _wind_down(self) -> TurnResult:
        """Ends a turn that a person or Temporal has stopped, after making durable what viewers see."""
        if self._task and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=STOP_FLUSH_SECONDS)
        details = activity.cancellation_details()
        if details and details.worker_shutdown and not self._stopped:
            raise ApplicationError("The agent's process is shutting down.", type=WORKER_SHUTDOWN)
        await self._flush()
        return TurnResult(outcome="stopped")

    async def _flush(self) -> None:
        """Tries briefly to make durable what viewers already see."""
        with contextlib.suppress(TimeoutError, WaystationError):
            await asyncio.wait_for(self._writer.flush(), STOP_FLUSH_SECONDS)

    def _control(self, frame: Control) -> None:
        match frame:
            case StopFrame() | FencedFrame():
                self._stopped = True
                self._fenced = isinstance(frame, FencedFrame)
                if self._task:
                    self._task.cancel()
            case ProblemFrame():
                self._problem = frame
                if self._task:
                    self._task.cancel()
            case _ if self._turn is None:
                self._early.append(frame)
            case _:
                self._turn.hear(frame)


def another_attempt_follows(
    error: BaseException, *, fenced: bool, stopped: bool, parked: bool, gives_back: bool
) -> bool:
    """Returns whether another attempt goes on with what an error of this one has interrupted.

    >>> of_no_attempt = {"fenced": False, "stopped": False, "parked": False, "gives_back": False}
    >>> another_attempt_follows(RetryTurn("busy"), **of_no_attempt)
    True
    >>> another_attempt_follows(ValueError("a bug"), **of_no_attempt)
    False
    """
    if fenced:
        return True  # it has begun already
    if stopped:
        return False
    if isinstance(error, Exception) and _wish_to_retry(error) is not None:
        return True
    return parked or (gives_back and isinstance(error, asyncio.CancelledError))


def was_missed(details: activity.ActivityCancellationDetails, info: activity.Info) -> bool:
    """Returns whether Temporal gave an attempt up while it ran: it heard no heartbeat, and tries again.

    It says the same of a turn whose time is over, which isn't tried again.
    """
    limit, lasted = info.start_to_close_timeout, datetime.now(UTC) - info.started_time
    return (details.not_found or details.timed_out) and (limit is None or lasted < limit)


def _wish_to_retry(error: Exception) -> RetryTurn | None:
    """Returns the ``RetryTurn`` that a turn ended with, also within a ``TaskGroup``'s error, or ``None``."""
    if isinstance(error, ExceptionGroup):
        wishes, _ = error.split(RetryTurn)
        return _wish_to_retry(wishes.exceptions[0]) if wishes else None
    return error if isinstance(error, RetryTurn) else None


async def _beat() -> None:
    timeout = activity.info().heartbeat_timeout or timedelta(seconds=10)
    while True:
        activity.heartbeat()
        await asyncio.sleep(timeout.total_seconds() / HEARTBEATS_PER_TIMEOUT)


def workers(
    temporal: TemporalClient, agents: Sequence[RunsTurns], runner: Runner, settings: Settings
) -> list[Worker]:
    """Returns a Temporal worker for each agent, on the agent's own task queue."""
    return [
        Worker(
            temporal,
            task_queue=agent_task_queue(agent.name),
            activities=[runner.run_turn, runner.suggest_reply],
            max_concurrent_activities=settings.agent_concurrency,
            graceful_shutdown_timeout=GRACEFUL_SHUTDOWN,
        )
        for agent in agents
    ]


async def serve(
    *agents: RunsTurns, settings: Settings | None = None, told_to_end: Callable[[], None] | None = None
) -> None:
    """Runs agents in this process until SIGINT or SIGTERM; takes turns while it can write to the API.

    ``told_to_end`` is called when one of them arrives: what is then awaited may need Temporal to answer.

    >>> await serve(assistant, researcher)  # doctest: +SKIP
    """
    settings = settings or read_settings()
    if settings.api_key is None:
        raise StartError(
            "WAYSTATION_API_KEY is not set: agents need a key with the role 'agent'. "
            "Beside a 'waystation dev', run 'waystation agent' in its folder or with --state; elsewhere set "
            "WAYSTATION_URL, TEMPORAL_ADDRESS and the other processes' WAYSTATION_ENCRYPTION_KEYS too."
        )
    key = settings.api_key.get_secret_value()
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def end() -> None:
        if told_to_end is not None and not stop.is_set():
            told_to_end()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    loop.set_task_factory(new_task)
    async with AsyncExitStack() as resources:
        temporal = await connect(settings, resources)
        client = await resources.enter_async_context(Client(settings.url, key))
        names = [agent.name for agent in agents]
        starters = {agent.name: agent.starters for agent in agents if isinstance(agent, OffersStarters)}
        offered = {name: texts for name, texts in starters.items() if texts}
        ingest = await resources.enter_async_context(IngestConnection(settings.url, key, names, offered))
        runner = Runner(agents, client, ingest, settings)
        while not stop.is_set():
            await _first_of(stop.wait(), ingest.connected())
            async with AsyncExitStack() as polling:
                if not stop.is_set():
                    for worker in workers(temporal, agents, runner, settings):
                        await polling.enter_async_context(worker)
                    logger.info("Running agents: %s", ", ".join(agent.name for agent in agents))
                # What nobody would see is not worth a model's request: the turns go back, and none is taken.
                await _first_of(stop.wait(), ingest.lost(for_seconds=GIVE_BACK_AFTER_SECONDS))
            if not stop.is_set():
                logger.error("Nobody sees what agents write: their turns were given back, and none is taken.")


async def _first_of(*waits: Coroutine[object, None, object]) -> None:
    """Waits until one of them is done."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
