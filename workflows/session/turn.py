"""One turn of an agent: attempts until one ends, and exactly one report to the session.

A workflow of its own, and not an activity of the session's, so that a session can continue
as new while its agent keeps running.
"""

import asyncio
from datetime import timedelta
from types import NoneType
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, TimeoutType
from temporalio.exceptions import TimeoutError as ActivityTimeoutError
from temporalio.workflow import ActivityCancellationType

with workflow.unsafe.imports_passed_through():
    from pydantic import Field

    from waystation.models.base import WorkflowStart
    from waystation.models.sessions import (
        SessionLimits,
        TurnAttempt,
        TurnEnded,
        TurnInput,
        TurnResult,
        TurnResume,
        TurnWaiting,
    )
    from waystation.models.steps import RecordStep, StepRecorded, StepsPage
    from waystation.temporal.calls import (
        UnreadableResultError,
        read_result,
        start_activity,
        start_foreign_activity,
        tell_workflow,
    )
    from waystation.temporal.messages import (
        ANNOUNCE,
        RUN_TURN,
        SESSION_TURN_ATTEMPT,
        SESSION_TURN_ENDED,
        SESSION_TURN_WAITING,
    )
    from waystation.temporal.names import (
        PAYLOADS_UNAVAILABLE,
        PAYLOADS_UNAVAILABLE_WORDS,
        RETRY_TURN,
        TURN_DIVERGED,
        TURN_WORKFLOW,
        WORKER_SHUTDOWN,
        agent_task_queue,
    )
    from waystation.temporal.tokens import SignalName
    from workflows.guards import answering, drop_unless, ending
    from workflows.policies import ANNOUNCE_TIMEOUT, ONE_ATTEMPT, RETRY_PAUSE
    from workflows.refusals import refusal, require
    from workflows.session.steps import TurnSteps

MAX_DETAIL_CHARACTERS = 2_000
PAYLOADS_COME_BACK = "payloads-come-back"
"""Marks turns that are tried again when their process could not reach the payload storage."""

Report = TypeVar("Report", TurnAttempt, TurnEnded, TurnWaiting)


class TurnPlan(WorkflowStart):
    """The input of ``AgentTurn``."""

    turn: TurnInput
    limits: SessionLimits = Field(default_factory=SessionLimits)
    agent_is_known: bool = False
    """Whether the agent has run in this session before: then it is worth waiting for."""


class AttemptFailedError(Exception):
    """One attempt has failed; ``retry`` says whether another may help."""

    def __init__(self, code: str, detail: str, *, retry: bool, counts: bool = True) -> None:
        super().__init__(detail)
        self.code, self.detail, self.retry, self.counts = code, detail, retry, counts


