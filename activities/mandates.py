"""Activities between a payment and its mandate: reserve, commit, release, and who still holds what.

All are idempotent by the reservation's key, which the caller derives from its workflow id.
"""

import asyncio
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities.contract import (
    MANDATE_REFUSED,
    MANDATE_UNAVAILABLE,
    CommitFor,
    HolderQuestion,
    MandateCalls,
    MandateQuestion,
    RefundFor,
    ReleaseFor,
    ReserveFor,
)
from activities.heartbeats import heartbeating
from waystation.models.mandates import MandateView, Reservation, ReserveAnswer
from waystation.temporal.calls import ask, update
from waystation.temporal.messages import (
    MANDATE_BALANCE,
    MANDATE_COMMIT,
    MANDATE_REFUND,
    MANDATE_RELEASE,
    MANDATE_RESERVE,
    MANDATE_STANDING,
)
from waystation.temporal.tokens import UpdateName

Argument = TypeVar("Argument")
Result = TypeVar("Result")

MAX_UPDATES_AT_ONCE: Final = 4
"""The most updates under way to one mandate from one worker."""


class MandateActivities(MandateCalls):
    """Talks to Mandate workflows through the Temporal client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def _turn(self, mandate_id: str) -> asyncio.Semaphore:
        """Returns a turn at a mandate: Temporal refuses more than ten updates of one workflow at a time."""
        turn = self._turns.get(mandate_id)
        if turn is None:
            turn = self._turns[mandate_id] = asyncio.Semaphore(MAX_UPDATES_AT_ONCE)
        return turn

    @activity.defn
    @heartbeating
    async def read_mandate(self, question: MandateQuestion) -> MandateView:
        """Returns the mandate as it stands, without its reservations.

        Raises:
            ApplicationError: There is none; type ``MandateRefused``, final.
        """
        handle = self._client.get_workflow_handle(question.mandate_id)
        try:
            standing = await ask(handle, MANDATE_STANDING)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                raise _not_found(question.mandate_id) from None
            raise
        return standing

    @activity.defn
    @heartbeating
    async def reserve_from_mandate(self, call: ReserveFor) -> ReserveAnswer:
        """Reserves an amount, or confirms its reservation.

        Raises:
            ApplicationError: The mandate refused; type ``MandateRefused``, final, with the rule's name.
        """
        try:
            return await self._update(call.mandate_id, MANDATE_RESERVE, call.request)
        except _MandateGoneError:
            raise _not_found(call.mandate_id) from None

    @activity.defn
    @heartbeating
    async def commit_to_mandate(self, call: CommitFor) -> Reservation:
        """Records what was spent."""
        try:
            return await self._update(call.mandate_id, MANDATE_COMMIT, call.request)
        except _MandateGoneError:
            return await self._read_settled(call.mandate_id, call.request.key, "committed")

    @activity.defn
    @heartbeating
    async def refund_to_mandate(self, call: RefundFor) -> Reservation | None:
        """Records what has come back. A mandate that has ended takes nothing back."""
        try:
            return await self._update(call.mandate_id, MANDATE_REFUND, call.request)
        except _MandateGoneError:
            return None

    @activity.defn
    @heartbeating
    async def release_to_mandate(self, call: ReleaseFor) -> Reservation | None:
        """Releases room. A mandate that has ended needs nothing back."""
        try:
            return await self._update(call.mandate_id, MANDATE_RELEASE, call.request)
        except _MandateGoneError:
            return None

    @activity.defn
    @heartbeating
    async def holder_is_running(self, question: HolderQuestion) -> bool:
        """Returns whether the workflow that holds a reservation is still open."""
        try:
            description = await self._client.get_workflow_handle(question.workflow_id).describe()
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return False
            raise
        return description.status == WorkflowExecutionStatus.RUNNING

    async def _update(self, mandate_id: str, name: UpdateName[Argument, Result], request: Argument) -> Result:
        handle = self._client.get_workflow_handle(mandate_id)
        try:
            async with self._turn(mandate_id):
                return await update(handle, name, request)
        except WorkflowUpdateFailedError as failed:
            raise _final(failed) from None
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                raise _MandateGoneError(mandate_id) from None
            raise

    async def _read_settled(self, mandate_id: str, key: str, state: str) -> Reservation:
        """Returns a reservation from an ended mandate's last balance, for a commit whose answer was lost."""
        handle = self._client.get_workflow_handle(mandate_id)
        balance = await ask(handle, MANDATE_BALANCE)
        for reservation in balance.reservations:
            if reservation.key == key and reservation.state == state:
                return reservation
        raise ApplicationError(
            f"mandate {mandate_id} has ended and does not know the payment {key}; an operator has to look",
            "mandate_ended",
            type=MANDATE_REFUSED,
            non_retryable=True,
        )


class _MandateGoneError(Exception):
    """The mandate's workflow is closed or never existed."""


def _not_found(mandate_id: str) -> ApplicationError:
    return ApplicationError(
        f"there is no open mandate {mandate_id}; ask for one",
        "mandate_not_found",
        type=MANDATE_REFUSED,
        non_retryable=True,
    )


def _final(failed: WorkflowUpdateFailedError) -> ApplicationError:
    cause = failed.cause
    if isinstance(cause, ApplicationError) and cause.type == MANDATE_REFUSED:
        return ApplicationError(cause.message, *cause.details, type=MANDATE_REFUSED, non_retryable=True)
    # The only other way for an update to fail is for the mandate to end in the meantime.
    return ApplicationError(
        "the mandate did not take the update; it is tried again", type=MANDATE_UNAVAILABLE
    )
