"""Calls of activities from workflows that move money: within the task or durably; their contract.

- ``durable`` is an activity of its own: what led to it is in the history before it begins. For what moves
  money or room.
- ``quick`` tries the activity once within the workflow task, which saves two round trips to Temporal. Only
  for calls that may be made twice, and made for nothing if this worker dies. What takes longer or fails for
  the moment becomes an ordinary activity with the same key: a mandate's own workflow may be waiting for the
  very slot that this task takes up.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypedDict, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, FailureError

with workflow.unsafe.imports_passed_through():
    import workflows.policies as policies

Self = TypeVar("Self")
Argument = TypeVar("Argument")
Result = TypeVar("Result")


class CallOptions(TypedDict):
    """How long an activity may take, how often it is tried, and whose silence it is if nothing comes back."""

    start_to_close_timeout: timedelta
    schedule_to_close_timeout: timedelta | None
    heartbeat_timeout: timedelta | None
    retry_policy: RetryPolicy
    silence: str
    """The kind of failure, such as ``SellerUnavailable``."""


def call_options(
    timeout: timedelta,
    retry: RetryPolicy,
    *,
    silence: str,
    heartbeat: timedelta | None = policies.ACTIVITY_HEARTBEAT_TIMEOUT,
    give_up: timedelta | None = None,
) -> CallOptions:
    """Returns the options of an activity; without ``give_up``, the retry policy alone ends its tries."""
    return CallOptions(
        start_to_close_timeout=timeout,
        schedule_to_close_timeout=give_up,
        heartbeat_timeout=heartbeat,
        retry_policy=retry,
        silence=silence,
    )


class CallFailure(Exception):
    """An activity failed for good. ``kind`` is its error type, ``code`` the peer's or rule's own name."""

    def __init__(self, kind: str, code: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code


async def durable(
    method: Callable[[Self, Argument], Awaitable[Result]], call: Argument, options: CallOptions
) -> Result:
    """Returns the result of an activity of its own.

    Raises:
        CallFailure: it failed for good, or gave no answer in time.
        asyncio.CancelledError: the workflow was canceled.
    """
    asked = workflow.execute_activity_method(
        method,
        call,
        start_to_close_timeout=options["start_to_close_timeout"],
        schedule_to_close_timeout=options["schedule_to_close_timeout"],
        heartbeat_timeout=options["heartbeat_timeout"],
        retry_policy=options["retry_policy"],
    )
    return await settle(asked, silence=options["silence"])


async def quick(
    method: Callable[[Self, Argument], Awaitable[Result]], call: Argument, options: CallOptions
) -> Result:
    """Returns the result of an activity, from within this task if that works immediately.

    Before the second try it waits for the pause that the peer asked for, or else for the policy's first
    interval: an immediate retry would ask a peer that has just said it can't.

    Raises:
        CallFailure: it failed for good, or gave no answer in time.
        asyncio.CancelledError: the workflow was canceled.
    """
    try:
        return await workflow.execute_local_activity_method(
            method,
            call,
            schedule_to_close_timeout=policies.QUICK_CALL_TIMEOUT,
            retry_policy=policies.ONE_ATTEMPT,
        )
    except FailureError as error:
        cause = _cause(error)
        if isinstance(cause, CancelledError):
            raise asyncio.CancelledError from None
        if isinstance(cause, ApplicationError):
            if cause.non_retryable:
                raise _failure(cause) from None
            await workflow.sleep(cause.next_retry_delay or options["retry_policy"].initial_interval)
    return await durable(method, call, options)


async def settle(call: Awaitable[Result], *, silence: str) -> Result:
    """Awaits an activity; turns its failure into ``CallFailure``, and a cancellation into itself.

    ``silence`` is the kind of failure if there is no answer, not even a failure's.
    """
    try:
        return await call
    except FailureError as error:
        cause = _cause(error)
        if isinstance(cause, CancelledError):
            raise asyncio.CancelledError from None
        if isinstance(cause, ApplicationError):
            raise _failure(cause) from None
        raise CallFailure(silence, "no_answer_in_time", "the call got no answer in time") from None


def _cause(error: FailureError) -> BaseException | None:
    """Returns why an activity failed. A local activity's failure comes as it is, without a wrapper."""
    return error.cause if isinstance(error, ActivityError) else error


def _failure(cause: ApplicationError) -> CallFailure:
    code = str(cause.details[0]) if cause.details and cause.details[0] else (cause.type or "failed")
    return CallFailure(cause.type or "Failed", code, cause.message)
