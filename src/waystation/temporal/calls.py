"""Calls through typed names: the only place where a message's name is handed to Temporal's SDK as text."""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import timedelta
from types import NoneType
from typing import Any, Final, Required, TypedDict, TypeVar, Unpack, overload

from temporalio import workflow
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import RawValue, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from waystation.errors import WaystationError
from waystation.temporal.tokens import ActivityName, QueryName, SignalName, UpdateName, WorkflowName

MAX_WORKFLOW_ID_BYTES: Final = 1_000
"""Temporal's own limit."""
MAX_UPDATE_ATTEMPTS: Final = 6
UPDATE_PAUSE_SECONDS: Final = 0.05
"""The pause before an update is repeated, times the attempts made: its task is repeated immediately."""
CLOSING: Final = "aborted by closing workflow"
"""How Temporal refuses an update that came while a run ended or continued as new, as if there were none."""
_NOT_PROCESSED: Final = "UnprocessedUpdate"
"""The type under which Temporal itself refuses an update that came with a run's last task."""

Argument = TypeVar("Argument")
Told = TypeVar("Told")
Result = TypeVar("Result")
Returned = TypeVar("Returned")

Handle = WorkflowHandle[Any, Any]
"""Of a workflow whose class the caller may not know."""


class UnreadableResultError(WaystationError):
    """What somebody else's code returned has another shape than it should."""


class StartOptions(TypedDict, total=False):
    """How a workflow is started: options of Temporal's SDK."""

    id: Required[str]
    task_queue: Required[str]
    id_reuse_policy: WorkflowIDReusePolicy
    memo: Mapping[str, object]
    start_delay: timedelta


class ChildOptions(TypedDict, total=False):
    """How a child workflow is started: options of Temporal's SDK."""

    id: Required[str]
    task_queue: Required[str]
    parent_close_policy: Required[workflow.ParentClosePolicy]
    cancellation_type: workflow.ChildWorkflowCancellationType
    id_reuse_policy: WorkflowIDReusePolicy
    memo: Mapping[str, object]


# From a client


async def tell(
    handle: Handle,
    signal: SignalName[Argument],
    argument: Argument,
    *,
    rpc_timeout: timedelta | None = None,
) -> None:
    """Sends a signal."""
    await handle.signal(signal.name, argument, rpc_timeout=rpc_timeout)


@overload
async def ask(handle: Handle, query: QueryName[None, Result], argument: None = None) -> Result: ...


@overload
async def ask(handle: Handle, query: QueryName[Argument, Result], argument: Argument) -> Result: ...


async def ask(handle: Handle, query: QueryName[Argument, Result], argument: Argument | None = None) -> Result:
    """Returns the answer to a query."""
    answer: Result = await handle.query(
        query.name, args=_given(query.argument, argument), result_type=query.result
    )
    return answer


@overload
async def update(
    handle: Handle,
    name: UpdateName[None, Result],
    argument: None = None,
    *,
    update_id: str | None = None,
) -> Result: ...


@overload
async def update(
    handle: Handle,
    name: UpdateName[Argument, Result],
    argument: Argument,
    *,
    update_id: str | None = None,
) -> Result: ...


async def update(
    handle: Handle,
    name: UpdateName[Argument, Result],
    argument: Argument | None = None,
    *,
    update_id: str | None = None,
) -> Result:
    """Executes an update and returns its result; the same ``update_id`` again returns the same one."""
    once = update_id or uuid.uuid4().hex

    async def execute() -> Result:
        with _timeouts():
            result: Result = await handle.execute_update(
                name.name, args=_given(name.argument, argument), id=once, result_type=name.result
            )
        return result

    return await until_taken(execute)


@contextlib.contextmanager
def _timeouts() -> Iterator[None]:
    """Says what the SDK's error of a timeout or a cancellation was: the one or the other.

    A turn that is stopped or given back to another process would end as failed otherwise; and where Temporal
    leaves an update unanswered, that would not be taken for the ``RPCError`` that it is.
    """
    try:
        yield
    except WorkflowUpdateRPCTimeoutOrCancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from None
        raise RPCError(
            "Temporal gave no answer to an update in time.", RPCStatusCode.DEADLINE_EXCEEDED, b""
        ) from error


async def until_taken(execute: Callable[[], Awaitable[Result]]) -> Result:
    """Executes an update, under the same id each time, until Temporal doesn't drop it unprocessed.

    A run that continues as new may leave the updates that came with its last task unprocessed; and one that
    a signal kept from continuing fails that task and repeats it. Temporal refuses such updates instead of
    handing them on to the next task or run. A run that has taken as many updates as it may refuses them too,
    until it has continued as new.
    """
    for attempt in range(1, MAX_UPDATE_ATTEMPTS):
        try:
            return await execute()
        except (RPCError, WorkflowUpdateFailedError) as error:
            if not was_dropped(error):
                raise
        await asyncio.sleep(UPDATE_PAUSE_SECONDS * attempt)
    return await execute()


