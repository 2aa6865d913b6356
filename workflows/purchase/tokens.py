"""A purchase's payment tokens: issued for one total and one payee, charged at most once, or revoked.

The processor has the last word. Before a purchase is called unpaid its token is revoked, and the answer to
that tells for sure whether money moved.
"""

from dataclasses import replace

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.policies as policies
    import workflows.purchase.calls as purchase_calls
    from activities.contract import IssueToken, RevokeToken
    from waystation.models.purchases import PayableCart, PaymentToken
    from workflows.calls import CallFailure
    from workflows.keys import step_key
    from workflows.purchase.journal import PurchaseJournal
    from workflows.purchase.state import MandateFacts


class PurchaseTokens:
    """Holds at most one payment token at a time."""

    def __init__(self, journal: PurchaseJournal) -> None:
        self._journal = journal

    async def fresh(self, payable: PayableCart, mandate: MandateFacts) -> PaymentToken | None:
        """Returns the token at hand if it still serves, else a new one; ``None`` if the old one is spent."""
        token = self._journal.state.payment.token
        if token is not None:
            lasts = (
                token.expires_at is None or token.expires_at - workflow.now() > policies.TOKEN_EXPIRY_MARGIN
            )
            if token.status == "active" and lasts:
                return token
            if await self.retire("it is about to expire"):
                return None
        return await self._issue(payable, mandate)

    async def _issue(self, payable: PayableCart, mandate: MandateFacts) -> PaymentToken:
        journal, payment = self._journal, self._journal.state.payment
        number = payment.issues + 1
        journal.replace(payment=replace(payment, issues=number, cart=payable))
        expires_at = min(workflow.now() + policies.TOKEN_LIFETIME, mandate.valid_until)
        token = await purchase_calls.issue_token(
            IssueToken(
                payment_method=mandate.payment_methods[payment.method],
                payee=payable.payee,
                max_amount=payable.total,
                expires_at=expires_at,
                purchase_id=journal.id,
                checkout_id=payable.checkout_id,
                idempotency_key=step_key(journal.id, "issue", number),
            )
        )
        self._keep(token)
        journal.note(
            "token.issued",
            "processor",
            {
                "token": token.fingerprint,
                "max_amount": payable.total.amount,
                "currency": payable.total.currency,
                "payee": payable.payee,
                "expires_at": expires_at.isoformat(),
                "request_id": token.request_id,
            },
        )
        return token

    async def read(self, token: PaymentToken) -> PaymentToken:
        """Reads a token anew and keeps it."""
        seen = await purchase_calls.read_token(token)
        self._keep(seen)
        return seen

    async def retire(self, why: str) -> bool:
        """Revokes the token at hand. Returns ``True`` if money moved, or if nobody can tell."""
        journal, payment = self._journal, self._journal.state.payment
        token = payment.token
        if token is None or payment.money_moved:
            return payment.money_moved
        try:
            after = await purchase_calls.revoke_token(self._revocation(token))
        except CallFailure as failure:
            self._note_unknown(token, failure)
            if failure.code == "resource_missing":
                self._keep(None)
                return False
            return True
        detail = {"token": token.fingerprint, "status": after.status, "reason": after.deactivated_reason}
        journal.note("token.retired", "waystation", {**detail, "why": why, "request_id": after.request_id})
        if after.is_spent:
            journal.replace(payment=replace(journal.state.payment, money_moved=True))
            return True
        journal.replace(payment=replace(journal.state.payment, token=None, proof=None))
        return False

    async def settle(self) -> None:
        """Sees that no token stays open: one that is not charged by its end is revoked."""
        token = self._journal.state.payment.token
        if token is None:
            return
        try:
            seen = await purchase_calls.read_token(token)
            if (
                seen.status != "deactivated"
                and seen.expires_at is not None
                and seen.expires_at > workflow.now()
            ):
                await workflow.sleep(seen.expires_at - workflow.now())
            if seen.status != "deactivated":
                seen = await purchase_calls.revoke_token(self._revocation(token))
        except CallFailure as failure:
            self._note_unknown(token, failure)
            return
        detail = {"token": token.fingerprint, "status": seen.status, "reason": seen.deactivated_reason}
        self._journal.note("token.settled", "processor", {**detail, "captured": seen.captured})
        self._keep(None)

    def _revocation(self, token: PaymentToken) -> RevokeToken:
        journal, payment = self._journal, self._journal.state.payment
        number = payment.revokes + 1
        journal.replace(payment=replace(payment, revokes=number))
        return RevokeToken(token=token, idempotency_key=step_key(journal.id, "revoke", number))

    def _keep(self, token: PaymentToken | None) -> None:
        self._journal.replace(payment=replace(self._journal.state.payment, token=token))

    def _note_unknown(self, token: PaymentToken, failure: CallFailure) -> None:
        detail = {"token": token.fingerprint, "code": failure.code}
        self._journal.note("token.state_unknown", "processor", detail)
