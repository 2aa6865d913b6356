"""What a purchase and its mandate say to each other: reserve, commit, release, refund."""

from dataclasses import replace
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.mandate.calls as mandates
    import workflows.policies as policies
    import workflows.purchase.rules as rules
    from activities.contract import CommitFor, RefundFor, ReleaseFor, ReserveFor
    from waystation.models.mandates import (
        CommitRequest,
        HeldReservation,
        RefundRequest,
        ReleaseRequest,
        ReserveAnswer,
        ReserveRequest,
    )
    from waystation.models.money import Money
    from waystation.models.purchases import PayableCart
    from workflows.calls import CallFailure
    from workflows.keys import step_key
    from workflows.purchase.journal import Detail, PurchaseJournal
    from workflows.purchase.state import MandateFacts


class PurchaseAuthorization:
    """Holds room in the mandate, and settles it: each reservation is committed or released."""

    def __init__(self, journal: PurchaseJournal) -> None:
        self._journal = journal

    def mandate(self) -> MandateFacts:
        """Returns what the mandate said, where it must have been asked."""
        mandate = self._journal.state.authorization.mandate
        if mandate is None:
            raise RuntimeError("the mandate was not asked yet")
        return mandate

    async def check(self) -> None:
        """Asks whether the mandate is fit for the request, before the seller learns of it.

        Raises:
            PurchaseRefusal: naming the rule of the mandate that stands against it.
        """
        request = self._journal.state.request
        rules.check_request(request, await mandates.read(request.mandate_id))

    async def reserve(self, payable: PayableCart) -> None:
        """Reserves, or has the reservation confirmed; both are the same request to the mandate."""
        total = payable.total
        journal, authorization = self._journal, self._journal.state.authorization
        held = authorization.reservation is not None
        number = authorization.reservations if held else authorization.reservations + 1
        key = step_key(journal.id, "reserve", number)
        # Written down before it is sent: whatever happens now, this key gets released in the end.
        reservation = HeldReservation(key=key, amount=total, digest=payable.digest)
        journal.replace(authorization=replace(authorization, reservation=reservation, reservations=number))
        ask = mandates.confirm if held else mandates.reserve
        answer = await ask(self._reserve_call(reservation, payable))
        facts = _facts(answer)
        journal.replace(authorization=replace(journal.state.authorization, mandate=facts))
        if not held:
            detail: Detail = {"key": key, "amount": total.amount, "currency": total.currency}
            journal.note("mandate.reserved", "mandate", detail)

    async def commit(self, spent: Money) -> None:
        """Records in the mandate what was spent of the amount held. If it refuses, that stays on record."""
        journal, held = self._journal, self._journal.state.authorization.reservation
        if held is None:
            return
        request = CommitRequest(key=held.key, amount=spent.amount)
        call = CommitFor(mandate_id=journal.state.request.mandate_id, request=request)
        try:
            settled = await mandates.commit(call)
        except CallFailure as failure:
            detail: Detail = {"key": held.key, "amount": spent.amount, "code": failure.code}
            journal.note("mandate.commit_refused", "mandate", detail)
            return
        journal.note("mandate.committed", "mandate", {"key": held.key, "amount": settled.spent})
        committed = HeldReservation(key=held.key, amount=spent, digest=held.digest)
        authorization = journal.state.authorization
        journal.replace(authorization=replace(authorization, reservation=None, committed=committed))

    async def release_other_than(self, payable: PayableCart) -> None:
        """Releases what is held for another cart: the mandate's constraints were checked for that one."""
        held = self._journal.state.authorization.reservation
        if held is not None and (held.amount, held.digest) != (payable.total, payable.digest):
            await self._release(held, "the cart changed")

    async def release(self, why: str) -> None:
        """Releases what is held. If the mandate refuses, that stays on record."""
        held = self._journal.state.authorization.reservation
        if held is None:
            return
        try:
            await self._release(held, why)
        except CallFailure as failure:
            detail = {"key": held.key, "code": failure.code}
            self._journal.note("mandate.release_refused", "mandate", detail)

    async def _release(self, held: HeldReservation, why: str) -> None:
        journal = self._journal
        request = ReleaseRequest(key=held.key, reason=why)
        await mandates.release(ReleaseFor(mandate_id=journal.state.request.mandate_id, request=request))
        detail: Detail = {"key": held.key, "amount": held.amount.amount, "why": why}
        journal.note("mandate.released", "mandate", detail)
        journal.replace(authorization=replace(journal.state.authorization, reservation=None))

    def owes_refund(self) -> bool:
        """Whether the seller says that more has come back than the mandate was told."""
        refunded = self._refunded()
        return refunded is not None and self._journal.state.authorization.refunded < refunded

    async def tell_of_refund(self) -> None:
        """Tells the mandate what has come back, if that is more than before."""
        journal, authorization = self._journal, self._journal.state.authorization
        paid, refunded = authorization.committed, self._refunded()
        if paid is None or refunded is None or refunded <= authorization.refunded:
            return
        journal.replace(authorization=replace(authorization, refunded=refunded))
        call = RefundFor(
            mandate_id=journal.state.request.mandate_id,
            request=RefundRequest(key=paid.key, amount=refunded.amount),
        )
        try:
            settled = await mandates.refund(call)
        except CallFailure as failure:
            journal.note("mandate.refund_refused", "mandate", {"key": paid.key, "code": failure.code})
            return
        detail: Detail = {"key": paid.key, "refunded": refunded.amount}
        journal.note("mandate.refunded" if settled else "mandate.refund_without_effect", "mandate", detail)

    def _refunded(self) -> Money | None:
        paid, order = self._journal.state.authorization.committed, self._journal.state.completion.order
        return None if paid is None or order is None else rules.refunded_total(order, paid.amount)

    def _reserve_call(self, reservation: HeldReservation, payable: PayableCart) -> ReserveFor:
        request = self._journal.state.request
        hold = timedelta(seconds=request.approval_timeout_seconds) + policies.HOLD_MARGIN
        return ReserveFor(
            mandate_id=request.mandate_id,
            request=ReserveRequest(
                key=reservation.key,
                amount=reservation.amount,
                seller=request.seller,
                agent=request.agent.id,
                protocol="acp",
                hold_seconds=int(hold.total_seconds()),
                holder=self._journal.id,
                item_ids=payable.item_ids,
                ship_to_country=payable.ship_to_country,
                is_sent=payable.is_sent,
            ),
        )


def _facts(answer: ReserveAnswer) -> MandateFacts:
    return MandateFacts(
        approval_required=answer.approval_required,
        approvers=answer.approvers,
        owner=answer.owner,
        payment_methods=answer.payment_methods,
        valid_until=answer.valid_until,
    )
