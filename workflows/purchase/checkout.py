"""The seller's checkout of a purchase: opened, changed, read, canceled, and its latest answer kept."""

import contextlib
from dataclasses import replace
from typing import Literal

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import activities.contract as contract
    import workflows.purchase.calls as purchase_calls
    import workflows.purchase.carts as carts
    from activities.contract import CancelCheckout, ChangeCheckout, CheckoutRef, OpenCheckout
    from waystation.models.purchases import CartFulfillment, CheckoutAnswer, OrderPlaced, PayableCart
    from workflows.calls import CallFailure
    from workflows.keys import step_key
    from workflows.purchase.approval import PurchaseApproval
    from workflows.purchase.journal import PurchaseJournal

Unread = Literal["silent", "unreadable"]
"""Why there is no answer: none came, or it doesn't even say whether there is an order."""


class PurchaseCheckout:
    """Talks to the seller about the checkout, except for its completion."""

    def __init__(self, journal: PurchaseJournal, approval: PurchaseApproval) -> None:
        self._journal = journal
        self._approval = approval

    def answer(self) -> CheckoutAnswer:
        """Returns the seller's latest answer, where there must be one."""
        answer = self._journal.state.checkout.answer
        if answer is None:
            raise RuntimeError("there is no checkout yet")
        return answer

    def payable(self) -> PayableCart:
        """Returns the checked cart, where there must be one: only what is approved gets this far."""
        payable = self._journal.state.checkout.payable
        if payable is None:
            raise RuntimeError("the cart was not checked since the seller last changed it")
        return payable

    def ref(self) -> CheckoutRef:
        """Returns where the checkout is."""
        answer = self.answer()
        return CheckoutRef(
            seller=answer.cart.seller, api_base_url=answer.api_base_url, checkout_id=answer.cart.checkout_id
        )

    async def open(self) -> None:
        """Creates the checkout."""
        journal = self._journal
        call = OpenCheckout(
            request=journal.state.request,
            purchase_id=journal.id,
            idempotency_key=step_key(journal.id, "create"),
        )
        self.take(await purchase_calls.open_checkout(journal, call))

    async def update(self, select: tuple[CartFulfillment, ...]) -> None:
        """Selects fulfillment options, and states the request anew after a revision."""
        journal, checkout = self._journal, self._journal.state.checkout
        number = checkout.updates + 1
        journal.replace(checkout=replace(checkout, updates=number, rounds=checkout.rounds + 1))
        call = ChangeCheckout(
            checkout=self.ref(),
            request=journal.state.request,
            select=select,
            restate=checkout.restate,
            # Two names: after a worker's death in the middle, a revision may come where a selection went.
            idempotency_key=step_key(journal.id, "update" if checkout.restate else "select", number),
        )
        try:
            answer = await purchase_calls.update_checkout(journal, call)
        except CallFailure as failure:
            if failure.kind != contract.SELLER_REFUSED or not checkout.restate:
                raise
            # What a person revised does not suit the seller: say so and let it be revised again.
            journal.replace(checkout=replace(journal.state.checkout, restate=False))
            journal.await_person("needs_revision", revision=True)
            return
        journal.replace(checkout=replace(journal.state.checkout, restate=False))
        self.take(answer)

    async def read(self) -> CheckoutAnswer:
        """Reads the checkout, where the purchase can't go on without it."""
        return await purchase_calls.read_checkout(self._journal, self.ref())

    async def look(self) -> CheckoutAnswer | OrderPlaced | Unread:
        """Reads the checkout with a few attempts only."""
        try:
            return await purchase_calls.look_at_checkout(self._journal, self.ref())
        except CallFailure as failure:
            return "unreadable" if failure.kind == contract.SELLER_ANSWER_INVALID else "silent"

    async def cancel(self, why: str) -> None:
        """Cancels the checkout once, if there is one that is not closed."""
        journal = self._journal
        if not journal.state.checkout.open_at_seller:
            return
        call = CancelCheckout(checkout=self.ref(), reason=why, idempotency_key=step_key(journal.id, "cancel"))
        with contextlib.suppress(CallFailure):  # a courtesy to the seller
            await purchase_calls.cancel_checkout(journal, call)
        journal.replace(checkout=replace(journal.state.checkout, cancel_sent=True))

    def take(self, answer: CheckoutAnswer) -> None:
        """Keeps the seller's latest word, after seeing that it is about the same deal.

        Raises:
            PurchaseRefusal: the seller answers about another checkout, or wants another payee.
        """
        journal, before = self._journal, self._journal.state.checkout.answer
        carts.check_same_deal(before.cart if before else None, answer.cart)
        answer = carts.with_known_handler(answer, before)
        digest = carts.cart_digest(answer.cart)
        record = journal.state.approval.record
        if record is not None and record.digest != digest:
            self._approval.void("the cart changed after it was approved")
        checkout = journal.state.checkout
        payable = carts.still_payable(checkout.payable, answer, digest)
        journal.replace(checkout=replace(checkout, answer=answer, digest=digest, payable=payable))

    def new_rounds(self) -> None:
        """Lets the preparation begin again with all its rounds."""
        self._journal.replace(checkout=replace(self._journal.state.checkout, rounds=0))
