"""What purchases, paid requests and allowances ask of a mandate."""

from typing import Final

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.policies as policies
    from activities.contract import (
        MANDATE_UNAVAILABLE,
        CommitFor,
        MandateCalls,
        MandateQuestion,
        RefundFor,
        ReleaseFor,
        ReserveFor,
    )
    from waystation.models.mandates import MandateView, Reservation, ReserveAnswer
    from workflows.calls import call_options, durable, quick

_MANDATE: Final = call_options(
    policies.MANDATE_CALL_TIMEOUT, policies.MANDATE_CALL_RETRY, silence=MANDATE_UNAVAILABLE
)


async def read(mandate_id: str) -> MandateView:
    """Returns the mandate as it stands."""
    return await quick(MandateCalls.read_mandate, MandateQuestion(mandate_id=mandate_id), _MANDATE)


async def reserve(call: ReserveFor) -> ReserveAnswer:
    """Sets an amount aside. Durable: the key must be in the history before any room is taken under it."""
    return await durable(MandateCalls.reserve_from_mandate, call, _MANDATE)


async def reserve_for_moments(call: ReserveFor) -> ReserveAnswer:
    """Sets an amount aside, within the task where that is possible.

    For keys that are the same in every replay of this task: should the worker die, the next one asks with the
    same key again.
    """
    return await quick(MandateCalls.reserve_from_mandate, call, _MANDATE)


async def confirm(call: ReserveFor) -> ReserveAnswer:
    """Sends the same request once more, to see that the reservation still stands."""
    return await quick(MandateCalls.reserve_from_mandate, call, _MANDATE)


async def commit(call: CommitFor) -> Reservation:
    """Records what was spent. Quick: that it was spent is durable, and the same key commits once."""
    return await quick(MandateCalls.commit_to_mandate, call, _MANDATE)


async def release(call: ReleaseFor) -> Reservation | None:
    """Gives room back; ``None`` if the mandate has ended.

    Durable: should the worker die before this task is, what comes next may want the room after all, and a
    released key reserves nothing any more.
    """
    return await durable(MandateCalls.release_to_mandate, call, _MANDATE)


async def refund(call: RefundFor) -> Reservation | None:
    """Tells the mandate what has come back; ``None`` if it has ended."""
    return await quick(MandateCalls.refund_to_mandate, call, _MANDATE)
