"""The ends of a purchase: paid and ordered, or undone; and following the order afterwards."""

from dataclasses import replace
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.policies as policies
    import workflows.purchase.calls as purchase_calls
    import workflows.purchase.carts as carts
    import workflows.purchase.charges as charges
    import workflows.purchase.orders as orders
    import workflows.purchase.rules as rules
    from waystation.models.decisions import Refusal
    from waystation.models.purchases import (
        Charge,
        CheckoutAnswer,
        OrderFacts,
        OrderPlaced,
        PayableCart,
        Receipt,
    )
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

    async def finish(self, answer: CheckoutAnswer | OrderPlaced, order: OrderFacts) -> None:
        """Ends a purchase that is ordered, and books what the processor says was charged for it."""
        journal, paid = self._journal, self._paid_cart()
        self._note_other_total(paid, answer)
        charge = await self._tokens.look()
        completion = journal.state.completion
        known = completion.order if completion.order and completion.order.id == order.id else None
        order = orders.merged(known, order, is_later=False)
        journal.replace(
            payment=replace(journal.state.payment, confirm_rounds=0),
            completion=replace(completion, order=order, end=None, completed_at=workflow.now()),
        )
        if charge.status in ("captured", "nothing"):
            await self._book(charge)
        detail: Detail = {"order_id": order.id, "total": paid.total.amount, "currency": paid.total.currency}
        facts: Detail = {"charge": charge.status, "replayed": answer.replayed}
        journal.note("purchase.completed", "seller", {**detail, **facts, "request_id": answer.request_id})
        journal.advance("completed")

    async def follow_charge(self) -> None:
        """Asks once more about the payment of an order that was not, or not surely, charged for yet."""
        journal = self._journal
        payment, completed_at = journal.state.payment, journal.state.completion.completed_at
        if payment.token is None or completed_at is None:
            return
        journal.replace(payment=replace(payment, confirm_rounds=payment.confirm_rounds + 1))
        charge = await self._tokens.settle()
        patience_is_over = workflow.now() - completed_at > policies.CONFIRM_DEADLINE
        if charge.status in ("captured", "nothing") or patience_is_over:
            await self._book(charge)
            journal.announce("purchase.updated", journal.summary())

    def next_look_at_charge(self) -> timedelta | None:
        """Returns when to ask again about the payment of an order; ``None`` once it is booked."""
        payment = self._journal.state.payment
        return None if payment.token is None else rules.poll_delay(payment.confirm_rounds)

    async def _book(self, charge: Charge) -> None:
        """Books what an order has cost: what was charged, and the total where nobody can tell."""
        journal, paid = self._journal, self._paid_cart()
        spent = charges.counts_as_spent(charge, paid.total)
        if charge.status == "nothing":
            journal.note("purchase.ordered_without_charge", "processor", {"total": paid.total.amount})
            await self._authorization.release("the seller took an order and charged nothing")
        else:
            await self._authorization.commit(spent)
        self._tokens.put_away()
        detail: Detail = {"charge": charge.status, "captured": charge.amount, "booked": spent.amount}
        journal.note("token.settled", "processor", {**detail, "total": paid.total.amount})
        completion, approval = journal.state.completion, journal.state.approval.record
        if journal.state.payment.money_moved and completion.order is not None:
            receipt = Receipt(
                order=completion.order,
                amount=spent.amount,
                currency=spent.currency,
                payee=paid.payee,
                approved_by=approval.approver if approval else None,
                paid_at=workflow.now(),
            )
            journal.replace(completion=replace(completion, receipt=receipt))

    async def finish_elsewhere(self, answer: CheckoutAnswer | OrderPlaced, order: OrderFacts) -> None:
        """Ends what a person completed at the seller's own page, without our token and mandate."""
        if await self._tokens.retire("the checkout was completed at the seller's page"):
            await self.finish(answer, order)
            return
        await self._authorization.release("the checkout was completed at the seller's page")
        journal = self._journal
        total = answer.cart.total if isinstance(answer, CheckoutAnswer) else None
        detail: Detail = {"order_id": order.id, "total": total}
        journal.note("purchase.completed_at_seller", "seller", detail)
        completion = replace(journal.state.completion, order=order, end=None, completed_at=workflow.now())
        journal.replace(completion=completion)
        journal.advance("completed")

    async def give_up_on_order(self) -> None:
        """Ends a purchase whose money moved and whose order never came: a person has to look."""
        journal, paid = self._journal, self._paid_cart()
        charge = journal.state.payment.charge or Charge(status="unknown")
        spent = charges.counts_as_spent(charge, paid.total)
        await self._authorization.commit(spent)
        detail: Detail = {"total": paid.total.amount, "charge": charge.status, "booked": spent.amount}
        journal.note("purchase.charged_without_order", "waystation", detail)
        taken = "was taken" if journal.state.payment.money_moved else "may have been taken"
        refusal = Refusal(
            rule=CHARGED_WITHOUT_ORDER,
            message=f"the payment {taken} but there is no order; ask the seller whether it was refunded",
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

    async def read_order(self) -> None:
        """Reads the order from the seller after a webhook, which may be old, or one of several."""
        journal = self._journal
        if not journal.state.completion.order_heard_of:
            return
        journal.replace(completion=replace(journal.state.completion, order_heard_of=False))
        answer = await self._checkout.look()
        said = None if isinstance(answer, str) else charges.order_in(answer, self._checkout.ref().checkout_id)
        completion = journal.state.completion
        known = completion.order
        if said is None or known is None or said.id != known.id:
            return
        after = orders.merged(known, said, is_later=True)
        if after == known:
            return
        journal.replace(completion=replace(completion, order=after))
        journal.note("order.read", "seller", {"order_id": after.id, "status": after.status})
        journal.announce("purchase.updated", journal.summary())

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

    def _note_other_total(self, paid: PayableCart, answer: CheckoutAnswer | OrderPlaced) -> None:
        if isinstance(answer, OrderPlaced) or carts.states_total(answer, paid.total):
            return
        stated = {"approved": paid.total.amount, "stated": answer.cart.total}
        self._journal.note("order.total_differs", "seller", {**stated, "currency": answer.cart.currency})
