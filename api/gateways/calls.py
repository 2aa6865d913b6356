"""Calls to Temporal from the API: every one bounded in time, every failure a problem that says what to do."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import NamedTuple, TypeVar

from pydantic import ValidationError
from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import QueryRejectCondition
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.workflow import UpdateMethodMultiParam

from api.errors import CarriedOut, Invalid, Problem, Unavailable, refusal
from waystation.temporal.calls import CLOSING, tell, until_taken, was_dropped
from waystation.temporal.payload_converter import PayloadDecryptionError
from waystation.temporal.storage import PayloadsUnavailableError
from waystation.temporal.tokens import SignalName

_NEVER_CONNECTED = "Failed client connect"
_NOBODY_POLLS = "no poller"
_UNAVAILABLE = "temporal-unavailable"

logger = logging.getLogger(__name__)

Workflow = TypeVar("Workflow")
Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Wording(NamedTuple):
    """What callers are told about one kind of workflow."""

    unknown: Callable[[str], Problem]
    """There is none with this id."""
    unreadable: Callable[[str], Problem]
    """It was encrypted with a key that this process doesn't have."""
    ended: Callable[[], Problem]
    """It accepts nothing more."""
    not_taken: str
    """It takes no more at the moment, or its worker failed on the request."""
    no_worker: str
    """No worker serves it, or none did in time."""


class Calls:
    """Bounds calls in time and maps Temporal's errors to problems, in one place for all gateways."""

    def __init__(self, client: Client, timeout_seconds: float, kind: str, wording: Wording) -> None:
        """``kind`` is the type of workflow that is called: an id of another kind is unknown."""
        self.client = client
        self.timeout = timedelta(seconds=timeout_seconds)
        self._kind = kind
        self._wording = wording

    async def guarded(
        self,
        workflow_id: str,
        call: Callable[[], Awaitable[Result]],
        *,
        within: timedelta | None = None,
        looks: bool = False,
    ) -> Result:
        """Returns what the call returns.

        Args:
            workflow_id: What is called.
            call: Calls it.
            within: The limit of a call that takes many requests, such as a list.
            looks: The call changes nothing.

        Raises:
            Problem: Says what went wrong, and what to do.
        """
        lost = CarriedOut.NOTHING_TO if looks else CarriedOut.UNKNOWN
        not_sent = CarriedOut.NOTHING_TO if looks else CarriedOut.NO
        try:
            # One limit over everything: an update is several calls, each with its own timeout.
            async with asyncio.timeout((within or self.timeout).total_seconds()):
                return await call()
        except TimeoutError as error:
            raise Unavailable("Temporal did not answer in time.", lost, code=_UNAVAILABLE) from error
        except WorkflowUpdateFailedError as error:
            if isinstance(error.cause, ApplicationError) and (refused := refusal(error.cause)):
                raise refused from error
            logger.warning("An update of %s failed: %s", workflow_id, error.cause)
            raise self._busy(not_sent if was_dropped(error) else lost) from error
        except PayloadsUnavailableError as error:
            logger.warning("%s: %s", workflow_id, error)
            raise Unavailable("The payload storage can't be reached.", lost) from error
        except PayloadDecryptionError as error:
            raise self._wording.unreadable(workflow_id) from error
        except ValidationError as error:
            # A workflow of another kind has this id: it answers as none of this kind does.
            raise self._wording.unknown(workflow_id) from error
        except WorkflowQueryFailedError as error:
            if not await self.is_of_kind(workflow_id):
                raise self._wording.unknown(workflow_id) from error
            logger.warning("A query of %s failed: %s", workflow_id, error)
            # It is there, and its worker can't read it at the moment (its payloads are out of reach, say).
            raise Unavailable(self._wording.not_taken, lost) from error
        except WorkflowUpdateRPCTimeoutOrCancelledError as error:
            raise self._no_worker(lost) from error
        except RPCError as error:
            raise self._problem(error, workflow_id, not_sent if was_dropped(error) else lost) from error
        except RuntimeError as error:
            # What the SDK raises if it has never been connected.
            if _NEVER_CONNECTED not in str(error):
                raise
            raise _unreachable(not_sent) from error

    async def is_of_kind(self, workflow_id: str) -> bool:
        """Returns whether what has this id is a workflow of this kind, as far as Temporal says."""
        try:
            found = await self.client.get_workflow_handle(workflow_id).describe(rpc_timeout=self.timeout)
        except RPCError:
            return True
        return found.workflow_type == self._kind

    async def update(
        self,
        handle: WorkflowHandle[Workflow, object],
        update: UpdateMethodMultiParam[[Workflow, Argument], Result],
        argument: Argument,
        *,
        update_id: str | None = None,
    ) -> Result:
        """Executes an update, and repeats it if Temporal drops it unprocessed."""
        return await self.guarded(
            handle.id,
            lambda: execute_update(handle, update, argument, self.timeout, update_id=update_id),
        )

    async def signal(self, workflow_id: str, signal: SignalName[Argument], argument: Argument) -> None:
        """Sends a signal."""
        handle = self.client.get_workflow_handle(workflow_id)
        await self.guarded(workflow_id, lambda: tell(handle, signal, argument, rpc_timeout=self.timeout))

    def _problem(self, error: RPCError, workflow_id: str, known: CarriedOut) -> Problem:
        if CLOSING in str(error):
            return self._busy(known)
        if error.status == RPCStatusCode.NOT_FOUND:
            ended = "already completed" in str(error)
            return self._wording.ended() if ended else self._wording.unknown(workflow_id)
        if error.status == RPCStatusCode.INVALID_ARGUMENT:
            logger.warning("Temporal refused a request to %s: %s", workflow_id, error)
            return Invalid("Temporal can't take the request: an id or a text in it is too long or malformed.")
        nobody_polls = error.status == RPCStatusCode.FAILED_PRECONDITION and _NOBODY_POLLS in str(error)
        if error.status == RPCStatusCode.DEADLINE_EXCEEDED or nobody_polls:
            return self._no_worker(known)
        if error.status in (RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.RESOURCE_EXHAUSTED):
            return self._busy(known)
        return _unreachable(known)

    def _busy(self, known: CarriedOut) -> Problem:
        return Unavailable(self._wording.not_taken, known, code="busy")

    def _no_worker(self, known: CarriedOut) -> Problem:
        return Unavailable(self._wording.no_worker, known, code="no-worker")


