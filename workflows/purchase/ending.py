"""The ends of a purchase: paid and ordered, or undone; and following the order afterwards."""

from dataclasses import replace

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.purchase.calls as purchase_calls
    import workflows.purchase.rules as rules
    from waystation.models.decisions import Refusal
    from waystation.models.purchases import CheckoutAnswer, OrderFacts, PayableCart, Receipt
    from workflows.calls import CallFailure
    from workflows.purchase.authorization import PurchaseAuthorization
    from workflows.purchase.checkout import PurchaseCheckout
    from workflows.purchase.journal import Detail, PurchaseJournal
    from workflows.purchase.order_events import order_events_id
    from workflows.purchase.rules import PurchaseRefusal
    from workflows.purchase.state import PlannedEnd
    from workflows.purchase.tokens import PurchaseTokens

CHARGED_WITHOUT_ORDER = "charged_without_order"


class PurchaseEnding:
    """Status ``undoing``, and the ways into and out of it."""

    def __init__(
        self,
        journal: PurchaseJournal,
        checkout: PurchaseCheckout,
        authorization: PurchaseAuthorization,
        tokens: PurchaseTokens,
    ) -> None:
        self._journal = journal
        self._checkout = checkout
        self._authorization = authorization
        self._tokens = tokens

    async def finish(self, answer: CheckoutAnswer, order: OrderFacts) -> None:
        """Ends a purchase that is paid and ordered: commits, and writes the receipt."""
        journal, paid = self._journal, self._paid_cart()
        self._note_other_total(paid, answer)
        await self._authorization.commit()
        approval, completion = journal.state.approval.record, journal.state.completion
        receipt = Receipt(
            order=order,
            amount=paid.total.amount,
            currency=paid.total.currency,
            payee=paid.payee,
            approved_by=approval.approver if approval else None,
            paid_at=workflow.now(),
        )
        detail: Detail = {"order_id": order.id, "total": paid.total.amount, "currency": paid.total.currency}
        facts: Detail = {"replayed": answer.replayed, "request_id": answer.request_id}
        journal.note("purchase.completed", "seller", {**detail, **facts})
        journal.replace(
            payment=replace(journal.state.payment, money_moved=True),
            completion=replace(completion, receipt=receipt, order=completion.order or order, end=None),
        )
        journal.advance("completed")

    async def finish_elsewhere(self, answer: CheckoutAnswer, order: OrderFacts) -> None:
        """Ends what a person completed at the seller's own page, without our token and mandate."""
        if await self._tokens.retire("the checkout was completed at the seller's page"):
            await self.finish(answer, order)
            return
        await self._authorization.release("the checkout was completed at the seller's page")
        journal = self._journal
        detail: Detail = {"order_id": order.id, "total": answer.cart.total}
        journal.note("purchase.completed_at_seller", "seller", detail)
        journal.replace(completion=replace(journal.state.completion, order=order, end=None))
        journal.advance("completed")

    async def give_up_on_order(self) -> None:
        """Ends a purchase whose money moved and whose order never came: a person has to look."""
        await self._authorization.commit()
        total = self._paid_cart().total
        self._journal.note("purchase.charged_without_order", "waystation", {"total": total.amount})
        refusal = Refusal(
            rule=CHARGED_WITHOUT_ORDER,
            message="the payment was taken but there is no order; ask the seller whether it was refunded",
        )
        self._undo_as(PlannedEnd(outcome="failed", refusal=refusal))

    def plan(self, refusal: PurchaseRefusal) -> None:
        """Lets the purchase be undone, and end with this refusal."""
        journal = self._journal
        if journal.state.status == "undoing":
            raise RuntimeError(f"undoing cannot be refused: {refusal.rule}") from refusal
        journal.note("purchase.refusal", "waystation", {"rule": refusal.rule, "message": str(refusal)})
        if refusal.rule == "approval_expired":
            journal.announce("approval.expired", {"digest": journal.state.checkout.digest})
        why = Refusal(rule=refusal.rule, message=str(refusal))
        self._undo_as(PlannedEnd(outcome=refusal.outcome, refusal=why))

    async def undo(self) -> None:
        """Revokes, cancels, releases; each once, each safe to repeat."""
        journal = self._journal
        end = journal.state.completion.end
        if end is None:
            raise RuntimeError("undoing without a planned end")
        rule = end.refusal.rule
        if rule != CHARGED_WITHOUT_ORDER:
            if await self._tokens.retire(rule):
                self._turn_back()
                return
            await self._checkout.cancel(rule)
            await self._authorization.release(rule)
        journal.note("purchase.ended", "waystation", {"outcome": end.outcome, "rule": rule})
        journal.advance(end.outcome)

    async def abandon(self, refusal: PurchaseRefusal) -> None:
        """Ends what can be neither finished nor undone: what may have been paid counts as spent."""
        journal, payment = self._journal, self._journal.state.payment
        journal.note("purchase.abandoned", "waystation", {"rule": refusal.rule, "message": str(refusal)})
        if payment.token is not None or payment.money_moved:
            await self.give_up_on_order()
        else:
            await self._authorization.release(refusal.rule)
            self._undo_as(PlannedEnd("failed", refusal=Refusal(rule=refusal.rule, message=str(refusal))))
        journal.advance("failed")

    async def route_order_events(self) -> None:
        """Sees that the order's webhooks find this purchase."""
        journal, cart = self._journal, self._checkout.answer().cart
        try:
            route = order_events_id(cart.seller, cart.checkout_id)
            await purchase_calls.route_order_events(route, journal.id)
        except CallFailure as failure:
            journal.note("order.not_followed", "waystation", {"kind": failure.kind})

    def _turn_back(self) -> None:
        """Turns back because the token was spent after all: finds out what became of the order."""
        journal = self._journal
        journal.note("undo.too_late", "processor", {"why": "the token was spent"})
        journal.replace(payment=replace(journal.state.payment, confirm_since=None, confirm_rounds=0))
        journal.advance("confirming")
        journal.replace(completion=replace(journal.state.completion, end=None))

    def _undo_as(self, end: PlannedEnd) -> None:
        self._journal.replace(completion=replace(self._journal.state.completion, end=end))
        self._journal.advance("undoing")

    def _paid_cart(self) -> PayableCart:
        """Returns what the money was for: the cart of the last token or completion."""
        paid = self._journal.state.payment.cart
        if paid is None:
            raise RuntimeError("no payment was begun")
        return paid

    def _note_other_total(self, paid: PayableCart, answer: CheckoutAnswer) -> None:
        if rules.states_total(answer, paid.total):
            return
        stated = {"approved": paid.total.amount, "stated": answer.cart.total}
        self._journal.note("order.total_differs", "seller", {**stated, "currency": answer.cart.currency})
