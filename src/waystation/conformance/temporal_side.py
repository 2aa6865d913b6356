"""Temporal's side as a conformance run plays it: real activities on a real server, and how they end."""

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self
from uuid import uuid4

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType, PendingActivityState
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.workflow import ActivityCancellationType

from waystation.temporal.encryption import ENCODING
from waystation.temporal.messages import RUN_TURN
from waystation.temporal.names import agent_task_queue

START_TIMEOUT: Final = timedelta(seconds=20)
"""An agent that polls takes a turn at once."""
TURN_TIMEOUT: Final = timedelta(seconds=90)
"""No scenario takes as long."""

EndKind = Literal["completed", "failed", "timed out", "canceled"]


@workflow.defn(name="ConformanceTurn")
class ConformanceTurn:
    """Has an agent run one attempt of a turn, as ``AgentTurn`` does, and leaves its end in the history."""

    @workflow.run
    async def run(self, given: dict[str, Any], queue: str, heartbeat_seconds: float) -> None:
        """Runs the attempt; how it ends is read from the history."""
        with suppress(ActivityError):
            await workflow.execute_activity(
                RUN_TURN.name,
                given,
                task_queue=queue,
                schedule_to_start_timeout=START_TIMEOUT,
                start_to_close_timeout=TURN_TIMEOUT,
                heartbeat_timeout=timedelta(seconds=heartbeat_seconds),
                retry_policy=RetryPolicy(maximum_attempts=1),
                cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )

    @workflow.query
    def steps(self, after: int) -> dict[str, Any]:
        """Returns the turn's steps, as ``AgentTurn`` does: here it has none."""
        return {"steps": [], "next_after": after, "more": False}


class Ended(NamedTuple):
    """How an attempt ended, as Temporal has recorded it."""

    kind: EndKind
    payload: Payload | None = None
    result: Any = None
    failure_type: str = ""
    message: str = ""
    encrypted: bool = False

    def __str__(self) -> str:
        """Says it in a few words."""
        if self.kind == "completed":
            return f"the activity completed with {self.result!r}"
        return f"the activity {self.kind}: {self.failure_type} {self.message}".rstrip(": ")


class Run:
    """An attempt of a turn that was handed to Temporal."""

    def __init__(self, handle: WorkflowHandle[Any, Any], client: Client) -> None:
        self._handle, self._client = handle, client
        self._over = asyncio.create_task(self._wait())

    @property
    def over(self) -> bool:
        """Whether the attempt has ended."""
        return self._over.done()

    async def started(self) -> bool:
        """Returns whether an agent has taken it."""
        pending = (await self._handle.describe()).raw_description.pending_activities
        return any(one.state != PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED for one in pending)

    async def ended(self, within: float) -> Ended | None:
        """Returns how it ended; ``None`` if it hasn't in time."""
        done, _ = await asyncio.wait([self._over], timeout=within)
        return self._over.result() if done else None

    async def cancel(self) -> None:
        """Cancels it in Temporal, of which the agent hears only by its heartbeats."""
        await self._handle.cancel()

    async def drop(self) -> None:
        """Ends it for good, and waits for nobody."""
        with suppress(RPCError):
            await self._handle.terminate()
        self._over.cancel()
        await asyncio.gather(self._over, return_exceptions=True)

    async def _wait(self) -> Ended:
        with suppress(WorkflowFailureError):
            await self._handle.result()
        async for event in self._handle.fetch_history_events():
            match event.event_type:
                case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                    return await self._completed(
                        event.activity_task_completed_event_attributes.result.payloads
                    )
                case EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED:
                    return await self._failed(event.activity_task_failed_event_attributes.failure)
                case EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT:
                    failure = event.activity_task_timed_out_event_attributes.failure
                    return Ended("timed out", message=failure.message)
        return Ended("canceled")

    async def _completed(self, payloads: Any) -> Ended:
        if not payloads:
            return Ended("completed")
        converter = self._client.data_converter
        encrypted = payloads[0].metadata.get("encoding") == ENCODING
        [plain] = await converter.payload_codec.decode(payloads) if converter.payload_codec else payloads
        result = None
        with suppress(ValueError):
            result = json.loads(plain.data)
        return Ended("completed", plain, result, encrypted=encrypted)

    async def _failed(self, failure: Any) -> Ended:
        message = failure.message
        with suppress(Exception):
            error = await self._client.data_converter.decode_failure(failure)
            message = str(getattr(error, "message", error))
        return Ended("failed", failure_type=failure.application_failure_info.type, message=message)


class TemporalSide:
    """Hands attempts of turns to an agent through Temporal. Use as ``async with``."""

    def __init__(self, client: Client, agent: str) -> None:
        self.client, self._queue = client, agent_task_queue(agent)
        self._own_queue = f"waystation-conformance-{uuid4().hex[:12]}"
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._resources.enter_async_context(
            Worker(
                self.client,
                task_queue=self._own_queue,
                workflows=[ConformanceTurn],
                workflow_runner=UnsandboxedWorkflowRunner(),
            )
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._resources.aclose()

    async def begin(self, given: dict[str, Any], heartbeat_seconds: float) -> Run:
        """Hands over an attempt."""
        handle = await self.client.start_workflow(
            ConformanceTurn.run,
            args=[given, self._queue, heartbeat_seconds],
            id=f"conformance-{uuid4().hex}",
            task_queue=self._own_queue,
        )
        return Run(handle, self.client)
