"""Opens an allowance and pays through it: by a holder in this process, or else by the workflow."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from waystation.buyer.answers import AnswerStore
from waystation.buyer.outcomes import CLOSED, ID_TAKEN, KEY_REUSED, HolderRefusedError, key_is_reused
from waystation.models.decisions import Cancel
from waystation.models.money import Money
from waystation.models.payments import (
    AllowanceAnswer,
    AllowanceOpening,
    AllowancePayment,
    AllowanceStart,
    HeaderPair,
    PaidHttpRequest,
)
from waystation.temporal.calls import Handle, ask, start_workflow, tell, update
from waystation.temporal.digests import began_with
from waystation.temporal.messages import (
    ALLOWANCE,
    ALLOWANCE_ANSWER,
    ALLOWANCE_DIGEST,
    ALLOWANCE_DIGEST_OF,
    ALLOWANCE_PAY,
    ALLOWANCE_SETTLE,
    ALLOWANCE_STATUS,
)

if TYPE_CHECKING:
    from waystation.buyer.allowance.holder import AllowanceHolder
    from waystation.buyer.allowance.journal import AllowanceJournal
    from waystation.buyer.credentials import Credentials


MAX_DIGEST_CHARACTERS: Final = 32
"""Of a payment's digest in the id of its update."""


@dataclass(frozen=True)
class MeansToPay:
    """What a process needs to make an allowance's payments itself."""

    credentials: "Credentials"
    journal: "AllowanceJournal"
    answers: AnswerStore
    transport: httpx.AsyncBaseTransport


class OpenAllowance:
    """An allowance that payments go through, until it is settled."""

    def __init__(
        self, client: Client, allowance_id: str, start: AllowanceStart, holder: "AllowanceHolder | None"
    ) -> None:
        self.id = allowance_id
        self.holder = holder
        self._client = client
        self.start = start

    async def pay(
        self, request: PaidHttpRequest, first_answer: tuple[HeaderPair, ...], *, key: str, max_price: Money
    ) -> AllowanceAnswer:
        """Pays one request; the same ``key`` again gives the same answer.

        Raises:
            HolderRefusedError: Nothing was begun; names the rule.
            RequestInvalidError: The request may not be sent.
        """
        if self.holder is not None:
            return await self.holder.pay(request, first_answer, key=key, max_price=max_price)
        payment = AllowancePayment(key=key, request=request, first_answer=first_answer, max_price=max_price)
        handle = self._client.get_workflow_handle(self.id)
        try:
            answer = await _paid(handle, payment)
        except WorkflowUpdateFailedError as failed:
            cause = failed.cause
            rule = (cause.type if isinstance(cause, ApplicationError) else None) or "AllowanceFailed"
            raise HolderRefusedError(rule, str(cause)) from None
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            made = await ask(handle, ALLOWANCE_ANSWER, key)
            if made is None:
                raise HolderRefusedError(CLOSED, "the allowance has ended; open a new one") from None
            answer = made
            if await ask(handle, ALLOWANCE_DIGEST_OF, key) not in (None, payment.digest()):
                raise HolderRefusedError(KEY_REUSED, key_is_reused(key)) from None
        # A workflow of an earlier release, or Temporal for it, answers whatever the request is now.
        if answer.request_digest != request.digest():
            raise HolderRefusedError(KEY_REUSED, key_is_reused(key))
        return answer

    async def give_back(self) -> None:
        """Reports what was paid. The allowance stays open, for whoever opens it next."""
        if self.holder is not None:
            await self.holder.finish()

    async def settle(self) -> None:
        """Reports for the last time, and lets the workflow commit what was spent."""
        await self.give_back()
        handle = self._client.get_workflow_handle(self.id)
        try:
            await tell(handle, ALLOWANCE_SETTLE, Cancel(by=self.start.agent))
        except RPCError as error:  # it has already ended and settled
            if error.status != RPCStatusCode.NOT_FOUND:
                raise


async def _paid(handle: Handle, payment: AllowancePayment) -> AllowanceAnswer:
    # Another payment under the same key has to reach the workflow, which refuses it.
    digest = payment.digest()[:MAX_DIGEST_CHARACTERS]
    try:
        return await update(handle, ALLOWANCE_PAY, payment, update_id=f"pay-{payment.key}-{digest}")
    except WorkflowUpdateFailedError:
        # Nothing was begun. But Temporal keeps the first answer to an id, and what stood against the payment
        # then (another process paid from the allowance, say) may be over.
        return await update(handle, ALLOWANCE_PAY, payment)


async def open_allowance(
    client: Client,
    allowance_id: str,
    start: AllowanceStart,
    *,
    task_queue: str,
    means: MeansToPay | None,
) -> OpenAllowance:
    """Starts an allowance, or finds the one with this id; with ``means``, this process becomes its holder.

    Raises:
        HolderRefusedError: Another process pays from it, or the id names another allowance.
    """
    try:
        await start_workflow(
            client,
            ALLOWANCE,
            AllowanceOpening(start=start),
            id=allowance_id,
            task_queue=task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            memo={"session_id": start.session_id, "agent": start.agent},
        )
    except WorkflowAlreadyStartedError:
        # This process has died, or somebody else chose the same id. A settled one still returns its answers.
        handle = client.get_workflow_handle(allowance_id)
        view = await ask(handle, ALLOWANCE_STATUS)
        if not await began_with(handle, ALLOWANCE_DIGEST, start, shown=view.start_digest):
            raise HolderRefusedError(
                ID_TAKEN, f"'{allowance_id}' is another allowance; choose another id"
            ) from None
    holder = await _hold(client, allowance_id, start, means) if means else None
    return OpenAllowance(client, allowance_id, start, holder)


async def _hold(
    client: Client, allowance_id: str, start: AllowanceStart, means: MeansToPay
) -> "AllowanceHolder":
    # Only a process that makes its own payments needs the payment libraries.
    from waystation.buyer.allowance.holder import AllowanceHolder
    from waystation.buyer.allowance.lease import report_what_was_left
    from waystation.buyer.http import PaidHttp

    await means.journal.open()
    http = PaidHttp(answers=means.answers, transport=means.transport)
    await report_what_was_left(
        client, journal=means.journal, http=http, credentials=means.credentials, but=allowance_id
    )
    holder = AllowanceHolder(
        client, allowance_id, start, journal=means.journal, http=http, credentials=means.credentials
    )
    try:
        await holder.open()
    except HolderRefusedError as refused:
        if refused.rule != CLOSED:  # a closed one still returns the answers that this machine has
            raise
    return holder