def was_dropped(error: RPCError | WorkflowUpdateFailedError) -> bool:
    """Returns whether Temporal has refused a request without handing it to any workflow."""
    if isinstance(error, RPCError):
        return error.status == RPCStatusCode.FAILED_PRECONDITION or CLOSING in str(error)
    return isinstance(error.cause, ApplicationError) and error.cause.type == _NOT_PROCESSED


async def start_workflow(
    client: Client,
    name: WorkflowName[Argument, Returned],
    argument: Argument,
    *,
    id_conflict_policy: WorkflowIDConflictPolicy = WorkflowIDConflictPolicy.UNSPECIFIED,
    **options: Unpack[StartOptions],
) -> None:
    """Starts a workflow."""
    await client.start_workflow(name.name, argument, id_conflict_policy=id_conflict_policy, **options)


async def start_and_tell(
    client: Client,
    name: WorkflowName[Argument, Returned],
    argument: Argument,
    signal: SignalName[Told],
    told: Told,
    *,
    rpc_timeout: timedelta | None = None,
    **options: Unpack[StartOptions],
) -> None:
    """Sends a signal to a workflow, which is started first if it isn't running."""
    await client.start_workflow(
        name.name,
        argument,
        start_signal=signal.name,
        start_signal_args=[told],
        rpc_timeout=rpc_timeout,
        **options,
    )


async def start_and_update(
    client: Client,
    name: WorkflowName[Argument, Returned],
    argument: Argument,
    update_name: UpdateName[Told, Result],
    told: Told | None = None,
    *,
    update_id: str,
    id_conflict_policy: WorkflowIDConflictPolicy,
    **options: Unpack[StartOptions],
) -> Result:
    """Starts a workflow, or finds the one with this id as the policy says, and executes an update of it.

    The same ``update_id`` again returns the same result.
    """
    operation: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
        name.name, argument, result_type=name.result, id_conflict_policy=id_conflict_policy, **options
    )
    with _timeouts():
        result: Result = await client.execute_update_with_start_workflow(
            update_name.name,
            args=_given(update_name.argument, told),
            id=update_id,
            start_workflow_operation=operation,
            result_type=update_name.result,
        )
    return result


async def result_of(client: Client, name: WorkflowName[Argument, Result], workflow_id: str) -> Result:
    """Waits for a workflow's end and returns its result."""
    result: Result = await client.get_workflow_handle(workflow_id, result_type=name.result).result()
    return result


# From a workflow


async def tell_workflow(workflow_id: str, signal: SignalName[Argument], argument: Argument) -> None:
    """Sends a signal from one workflow to another.

    Raises:
        ApplicationError: There is no such workflow, or no workflow can have this id. Temporal would refuse
            the whole task of the one that asks for it, again and again.
    """
    if not 0 < len(workflow_id.encode()) <= MAX_WORKFLOW_ID_BYTES:
        raise ApplicationError("no workflow has such an id", type="ExternalWorkflowExecutionNotFound")
    await workflow.get_external_workflow_handle(workflow_id).signal(
        signal.name, args=_given(signal.argument, argument)
    )


async def start_child_workflow(
    name: WorkflowName[Argument, Result], argument: Argument, **options: Unpack[ChildOptions]
) -> asyncio.Future[Result]:
    """Starts a child workflow and returns its handle, which can be awaited for its result."""
    return await workflow.start_child_workflow(name.name, argument, result_type=name.result, **options)


def start_activity(
    name: ActivityName[Argument, Result], argument: Argument, **options: Unpack[workflow.ActivityConfig]
) -> workflow.ActivityHandle[Result]:
    """Starts an activity and returns its handle, which can be awaited."""
    return workflow.start_activity(name.name, argument, result_type=name.result, **options)


def start_foreign_activity(
    name: ActivityName[Argument, Result], argument: Argument, **options: Unpack[workflow.ActivityConfig]
) -> workflow.ActivityHandle[RawValue]:
    """Starts an activity of somebody else's code; ``read_result`` says what it returned.

    Converted by the SDK, a result of another shape would fail the workflow's task, again and again.
    """
    return workflow.start_activity(name.name, argument, result_type=RawValue, **options)


def read_result(name: ActivityName[Argument, Result], raw: RawValue) -> Result:
    """Returns what an activity returned.

    Raises:
        UnreadableResultError: It has another shape.
    """
    try:
        result: Result = workflow.payload_converter().from_payload(raw.payload, name.result)
    except Exception as error:  # a converter raises what it likes
        raise UnreadableResultError(f"{type(error).__name__}: {error}") from error
    if not isinstance(result, name.result):  # "null" is given back as it is, whatever was wanted
        raise UnreadableResultError(f"it is {result!r}")
    return result


def _given(kind: type[Argument], argument: Argument | None) -> list[Argument | None]:
    """Returns the arguments for the SDK, which tells no argument from ``None``."""
    return [] if kind is NoneType else [argument]
