"""One credential: minted, sent (the same one again after a lost answer), and what became of it."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.minting as minting
    import workflows.paid_request.calls as calls
    import workflows.policies as policies
    from activities.contract import CloseCall, RedeemCall
    from waystation.models.base import replaced
    from waystation.models.mandates import ReserveAnswer
    from waystation.models.payments import (
        ClosedCredential,
        MintCall,
        Offer,
        PaymentRefusal,
        Rail,
        RedeemAnswer,
        SealedCredential,
    )
    from workflows.calls import CallFailure
    from workflows.keys import step_key
    from workflows.paid_request.inbox import PaymentInbox
    from workflows.paid_request.journal import PaymentJournal
    from workflows.paid_request.rules import PaymentRefused
    from workflows.paid_request.state import PinnedTerms


class PaymentCredential:
    """The only place where a credential comes into being, leaves, and is asked about."""

    def __init__(self, journal: PaymentJournal, inbox: PaymentInbox) -> None:
        self._journal, self._inbox = journal, inbox

    async def spend(
        self, terms: PinnedTerms, reserved: ReserveAnswer
    ) -> tuple[RedeemAnswer | None, ClosedCredential]:
        """Mints one credential, sends it until there is an answer, and finds out what became of it."""
        self._inbox.raise_if_stopped()
        journal = self._journal
        minted = journal.state.credential.minted + 1
        journal.replace(terms=terms, credential=replace(journal.state.credential, minted=minted))
        journal.advance("paying")
        credential = await self._mint(terms.offer, reserved)
        self._inbox.raise_if_stopped()
        journal.replace(credential=replace(journal.state.credential, sent=True))
        redeemed = await self._redeem(terms.offer, credential)
        journal.advance("confirming")
        closed = await self.close(terms.offer, credential)
        if closed.money_moved == "yes" and redeemed is None:
            # Paid, and the answer is owed: the same credential, patiently.
            redeemed = await self._redeem(terms.offer, credential, patiently=True)
        return redeemed, closed

    async def close(self, offer: Offer, credential: SealedCredential) -> ClosedCredential:
        """Returns the processor's or chain's word. A signed authorization is waited out where need be."""
        journal, known = self._journal, self._journal.state.credential.closed
        if known is not None:  # a final word stays, whatever a second question would bring
            return known
        key = step_key(journal.id, "close", journal.state.credential.minted)
        call = CloseCall(offer=offer, credential=credential, key=key)
        closed = await self._ask_what_became(call)
        unanswered = closed.money_moved == "unknown" and journal.state.result.answer is None
        if unanswered and credential.valid_before is not None:
            remaining = credential.valid_before - workflow.now() + policies.AUTHORIZATION_MARGIN
            if remaining > timedelta(0):
                journal.refuse(
                    PaymentRefusal(
                        rule="payment_not_answered",
                        message="the server didn't deliver; "
                        "whether money moved is known when the signature ends",
                    )
                )
                await workflow.sleep(remaining)
            closed = await self._ask_what_became(call)
        final = None if closed.money_moved == "unknown" else closed
        journal.replace(
            credential=replace(journal.state.credential, money_moved=closed.money_moved, closed=final)
        )
        detail = {"money_moved": closed.money_moved, "amount": closed.amount}
        journal.note("credential.closed", closed.source, detail)
        return closed

    async def close_whatever_there_is(self) -> ClosedCredential | None:
        """Closes the credential that somebody could charge; ``None`` if there is none.

        One that was perhaps made, because the call for it had no answer, is found by asking again. A token
        may be charged even unsent, a signature only once it was sent.
        """
        state = self._journal.state
        credential, minting, terms = state.credential.current, state.credential.minting, state.terms
        if terms is None:
            return None
        if credential is None and minting is not None and terms.offer.rail is Rail.MPP_STRIPE:
            found = await self._find_minted(minting)
            if isinstance(found, ClosedCredential):
                return found
            credential = found
        if credential is None or not (state.credential.sent or credential.is_token):
            return None
        return await self.close(terms.offer, credential)

    def check_receipt(self, closed: ClosedCredential) -> None:
        """Sets the word of processor or chain against an unsigned receipt, which is the server's."""
        result = self._journal.state.result
        if result.receipt is None or closed.source == "nobody":
            return
        matches = closed.money_moved == "yes" if result.receipt.status == "success" else False
        receipt = replaced(result.receipt, matches_payment=matches)
        self._journal.replace(result=replace(result, receipt=receipt))

    def forget(self) -> None:
        """Puts a worthless credential away, so that another one may be minted."""
        journal = self._journal
        journal.replace(credential=replace(journal.state.credential, current=None, sent=False, closed=None))

    async def _mint(self, offer: Offer, reserved: ReserveAnswer) -> SealedCredential:
        journal, start = self._journal, self._journal.start
        method, minted = start.payment_method, journal.state.credential.minted
        if method is not None and method not in reserved.payment_methods:
            raise PaymentRefused("payment_method_not_allowed", "the mandate doesn't name this payment method")
        at_once = minted == 1 and not reserved.approval_required
        at = workflow.info().start_time if at_once else workflow.now()
        call = MintCall(
            offer=offer,
            payment_id=journal.id,
            key=step_key(journal.id, "mint", minted),
            at=at,
            expires_at=min(at + policies.CREDENTIAL_LIFETIME, reserved.valid_until),
            payment_method=method or next(iter(reserved.payment_methods), None),
        )
        make = calls.mint_once_local if at_once else calls.mint
        credential = await minting.mint(call, partial(make, journal), self._note_minting)
        self._keep(credential)
        return credential

    def _note_minting(self, call: MintCall | None) -> None:
        journal = self._journal
        journal.replace(credential=replace(journal.state.credential, minting=call))

    def _keep(self, credential: SealedCredential) -> None:
        journal = self._journal
        journal.replace(credential=replace(journal.state.credential, current=credential, minting=None))

    async def _find_minted(self, call: MintCall) -> SealedCredential | ClosedCredential:
        """Returns the credential that a call without an answer has made, or what is known without it."""
        journal = self._journal
        try:
            credential = await minting.find(call, partial(calls.find_minted, journal))
        except CallFailure:
            journal.replace(credential=replace(journal.state.credential, money_moved="unknown"))
            return ClosedCredential(money_moved="unknown", source="nobody")
        if credential is None:
            return ClosedCredential(money_moved="no", source="nobody")
        self._keep(credential)
        return credential

    async def _redeem(
        self, offer: Offer, credential: SealedCredential, *, patiently: bool = False
    ) -> RedeemAnswer | None:
        """Returns what came back for the credential; ``None`` when nothing did."""
        journal, state = self._journal, self._journal.state
        key = step_key(journal.id, "request", state.credential.minted)
        call = RedeemCall(request=state.request, offer=offer, credential=credential, key=key)
        try:
            redeemed = await calls.redeem(journal, call, patiently=patiently)
        except CallFailure:
            return None
        answer, receipt = redeemed.answer, redeemed.receipt
        journal.replace(result=replace(journal.state.result, answer=answer, receipt=receipt))
        return redeemed

    async def _ask_what_became(self, call: CloseCall) -> ClosedCredential:
        try:
            return await calls.close(self._journal, call)
        except CallFailure:
            return ClosedCredential(money_moved="unknown", source="nobody")
