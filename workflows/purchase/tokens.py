"""A purchase's payment tokens: issued for one total and one payee, charged at most once, or revoked.

The processor has the last word. Before a purchase is called unpaid its token is revoked, and the answer to
that tells for sure whether money moved.
"""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Final

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.minting as minting
    import workflows.policies as policies
    import workflows.purchase.calls as purchase_calls
    import workflows.purchase.charges as charges
    from activities.contract import RevokeToken
    from waystation.models.purchases import Charge, IssueToken, PayableCart, PaymentToken
    from workflows.calls import CallFailure
    from workflows.keys import step_key
    from workflows.purchase.journal import Detail, PurchaseJournal
    from workflows.purchase.rules import PurchaseRefusal
    from workflows.purchase.state import MandateFacts


FINDS_WHAT_WAS_ISSUED: Final = "finds what a call without an answer has issued"
"""Purchases of before ended without looking."""


class PurchaseTokens:
    """Holds at most one payment token at a time."""

    def __init__(self, journal: PurchaseJournal) -> None:
        self._journal = journal

    async def fresh(self, payable: PayableCart, mandate: MandateFacts) -> PaymentToken | None:
        """Returns the token at hand if it still serves, else a new one; ``None`` if the old one may be spent.

        It serves if it was issued for exactly this total, payee and checkout, and doesn't end too soon.

        Raises:
            PurchaseRefusal: The processor doesn't say whether a new token can be charged.
        """
        token = self._journal.state.payment.token
        if token is not None and token.status == "active" and self._lasts(token) and self._fits(payable):
            return token
        if await self.retire("it doesn't serve this payment"):
            return None
        return await self._issue(payable, mandate)

    def _lasts(self, token: PaymentToken) -> bool:
        return token.expires_at is None or token.expires_at - workflow.now() > policies.TOKEN_EXPIRY_MARGIN

    def _fits(self, payable: PayableCart) -> bool:
        issued_for = self._journal.state.payment.cart
        return issued_for is not None and issued_for.buys_as(payable)

    async def _issue(self, payable: PayableCart, mandate: MandateFacts) -> PaymentToken:
        journal, payment = self._journal, self._journal.state.payment
        number = payment.issues + 1
        journal.replace(payment=replace(payment, issues=number, cart=payable, charge=None))
        expires_at = min(workflow.now() + policies.TOKEN_LIFETIME, mandate.valid_until)
        call = IssueToken(
            payment_method=mandate.payment_methods[payment.method],
            payee=payable.payee,
            max_amount=payable.total,
            expires_at=expires_at,
            purchase_id=journal.id,
            checkout_id=payable.checkout_id,
            idempotency_key=step_key(journal.id, "issue", number),
        )
        token = await minting.mint(call, partial(purchase_calls.issue_token, journal), self._note_issuing)
        self._keep(token)
        if token.status == "unknown":
            raise PurchaseRefusal(
                "token_state_unknown", "the processor doesn't say whether its token can be charged", "failed"
            )
        return token

    async def read(self, token: PaymentToken) -> PaymentToken:
        """Reads a token anew and keeps it."""
        seen = await purchase_calls.read_token(self._journal, token)
        self._keep(seen)
        return seen

    async def look(self) -> Charge:
        """Asks the processor what was charged to the token at hand, and keeps its word."""
        token = self._journal.state.payment.token
        if token is None:
            return self._journal.state.payment.charge or Charge(status="nothing")
        try:
            return self._take(await purchase_calls.read_token(self._journal, token))
        except CallFailure as failure:
            return self._keep_unknown(failure)

    async def retire(self, why: str) -> bool:
        """Revokes the token at hand, or the one that a call without an answer has made.

        Returns ``True`` if money moved, or if nobody can tell.
        """
        payment = self._journal.state.payment
        token = payment.token if payment.issuing is None else await self._find(payment.issuing)
        if token is None or payment.money_moved:
            return payment.money_moved
        charge = await self._revoke(token, why)
        if charge.status != "nothing":
            return True
        self.put_away()
        return False

    async def settle(self) -> Charge:
        """Asks what was charged to the token of an order; once it has had its time, it is revoked first."""
        payment, completed_at = self._journal.state.payment, self._journal.state.completion.completed_at
        token = payment.token
        if token is None or completed_at is None:
            return await self.look()
        ends = token.expires_at or completed_at + policies.TOKEN_LIFETIME
        if workflow.now() < ends:
            return await self.look()
        return await self._revoke(token, "its time is over")

    def put_away(self) -> None:
        """Forgets a token that can't be charged any more."""
        self._journal.replace(payment=replace(self._journal.state.payment, token=None, proof=None))

    async def _find(self, call: IssueToken) -> PaymentToken | None:
        """Returns the token that a call without an answer has made; ``None`` if none can be charged any more.

        No seller ever had it. So one that can't be found is worthless once its time is over.
        """
        if not workflow.patched(FINDS_WHAT_WAS_ISSUED):
            return None
        try:
            token = await minting.find(call, partial(purchase_calls.find_token, self._journal))
        except CallFailure:
            await workflow.sleep(max(call.expires_at - workflow.now(), timedelta(0)))
            token = None
        self._keep(token)
        return token

    async def _revoke(self, token: PaymentToken, why: str) -> Charge:
        try:
            after = await purchase_calls.revoke_token(self._journal, self._revocation(token), why=why)
        except CallFailure as failure:
            return self._keep_unknown(failure)
        return self._take(after)

    def _take(self, token: PaymentToken) -> Charge:
        """Keeps the processor's word on a token. Money that moved is known to have moved from then on."""
        journal, payment = self._journal, self._journal.state.payment
        charge = charges.charge_of(token)
        if charge != payment.charge:
            facts: Detail = {"status": token.status, "reason": token.deactivated_reason}
            detail: Detail = {"token": token.fingerprint, **facts, "captured": token.captured}
            journal.note("token.charge", "processor", {**detail, "charge": charge.status})
        moved = payment.money_moved or token.is_spent
        journal.replace(payment=replace(payment, token=token, charge=charge, money_moved=moved))
        return charge

    def _revocation(self, token: PaymentToken) -> RevokeToken:
        journal, payment = self._journal, self._journal.state.payment
        number = payment.revokes + 1
        journal.replace(payment=replace(payment, revokes=number))
        return RevokeToken(token=token, idempotency_key=step_key(journal.id, "revoke", number))

    def _note_issuing(self, call: IssueToken | None) -> None:
        self._journal.replace(payment=replace(self._journal.state.payment, issuing=call))

    def _keep(self, token: PaymentToken | None) -> None:
        self._journal.replace(payment=replace(self._journal.state.payment, token=token, issuing=None))

    def _keep_unknown(self, failure: CallFailure) -> Charge:
        """Keeps what follows from an answer that says nothing, or that there is no such token."""
        charge = Charge(status="nothing" if failure.code == "resource_missing" else "unknown")
        payment = self._journal.state.payment
        if not payment.money_moved:
            self._journal.replace(payment=replace(payment, charge=charge))
        return charge
