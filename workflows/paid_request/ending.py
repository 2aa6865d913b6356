"""How a paid request ends: what is held is committed or released, and the view says whether money moved."""

from dataclasses import replace

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import activities.contract as contract
    import workflows.paid_request.rules as rules
    from waystation.models.payments import ClosedCredential, PaymentRefusal, RedeemAnswer
    from workflows.calls import CallFailure
    from workflows.paid_request.authorization import PaymentAuthorization
    from workflows.paid_request.credential import PaymentCredential
    from workflows.paid_request.journal import PaymentJournal
    from workflows.paid_request.rules import PaymentRefused
    from workflows.refusals import INTERNAL_ERROR


class PaymentEnding:
    """Settles a credential that was sent, and undoes what was refused on the way."""

    def __init__(
        self, journal: PaymentJournal, authorization: PaymentAuthorization, credential: PaymentCredential
    ) -> None:
        self._journal, self._authorization, self._credential = journal, authorization, credential

    async def settle(self, redeemed: RedeemAnswer | None, closed: ClosedCredential) -> bool:
        """Commits or releases, and ends. Returns whether one more credential is in order instead.

        Raises:
            PaymentRefused: no money moved and there is no answer to hand over.
        """
        journal = self._journal
        self._credential.check_receipt(closed)
        if closed.money_moved != "no":
            await self._authorization.commit(closed)
            self._end(closed)
            return False
        released = await self._authorization.release("the credential moved no money")
        minted = journal.state.credential.minted
        if released and redeemed is not None and rules.may_mint_again(redeemed, closed, minted):
            self._credential.forget()
            journal.refuse(None)
            return True
        if journal.state.result.answer is None:
            raise _nothing_moved(redeemed)
        journal.note("delivered.unpaid", "server", {})
        self._deliver()
        return False

    async def undo(self, refused: PaymentRefused) -> None:
        """Makes sure that nothing can be charged, then gives the room back."""
        journal = self._journal
        journal.note("payment.refused", "waystation", {"rule": refused.rule, "message": str(refused)})
        journal.refuse(refused.as_refusal())
        closed = await self._credential.close_whatever_there_is()
        if closed is not None:
            self._credential.check_receipt(closed)
            if closed.money_moved != "no":
                await self._authorization.commit(closed)
                self._end(closed)
                return
        await self._authorization.release(refused.rule)
        if journal.state.result.answer is not None:  # stopped when it was all but over
            self._deliver()
        else:
            journal.advance(refused.status)

    async def abandon(self) -> None:
        """Ends a payment that can be neither finished nor undone: what may have been paid counts as spent."""
        journal, credential = self._journal, self._journal.state.credential
        if credential.minted:
            unclear = ClosedCredential(money_moved="unknown", source="nobody")
            journal.replace(credential=replace(credential, money_moved="unknown"))
            await self._authorization.commit(unclear)
            self._end(unclear)
            return
        await self._authorization.release("internal_error")
        journal.refuse(PaymentRefusal(rule="internal_error", message=INTERNAL_ERROR))
        journal.advance("failed")

    def _deliver(self) -> None:
        self._journal.refuse(None)
        self._journal.advance("delivered")

    def _end(self, closed: ClosedCredential) -> None:
        """Ends a paid request whose price is spent or counts as spent."""
        if self._journal.state.result.answer is not None:
            self._deliver()
        elif closed.money_moved == "yes":
            message = "the money moved but the server never gave the answer; take it up with the server"
            self._journal.refuse(PaymentRefusal(rule="paid_without_answer", message=message))
            self._journal.advance("undelivered")
        else:
            message = "nobody can say whether money moved; it counts as spent until a person has looked"
            self._journal.refuse(PaymentRefusal(rule="outcome_unknown", message=message))
            self._journal.advance("unknown")


def as_refused(failure: CallFailure) -> PaymentRefused:
    """Returns what a failed call means while nothing was sent."""
    final = (contract.MANDATE_REFUSED, contract.REQUEST_INVALID, contract.CREDENTIAL_NOT_MINTED)
    if failure.kind in final:
        return PaymentRefused(failure.code, str(failure))
    if failure.kind == contract.PAYMENT_METHOD_DECLINED:
        return PaymentRefused("payment_declined", str(failure), "failed")
    rule = {
        contract.SELLER_UNAVAILABLE: "server_unavailable",
        contract.PROCESSOR_UNAVAILABLE: "processor_unavailable",
        contract.PROCESSOR_REFUSED: "processor_refused",
        contract.MANDATE_UNAVAILABLE: "mandate_unavailable",
        contract.SEALING_FAILED: "sealing_failed",
    }.get(failure.kind, "call_failed")
    return PaymentRefused(rule, str(failure), "failed")


def _nothing_moved(redeemed: RedeemAnswer | None) -> PaymentRefused:
    """Returns the end of a request whose credential is known to have moved no money."""
    if redeemed is None:
        return PaymentRefused("server_unavailable", "the server never answered; no money moved", "failed")
    if redeemed.kind == "refused":
        said = redeemed.problem or "no reason given"
        return PaymentRefused(
            "payment_refused", f"the server refused the payment ({said}); no money moved", "failed"
        )
    if redeemed.kind == "redirected":
        message = "the server redirected the paid request; the credential went nowhere else, no money moved"
        return PaymentRefused("redirected", message, "failed")
    return PaymentRefused("answer_too_large", "the answer is too large to take; no money moved", "failed")
