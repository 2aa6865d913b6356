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
    from workflows.calls import call_options, durable, once_local

_MANDATE: Final = call_options(
    policies.MANDATE_CALL_TIMEOUT, policies.MANDATE_CALL_RETRY, silence=MANDATE_UNAVAILABLE
)


async def read(mandate_id: str) -> MandateView:
    """Returns the mandate as it stands."""
    return await once_local(MandateCalls.read_mandate, MandateQuestion(mandate_id=mandate_id), _MANDATE)


async def reserve(call: ReserveFor) -> ReserveAnswer:
    """Sets an amount aside. The key is in the history before any room is taken under it."""
    return await durable(MandateCalls.reserve_from_mandate, call, _MANDATE)


async def reserve_for_moments(call: ReserveFor) -> ReserveAnswer:
    """As ``reserve``, where earlier releases reserved within the task.

    There the call may be made twice: its key must be the same in every replay of this task.
    """
    return await once_local(MandateCalls.reserve_from_mandate, call, _MANDATE)


async def confirm(call: ReserveFor) -> ReserveAnswer:
    """Sends the same request once more, to see that the reservation still stands."""
    return await once_local(MandateCalls.reserve_from_mandate, call, _MANDATE)


async def commit(call: CommitFor) -> Reservation:
    """Records what was spent. The same key commits once."""
    return await once_local(MandateCalls.commit_to_mandate, call, _MANDATE)


async def release(call: ReleaseFor) -> Reservation | None:
    """Gives room back; ``None`` if the mandate has ended. A released key reserves nothing any more."""
    return await durable(MandateCalls.release_to_mandate, call, _MANDATE)


async def refund(call: RefundFor) -> Reservation | None:
    """Tells the mandate what has come back; ``None`` if it has ended."""
    return await once_local(MandateCalls.refund_to_mandate, call, _MANDATE)
