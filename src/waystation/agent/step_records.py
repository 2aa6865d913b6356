"""Where a turn's steps are remembered: in its own workflow, which the agent's process asks directly."""

import logging
from typing import Final, Protocol

from pydantic import JsonValue
from temporalio.client import WorkflowQueryFailedError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from waystation.agent.writer import turn_is_over
from waystation.backoff import Backoff
from waystation.errors import WaystationError
from waystation.models.steps import (
    MAX_INLINE_STEP_RESULT_BYTES,
    MAX_INLINE_STEPS_BYTES,
    MAX_STEP_RESULT_BYTES,
    MAX_STEPS_BYTES,
    RecordStep,
)
from waystation.temporal.calls import Handle, ask, update
from waystation.temporal.messages import TURN_RECORD_STEP, TURN_STEPS
from waystation.temporal.names import INVALID_ARGUMENT, STEP_REFUSED, TURN_OVER, UNEXPECTED
from waystation.temporal.storage import PayloadsUnavailableError

logger = logging.getLogger(__name__)

MIN_PAUSE_SECONDS: Final = 0.1
MAX_PAUSE_SECONDS: Final = 3.0
_REFUSALS: Final = frozenset({TURN_OVER, STEP_REFUSED, INVALID_ARGUMENT, UNEXPECTED})


class StepRefused(WaystationError):
    """A step can't be run or recorded: it is one too many, its result is too large, or it is misplaced."""


class StepRecords(Protocol):
    """Where steps are recorded, and read again."""

    @property
    def max_result_bytes(self) -> int:
        """The largest result of a step."""
        ...

    @property
    def max_bytes(self) -> int:
        """The most that all results of a turn may have."""
        ...

    async def read(self) -> dict[str, JsonValue]:
        """Returns what earlier attempts have recorded."""
        ...

    async def record(self, key: str, result: JsonValue) -> JsonValue:
        """Makes a step's result durable and returns the one that counts."""
        ...


class WorkflowStepRecords:
    """The steps of one attempt of a turn, in the turn's workflow.

    While Temporal, its workers or the payload storage can't be reached, both calls wait, as writing does.
    """

    def __init__(self, turn: Handle, attempt: int, *, has_storage: bool) -> None:
        """``has_storage``: whether large payloads are stored outside the history."""
        self._turn, self._attempt = turn, attempt
        self.max_result_bytes = MAX_STEP_RESULT_BYTES if has_storage else MAX_INLINE_STEP_RESULT_BYTES
        self.max_bytes = MAX_STEPS_BYTES if has_storage else MAX_INLINE_STEPS_BYTES

    async def read(self) -> dict[str, JsonValue]:
        """Returns what earlier attempts have recorded, in order."""
        found: dict[str, JsonValue] = {}
        after, more = 0, True
        backoff = Backoff(MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS)
        while more:
            try:
                page = await ask(self._turn, TURN_STEPS, after)
            except (WorkflowQueryFailedError, RPCError, PayloadsUnavailableError) as error:
                if _is_gone(error):
                    return {}
                # To go on without an answer would be to run again what was run.
                logger.warning("A turn waits for what its steps have recorded: %s", error)
                await backoff.wait()
            else:
                backoff.reset()
                found.update((step.key, step.result) for step in page.steps)
                after, more = page.next_after, page.more
        return found

    async def record(self, key: str, result: JsonValue) -> JsonValue:
        """Makes a step's result durable and returns the one that counts: the first that was recorded.

        Raises:
            ConflictError: The turn is over for this attempt.
            StepRefused: There are too many, or too large ones.
        """
        step = RecordStep(attempt=self._attempt, key=key, result=result)
        backoff = Backoff(MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS)
        while True:
            try:
                recorded = await update(self._turn, TURN_RECORD_STEP, step)
            except WorkflowUpdateFailedError as error:
                if (refused := _refused(key, error)) is not None:
                    raise refused from None
                logger.warning("The result of a step can't be recorded yet: %s", error.cause)
                await backoff.wait()
            except (RPCError, PayloadsUnavailableError) as error:
                if _is_gone(error):
                    raise turn_is_over("turn-over") from error
                if isinstance(error, RPCError) and error.status == RPCStatusCode.INVALID_ARGUMENT:
                    raise StepRefused(f"Temporal doesn't take the result of '{key}': {error}") from None
                await backoff.wait()
            else:
                return result if recorded.is_first else recorded.result


def _is_gone(error: Exception) -> bool:
    """Whether the turn's workflow has ended."""
    return isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND


def _refused(key: str, error: WorkflowUpdateFailedError) -> WaystationError | None:
    """Returns what is raised where the turn's workflow has refused; ``None`` if it wasn't asked.

    A worker of a release without steps knows no such update: workers are replaced before agents, and the new
    ones take over.
    """
    cause = error.cause
    if not isinstance(cause, ApplicationError) or cause.type not in _REFUSALS:
        return None
    if cause.type == TURN_OVER:
        return turn_is_over("turn-over")
    return StepRefused(f"The step '{key}' has run, but wasn't recorded: {cause.message}")
