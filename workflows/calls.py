"""Calls of activities from workflows that move money: within the task or durably; their contract.

A call that leaves the house, for a seller or a processor, is a ``PeerCall``: the only way out, and it writes
into the trail what came back. The functions below take calls within the house only.

- ``durable`` is an activity of its own: what led to it is in the history before it begins. For what moves
  money or room.
- ``quick`` tries the activity once within the workflow task, which saves two round trips to Temporal. Only
  for calls that may be made twice, and made for nothing if this worker dies. What takes longer or fails for
  the moment becomes an ordinary activity with the same key: a mandate's own workflow may be waiting for the
  very slot that this task takes up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Generic, Literal, Protocol, TypedDict, TypeVar

from pydantic import JsonValue
from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, FailureError

with workflow.unsafe.imports_passed_through():
    import activities.contract as contract
    import workflows.policies as policies

Self = TypeVar("Self")
Argument = TypeVar("Argument")
Result = TypeVar("Result")


Detail = Mapping[str, JsonValue]
House = Literal["MandateUnavailable", "HouseUnavailable"]
Peer = Literal["seller", "processor", "server"]
"""Who is outside; ``server``: a seller that is paid by HTTP 402."""

_SILENCE: Final[Mapping[Peer, str]] = {
    "seller": contract.SELLER_UNAVAILABLE,
    "server": contract.SELLER_UNAVAILABLE,
    "processor": contract.PROCESSOR_UNAVAILABLE,
}


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
    silence: House,
) -> CallOptions:
    """Returns the options of a call within the house; the retry policy alone ends its tries."""
    return _options(timeout, retry, silence, policies.ACTIVITY_HEARTBEAT_TIMEOUT, None)


def _options(
    timeout: timedelta,
    retry: RetryPolicy,
    silence: str,
    heartbeat: timedelta,
    give_up: timedelta | None,
) -> CallOptions:
    return CallOptions(
        start_to_close_timeout=timeout,
        schedule_to_close_timeout=give_up,
        heartbeat_timeout=heartbeat,
        retry_policy=retry,
        silence=silence,
    )


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """The options of a call that leaves the house, and whom it asks."""

    peer: Peer
    call: CallOptions


def peer_options(
    timeout: timedelta,
    retry: RetryPolicy,
    *,
    peer: Peer,
    heartbeat: timedelta = policies.ACTIVITY_HEARTBEAT_TIMEOUT,
    give_up: timedelta | None = None,
) -> PeerOptions:
    """Returns the options of a call to a peer; without ``give_up``, the retry policy alone ends its tries."""
    return PeerOptions(peer, _options(timeout, retry, _SILENCE[peer], heartbeat, give_up))


class CallFailure(Exception):
    """An activity failed for good. ``kind`` is its error type, ``code`` the peer's or rule's own name."""

    def __init__(self, kind: str, code: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code


class Witness(Protocol):
    """Keeps a trail."""

    def note_call(self, action: str, actor: str, detail: Detail) -> None:
        """Adds a call's answer; one that says the same again is counted."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCall(Generic[Self, Argument, Result]):
    """A call to a seller or a processor, with the names of what the trail says of it."""

    method: Callable[[Self, Argument], Awaitable[Result]]
    options: PeerOptions
    is_quick: bool = False
    """Whether it is tried within the task first (``quick``)."""
    asked: str | None = None
    """The entry before it is sent, for what moves money there and then."""
    answered: str
    failed: str

    async def make(
        self,
        witness: Witness,
        call: Argument,
        *,
        heard: Callable[[Result], Detail],
        about: Detail | None = None,
    ) -> Result:
        """Makes the call. However it ends, that is in the trail.

        Args:
            witness: keeps the trail.
            call: what is asked.
            heard: what an answer says, for its entry.
            about: what all entries of this call say.

        Raises:
            CallFailure: it failed for good, or gave no answer in time.
            asyncio.CancelledError: the workflow was canceled.
        """
        about, peer, options = about or {}, self.options.peer, self.options.call
        if self.asked is not None:
            witness.note_call(self.asked, "waystation", about)
        try:
            answer = await (_quick if self.is_quick else _durable)(self.method, call, options)
        except CallFailure as failure:
            why = {"kind": failure.kind, "code": failure.code, "message": str(failure)}
            witness.note_call(self.failed, peer, {**about, **why})
            raise
        except asyncio.CancelledError:
            witness.note_call(self.failed, peer, {**about, "kind": "canceled"})
            raise
        witness.note_call(self.answered, peer, {**about, **heard(answer)})
        return answer


async def durable(
    method: Callable[[Self, Argument], Awaitable[Result]], call: Argument, options: CallOptions
) -> Result:
    """Returns the result of an activity of its own, within the house.

    Raises:
        CallFailure: it failed for good, or gave no answer in time.
        asyncio.CancelledError: the workflow was canceled.
    """
    return await _durable(method, call, options)


async def quick(
    method: Callable[[Self, Argument], Awaitable[Result]], call: Argument, options: CallOptions
) -> Result:
    """Returns the result of an activity, within the house and, if that works immediately, within this task.

    Raises:
        CallFailure: it failed for good, or gave no answer in time.
        asyncio.CancelledError: the workflow was canceled.
    """
    return await _quick(method, call, options)


async def _durable(
    method: Callable[[Self, Argument], Awaitable[Result]], call: Argument, options: CallOptions
) -> Result:
    asked = workflow.execute_activity_method(
        method,
        call,
        start_to_close_timeout=options["start_to_close_timeout"],
        schedule_to_close_timeout=options["schedule_to_close_timeout"],
        heartbeat_timeout=options["heartbeat_timeout"],
        retry_policy=options["retry_policy"],
    )
    return await settle(asked, silence=options["silence"])


async def _quick(
    method: Callable[[Self, Argument], Awaitable[Result]], call: Argument, options: CallOptions
) -> Result:
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
            # An immediate retry would ask a peer that has just said it can't.
            await workflow.sleep(cause.next_retry_delay or options["retry_policy"].initial_interval)
    return await _durable(method, call, options)


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