@workflow.defn(name=TURN_WORKFLOW)
class AgentTurn:
    """Runs a turn's attempts and signals ``turn_attempt`` and ``turn_ended`` to the session.

    It also keeps the results of the turn's steps, which the agent's process records here.
    """

    def __init__(self) -> None:
        self._steps = TurnSteps()
        self._resume: TurnResume | None = None
        self._waited_for: tuple[str, ...] = ()

    @workflow.signal
    @drop_unless(TurnResume)
    def resume(self, resume: TurnResume) -> None:
        """Something that the turn waits for is settled: the next attempt begins."""
        self._resume = resume

    @workflow.signal
    @drop_unless(NoneType, optional=True)
    def check(self) -> None:
        """Does nothing: that it can be sent tells a later run of the session that the turn goes on."""

    @workflow.update
    @answering
    def record_step(self, step: RecordStep) -> StepRecorded:
        """Remembers the result of a step; the first one under a key counts."""
        return self._steps.record(step)

    @record_step.validator
    def _validate_record_step(self, step: RecordStep) -> None:
        require(step, RecordStep)
        if refused := self._steps.why_not(step):
            raise refusal(refused.kind, refused.message)

    @workflow.query
    def steps(self, after: int) -> StepsPage:
        """Returns the steps that were recorded, without the first ``after``."""
        return self._steps.page(after)

    @workflow.run
    @ending
    async def run(self, plan: TurnPlan) -> None:
        try:
            ended = await self._run_attempts(plan)
        except Exception:
            # A session that is never told of a turn's end waits for it forever.
            workflow.logger.exception("The turn can't go on")
            ended = TurnEnded(
                turn_id=plan.turn.turn_id,
                outcome="failed",
                code="turn_broken",
                detail="The turn ended by an error that nobody expected; the worker's log has it.",
            )
        await _report(plan.turn.session_id, SESSION_TURN_ENDED, ended)

    async def _run_attempts(self, plan: TurnPlan) -> TurnEnded:
        turn_id, attempt, failures = plan.turn.turn_id, 1, 0
        known, patient = plan.agent_is_known, False
        while True:
            try:
                result = await self._run_attempt(plan, attempt, patient=patient)
            except AttemptFailedError as failure:
                failures += failure.counts
                if failure.code == "agent_unavailable":
                    failure.retry = known and not patient
                    patient = True
                else:
                    known, patient = True, False
                if not failure.retry or failures >= plan.limits.max_attempts:
                    return TurnEnded(
                        turn_id=turn_id, outcome="failed", code=failure.code, detail=failure.detail
                    )
                attempt += 1
                retried = TurnAttempt(
                    turn_id=turn_id, attempt=attempt, code=failure.code, detail=failure.detail
                )
                try:
                    await _report(plan.turn.session_id, SESSION_TURN_ATTEMPT, retried)
                    await workflow.sleep(RETRY_PAUSE * failures)
                except asyncio.CancelledError:
                    return TurnEnded(turn_id=turn_id, outcome="stopped")
            else:
                if result.outcome == "waiting":
                    waiting = TurnWaiting(turn_id=turn_id, attempt=attempt, waiting_for=result.waiting_for)
                    try:
                        attempt = await self._park(plan.turn.session_id, waiting)
                    except asyncio.CancelledError:
                        return TurnEnded(turn_id=turn_id, outcome="stopped")
                    # What went wrong before doesn't count against what may go wrong weeks later.
                    known, patient, failures = True, False, 0
                    continue
                return TurnEnded(turn_id=turn_id, outcome=result.outcome, result=result.result)

    async def _park(self, session_id: str, waiting: TurnWaiting) -> int:
        """Waits, for days if need be, until anything of it is settled; returns the attempt that begins."""
        if not await _report(session_id, SESSION_TURN_WAITING, waiting):
            raise asyncio.CancelledError  # nobody would ever say that it may go on
        await workflow.wait_condition(
            lambda: self._resume is not None and self._resume.attempt > waiting.attempt
        )
        assert self._resume is not None
        self._waited_for = waiting.waiting_for
        return self._resume.attempt

    async def _run_attempt(self, plan: TurnPlan, attempt: int, *, patient: bool) -> TurnResult:
        """Runs one attempt; ``patient`` waits for an agent's process as long as a session may.

        An agent that was never there is probably a mistake, and said to be one soon. One that has run will
        come back: it is being deployed, or its machine restarts.
        """
        limits, self._steps.attempt = plan.limits, attempt
        seconds = limits.agent_return_timeout_seconds if patient else limits.agent_start_timeout_seconds
        activity = start_foreign_activity(
            RUN_TURN,
            plan.turn.model_copy(
                update={
                    "attempt": attempt,
                    "waited_for": self._waited_for,
                    "park_after_seconds": limits.park_after_seconds,
                }
            ),
            task_queue=agent_task_queue(plan.turn.agent),
            schedule_to_start_timeout=timedelta(seconds=seconds),
            start_to_close_timeout=timedelta(seconds=limits.turn_timeout_seconds),
            heartbeat_timeout=timedelta(seconds=limits.agent_heartbeat_timeout_seconds),
            retry_policy=ONE_ATTEMPT,
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        try:
            return read_result(RUN_TURN, await asyncio.shield(activity))
        except asyncio.CancelledError:
            # The session stops this turn. The agent is told immediately over its own connection;
            # this makes sure of it, and the grace keeps a hung agent from holding the session.
            activity.cancel()
            await workflow.wait([activity], timeout=limits.stop_grace_seconds)
            return TurnResult(outcome="stopped")
        except ActivityError as error:
            if isinstance(error.cause, CancelledError):
                return TurnResult(outcome="stopped")
            raise _explain(error, plan) from error
        except UnreadableResultError as error:
            detail = f"The agent '{plan.turn.agent}' returned what is no result of a turn: {error}"
            raise AttemptFailedError("agent_error", detail[:MAX_DETAIL_CHARACTERS], retry=False) from error


async def _report(session_id: str, signal: SignalName[Report], report: Report) -> bool:
    """Tells the session, then the API processes that it has news; returns whether it still exists."""
    try:
        await tell_workflow(session_id, signal, report)
        await start_activity(
            ANNOUNCE,
            session_id,
            schedule_to_close_timeout=ANNOUNCE_TIMEOUT,
            retry_policy=ONE_ATTEMPT,
        )
    except ApplicationError:
        workflow.logger.warning("The session %s no longer exists", session_id)
        return False
    except ActivityError:
        workflow.logger.info("Nobody was told of news in %s; the API's poll will find it", session_id)
    return True


def _told_by(error: ApplicationError) -> str:
    """Returns what an agent's process says, with its reason where it couldn't even read its turn."""
    message = error.message or ""
    return f"{message}: {error.cause}" if isinstance(error.cause, ApplicationError) else message


def _lacked_payloads(error: BaseException | None) -> bool:
    """Whether the agent's process could not read its turn, or store its result: not the agent's fault."""
    while isinstance(error, ApplicationError):
        if error.type == PAYLOADS_UNAVAILABLE or PAYLOADS_UNAVAILABLE_WORDS in (error.message or ""):
            return True
        error = error.cause
    return False


def _explain(error: ActivityError, plan: TurnPlan) -> AttemptFailedError:
    """Says in the session's words why an attempt has failed."""
    agent, limits, cause = plan.turn.agent, plan.limits, error.cause
    if isinstance(cause, ActivityTimeoutError):
        if cause.type == TimeoutType.SCHEDULE_TO_START:
            return AttemptFailedError(
                "agent_unavailable",
                f"No process runs the agent '{agent}'. Start one with: waystation agent module:{agent}",
                retry=False,
                counts=False,
            )
        if cause.type == TimeoutType.HEARTBEAT:
            return AttemptFailedError(
                "agent_lost", f"The process that ran the agent '{agent}' went silent.", retry=True
            )
        return AttemptFailedError(
            "turn_timeout", f"The turn took longer than {limits.turn_timeout_seconds} s.", retry=False
        )
    if isinstance(cause, ApplicationError):
        detail = _told_by(cause)[:MAX_DETAIL_CHARACTERS]
        if cause.type == WORKER_SHUTDOWN:
            return AttemptFailedError("agent_restarted", detail, retry=True, counts=False)
        if cause.type == TURN_DIVERGED:
            return AttemptFailedError("turn_diverged", detail, retry=False)
        if cause.type == RETRY_TURN:
            return AttemptFailedError("agent_retry", detail, retry=True)
        if _lacked_payloads(cause) and workflow.patched(PAYLOADS_COME_BACK):
            return AttemptFailedError("payloads_unavailable", detail, retry=True)
        return AttemptFailedError("agent_error", detail, retry=False)
    return AttemptFailedError("agent_error", str(cause or error)[:MAX_DETAIL_CHARACTERS], retry=False)