async def execute_update(
    handle: WorkflowHandle[Workflow, object],
    update: UpdateMethodMultiParam[[Workflow, Argument], Result],
    argument: Argument,
    rpc_timeout: timedelta,
    *,
    update_id: str | None = None,
) -> Result:
    """Executes an update, and repeats it if Temporal drops it unprocessed."""
    once = update_id or uuid.uuid4().hex
    return await until_taken(
        lambda: handle.execute_update(update, argument, id=once, rpc_timeout=rpc_timeout)
    )


async def ask_unless_ended(query: Callable[[QueryRejectCondition], Awaitable[Result]]) -> tuple[Result, bool]:
    """Returns the answer to a query, and whether Temporal has ended the workflow.

    A run that has continued as new while it was asked has not ended: the next one is asked.
    """
    while True:
        try:
            return await query(QueryRejectCondition.NOT_COMPLETED_CLEANLY), False
        except WorkflowQueryRejectedError as rejected:
            if rejected.status != WorkflowExecutionStatus.CONTINUED_AS_NEW:
                return await query(QueryRejectCondition.NONE), True


async def memo_of(execution: WorkflowExecution) -> Mapping[str, object]:
    """Returns a listed workflow's memo; empty where it was encrypted with a key that is no longer known.

    One old workflow must not make the whole list fail.
    """
    try:
        return await execution.memo()
    except PayloadDecryptionError:
        return {}


def _unreachable(known: CarriedOut) -> Problem:
    return Unavailable("Temporal can't be reached.", known, code=_UNAVAILABLE)
