"""Calls of activities from workflows that move money; their contract.

A call that leaves the house, for a seller or a processor, is a ``PeerCall``: the only way out, and it writes
into the trail what came back. ``durable`` takes calls within the house only.

Each call is an activity of its own: what led to it is in the history before it begins. None is a local
activity. Where a query comes with a workflow task and a local activity ends before the query is answered,
Temporal's SDK tells the workflow of the result after the next task's signals and updates, and in a replay
before them; the workflow then stands still. Workflows that began with local activities (``once_local``) go on
with them, as their histories say, until they end or continue as new.
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


NO_LOCAL_ACTIVITIES: Final = "no-local-activities"
"""The patch by which workflows that began with local activities go on with them."""

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
    once_local: bool = False
    """Whether histories of earlier releases hold it as a local activity (``once_local``)."""
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
            answer = await (_once_local if self.once_local else _durable)(self.method, call, options)
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


async def once_local(
    method: Callable[[Self, Argument], Awaitable[Result]], call: Argument, options: CallOptions
) -> Result:
    """As ``durable``, for calls that histories of earlier releases hold as local activities.

    Raises:
        CallFailure: it failed for good, or gave no answer in time.
        asyncio.CancelledError: the workflow was canceled.
    """
    return await _once_local(method, call, options)


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


async def _once_local(
    method: Callable[[Self, Argument], Awaitable[Result]], call: Argument, options: CallOptions
) -> Result:
    if workflow.patched(NO_LOCAL_ACTIVITIES):
        return await _durable(method, call, options)
    try:
        return await workflow.execute_local_activity_method(
            method,
            call,
            schedule_to_close_timeout=policies.LOCAL_CALL_TIMEOUT,
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
