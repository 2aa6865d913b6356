"""The half of a purchase before any money: a checkout is created, made ready, reserved for and approved."""

import asyncio
from dataclasses import replace

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.policies as policies
    import workflows.purchase.carts as carts
    import workflows.purchase.charges as charges
    import workflows.purchase.rules as rules
    from waystation.models.commerce import CheckoutStatus
    from waystation.models.decisions import Approve
    from waystation.models.purchases import MAX_PURCHASE_ID_LENGTH_CHARS, CheckoutAnswer
    from workflows.purchase.approval import PurchaseApproval
    from workflows.purchase.authorization import PurchaseAuthorization
    from workflows.purchase.checkout import PurchaseCheckout
    from workflows.purchase.ending import PurchaseEnding
    from workflows.purchase.inbox import PurchaseInbox
    from workflows.purchase.journal import Detail, PurchaseJournal
    from workflows.purchase.rules import PurchaseRefusal


class PurchasePreparation:
    """Statuses ``creating``, ``preparing``, ``needs_revision``, ``escalated``, ``awaiting_approval``."""

    def __init__(
        self,
        journal: PurchaseJournal,
        inbox: PurchaseInbox,
        approval: PurchaseApproval,
        checkout: PurchaseCheckout,
        authorization: PurchaseAuthorization,
        ending: PurchaseEnding,
    ) -> None:
        self._journal = journal
        self._inbox = inbox
        self._approval = approval
        self._checkout = checkout
        self._authorization = authorization
        self._ending = ending

    def note_request(self) -> None:
        """Writes down what was asked for."""
        request = self._journal.state.request
        self._journal.note(
            "purchase.requested",
            request.agent.id,
            {
                "mandate_id": request.mandate_id,
                "seller": request.seller,
                "items": [f"{item.quantity} x {item.id}" for item in request.items],
                "currency": request.currency,
                "session_id": request.session_id,
            },
        )
        self._journal.announce("purchase.updated", self._journal.summary())

    async def create(self) -> None:
        """Asks the mandate, then creates the checkout."""
        self._inbox.raise_if_stopped()
        if len(self._journal.id) > MAX_PURCHASE_ID_LENGTH_CHARS:
            raise PurchaseRefusal("purchase_id_too_long", "use a workflow id of at most 200 characters")
        await self._authorization.check()
        await self._checkout.open()
        self._journal.advance("preparing")

    async def prepare(self) -> None:
        """Takes the next step towards a payable cart."""
        self._inbox.raise_if_stopped()
        journal, answer = self._journal, self._checkout.answer()
        if journal.state.inbox.revision is not None:
            self._apply_revision()
        checkout = journal.state.checkout
        if checkout.rounds >= rules.MAX_PREPARATION_ROUNDS:
            raise PurchaseRefusal(
                "checkout_not_ready", "the seller's checkout does not become ready; try another cart"
            )
        if checkout.restate and answer.status.is_open:
            await self._checkout.update(())
            return
        plan = rules.next_preparation(journal.state.request, answer)
        match plan.step:
            case "closed":
                status = answer.status.value
                raise PurchaseRefusal(f"checkout_{status}", f"the seller's checkout is {status}", "failed")
            case "pay_elsewhere_done":
                journal.advance("confirming")
            case "escalate":
                journal.await_person("escalated")
            case "wait":
                await workflow.sleep(rules.poll_delay(checkout.rounds))
                journal.replace(checkout=replace(journal.state.checkout, rounds=checkout.rounds + 1))
                self._checkout.take(await self._checkout.read())
            case "update":
                await self._checkout.update(plan.select)
            case "revise":
                journal.await_person("needs_revision", revision=True)
            case "ready":
                await self._reserve_and_route()

    async def _reserve_and_route(self) -> None:
        """Checks the cart of a ready checkout, sets the amount aside, and sees who has to agree."""
        journal = self._journal
        rules.check_quote(self._checkout.answer(), now=workflow.now())
        payable = carts.check_cart(journal.state.request, self._checkout.answer())
        journal.replace(checkout=replace(journal.state.checkout, payable=payable))
        await self._authorization.release_other_than(payable)
        await self._authorization.reserve(payable)
        self._inbox.raise_if_stopped()
        if self._approval.stands():
            journal.advance("paying")
        elif self._authorization.mandate().approval_required or carts.delivers_elsewhere(
            journal.state.request, self._checkout.answer().cart
        ):
            journal.replace(inbox=replace(journal.state.inbox, decision=None))
            journal.await_person("awaiting_approval")
        else:
            self._approval.give_by_mandate(payable)
            journal.advance("paying")

    async def await_revision(self) -> None:
        """Waits for somebody to change a cart that cannot be paid as it is."""
        journal, answer = self._journal, self._checkout.answer()
        messages = "; ".join(m.text for m in answer.messages if m.type == "error")
        codes = sorted(answer.hindrances()) or sorted(answer.error_codes())
        rule = codes[0] if codes else "checkout_not_ready"
        late = PurchaseRefusal(rule, f"the seller's checkout is not payable: {messages or 'no reason given'}")
        until = journal.state.deadline or rules.revision_deadline(journal.state, now=workflow.now())
        if await self._inbox.wait_for(self._revised, until=until, late=late):
            self._apply_revision()
            journal.advance("preparing")

    async def await_escalation(self) -> None:
        """Lets a person continue at the seller's own page; reads until something has changed."""
        journal, payment = self._journal, self._journal.state.payment
        late = PurchaseRefusal("escalation_expired", "nobody went on at the seller's page in time", "expired")
        until = journal.state.deadline or rules.person_deadline(journal.state, now=workflow.now())
        delay = max(rules.poll_delay(payment.confirm_rounds), policies.MIN_ESCALATION_POLL)
        journal.replace(payment=replace(payment, confirm_rounds=payment.confirm_rounds + 1))
        if await self._inbox.wait_for(self._revised, until=until, late=late, poll=delay):
            self._prepare_anew()
            return
        answer = await self._checkout.look()
        if isinstance(answer, str):
            return
        order = charges.order_in(answer, self._checkout.ref().checkout_id)
        if order is not None:
            if isinstance(answer, CheckoutAnswer):
                self._checkout.take(answer)
            await self._ending.finish_elsewhere(answer, order)
        elif isinstance(answer, CheckoutAnswer) and answer.status is not CheckoutStatus.REQUIRES_ESCALATION:
            self._checkout.take(answer)
            journal.replace(payment=replace(journal.state.payment, confirm_rounds=0))
            self._prepare_anew()

    async def await_approval(self) -> None:
        """Shows the cart, and waits for a person's decision."""
        journal = self._journal
        self._ask_for_approval()
        late = PurchaseRefusal("approval_expired", "nobody approved in time; ask again", "expired")
        until = journal.state.deadline or rules.person_deadline(journal.state, now=workflow.now())

        def decided() -> bool:
            return journal.state.inbox.decision is not None or self._revised()

        await self._inbox.wait_for(decided, until=until, late=late)
        decision = journal.state.inbox.decision
        if decision is None:
            journal.advance("preparing")
        elif isinstance(decision, Approve):
            await self._accept_approval(decision)
        else:
            said = f": {decision.reason}" if decision.reason else ""
            journal.announce("approval.denied", {"approver": decision.approver, "reason": decision.reason})
            raise PurchaseRefusal("rejected", f"rejected by {decision.approver}{said}", "rejected")

    def _ask_for_approval(self) -> None:
        """Shows the cart, unless the approvers have been shown this one."""
        journal, state = self._journal, self._journal.state
        if state.approval.asked_digest == state.checkout.digest:
            return
        payable = self._checkout.payable()
        detail: Detail = {"digest": payable.digest, "total": payable.total.amount}
        journal.note("approval.requested", "waystation", detail)
        self._inbox.show_cart()
        journal.replace(approval=replace(journal.state.approval, asked_digest=payable.digest))

    async def _accept_approval(self, decision: Approve) -> None:
        """Checks that cart and mandate are still what the person agreed to."""
        journal = self._journal
        self._approval.give_by_person(decision.digest, decision.approver)
        held, payable = journal.state.authorization.reservation, journal.state.checkout.payable
        if held is None or payable is None:
            raise PurchaseRefusal(
                "reservation_lost", "the amount is no longer set aside; ask again", "failed"
            )
        answer, _ = await asyncio.gather(self._checkout.read(), self._authorization.reserve(payable))
        self._checkout.take(answer)
        if self._approval.stands() and journal.state.checkout.ready:
            journal.advance("paying")
        else:
            self._prepare_anew()
        # Last, for without a decision it would seem to wait for one.
        journal.replace(inbox=replace(journal.state.inbox, decision=None))

    def _apply_revision(self) -> None:
        self._journal.revise_request()
        self._approval.void("the cart was revised")

    def _revised(self) -> bool:
        return self._journal.state.inbox.revision is not None

    def _prepare_anew(self) -> None:
        self._checkout.new_rounds()
        self._journal.advance("preparing")
