"""The half of a purchase in which money can move: completion, authentication, declines, finding the truth."""

from dataclasses import replace

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import activities.contract as contract
    import workflows.policies as policies
    import workflows.purchase.calls as purchase_calls
    import workflows.purchase.charges as charges
    import workflows.purchase.rules as rules
    from activities.contract import CompleteCheckout
    from waystation.models.commerce import CheckoutStatus
    from waystation.models.purchases import (
        AuthenticationDone,
        CheckoutAnswer,
        OrderPlaced,
        PaymentToken,
    )
    from workflows.calls import CallFailure
    from workflows.keys import step_key
    from workflows.purchase.approval import PurchaseApproval
    from workflows.purchase.authorization import PurchaseAuthorization
    from workflows.purchase.checkout import PurchaseCheckout
    from workflows.purchase.ending import PurchaseEnding
    from workflows.purchase.inbox import PurchaseInbox
    from workflows.purchase.journal import Detail, PurchaseJournal
    from workflows.purchase.rules import PurchaseRefusal
    from workflows.purchase.tokens import PurchaseTokens

_OPEN_AT_SELLER = frozenset(
    {
        CheckoutStatus.READY_FOR_PAYMENT,
        CheckoutStatus.NOT_READY_FOR_PAYMENT,
        CheckoutStatus.INCOMPLETE,
    }
)
_CLOSED_AT_SELLER = frozenset({CheckoutStatus.CANCELED, CheckoutStatus.EXPIRED})


class PurchasePayment:
    """Statuses ``paying``, ``authentication_required``, ``payment_declined``, ``confirming``."""

    def __init__(
        self,
        journal: PurchaseJournal,
        inbox: PurchaseInbox,
        approval: PurchaseApproval,
        checkout: PurchaseCheckout,
        authorization: PurchaseAuthorization,
        tokens: PurchaseTokens,
        ending: PurchaseEnding,
    ) -> None:
        self._journal = journal
        self._inbox = inbox
        self._approval = approval
        self._checkout = checkout
        self._authorization = authorization
        self._tokens = tokens
        self._ending = ending

    # Paying

    async def pay(self) -> None:
        """Gets a token for exactly the approved total, and completes the checkout with it."""
        journal = self._journal
        if not self._approval.stands():
            self._approval.void("it is older than a payment may be")
            self._prepare_anew()
            return
        if journal.state.payment.tries >= rules.MAX_PAYMENT_TRIES:
            raise PurchaseRefusal(
                "too_many_payment_tries", "the payment was tried too often; start anew", "failed"
            )
        self._inbox.raise_if_stopped()
        rules.check_quote(self._checkout.answer(), now=workflow.now())
        payable = self._checkout.payable()
        try:
            token = await self._tokens.fresh(payable, self._authorization.mandate())
        except CallFailure as failure:
            if failure.kind != contract.PAYMENT_METHOD_DECLINED:
                raise
            self._declined()
            return
        if token is None:
            journal.advance("confirming")
            return
        if token.status == "requires_action":
            self._require_authentication()
            return
        self._inbox.raise_if_stopped()
        payment = journal.state.payment
        journal.replace(
            payment=replace(
                payment, tries=payment.tries + 1, cart=payable, confirm_since=None, confirm_rounds=0
            )
        )
        await self._complete()

    async def _complete(self) -> None:
        """Sends the completion (again, with the same key) and weighs the answer."""
        journal, payment = self._journal, self._journal.state.payment
        if payment.token is None or payment.cart is None:
            raise PurchaseRefusal("no_payment_token", "there is no token to pay with; start anew", "failed")
        key, total = step_key(journal.id, "complete", payment.tries), payment.cart.total
        detail: Detail = {"key": key, "token": payment.token.fingerprint, "total": total.amount}
        try:
            outcome = await purchase_calls.complete_checkout(
                journal,
                CompleteCheckout(
                    checkout=self._checkout.ref(),
                    request=journal.state.request,
                    handler_id=payment.cart.handler,
                    token=payment.token.sealed,
                    authentication=payment.proof,
                    idempotency_key=key,
                ),
                about={**detail, "currency": total.currency},
            )
        except CallFailure as failure:
            await self._weigh_failed_completion(failure)
            return
        await self._weigh(outcome)

    async def _weigh_failed_completion(self, failure: CallFailure) -> None:
        if failure.kind == contract.SELLER_REFUSED:
            if failure.code == "requires_3ds":
                self._require_authentication()
                return
            answer = await self._checkout.look()
            if not isinstance(answer, str):
                await self._weigh(answer)
                return
        self._enter_confirming()

    async def _weigh(self, answer: CheckoutAnswer | OrderPlaced) -> None:
        """Acts on what the seller says about a completion."""
        if await self._finished(answer):
            return
        if isinstance(answer, OrderPlaced):  # of another checkout
            self._enter_confirming()
            return
        status = answer.status
        if status in _OPEN_AT_SELLER | _CLOSED_AT_SELLER | {CheckoutStatus.REQUIRES_ESCALATION}:
            await self._not_completed(answer)
        elif status is CheckoutStatus.AUTHENTICATION_REQUIRED and not self._journal.state.payment.money_moved:
            self._checkout.take(answer)
            self._require_authentication()
        else:
            self._enter_confirming()

    async def _not_completed(self, answer: CheckoutAnswer) -> None:
        """Acts on a seller that says there is no order; the processor decides whether money moved."""
        if await self._tokens.retire("the seller did not complete"):
            self._enter_confirming()
            return
        journal = self._journal
        before = journal.state.checkout.digest
        self._checkout.take(answer)
        if answer.status in _CLOSED_AT_SELLER:
            raise PurchaseRefusal(
                f"checkout_{answer.status.value}", f"the seller's checkout is {answer.status.value}", "failed"
            )
        if answer.status is CheckoutStatus.REQUIRES_ESCALATION:
            journal.replace(payment=replace(journal.state.payment, confirm_rounds=0))
            journal.await_person("escalated")
        elif journal.state.checkout.digest != before or not journal.state.checkout.ready:
            self._prepare_anew()
        else:
            self._declined()

    # What a person has to do

    async def await_authentication(self) -> None:
        """Waits for the issuer's word on a 3-D Secure authentication."""
        journal, token = self._journal, self._journal.state.payment.token
        late = PurchaseRefusal("authentication_expired", "nobody authenticated in time", "expired")
        until = journal.state.deadline or rules.person_deadline(journal.state, now=workflow.now())
        waits_for_processor = token is not None and token.status == "requires_action"
        poll = None
        if waits_for_processor:
            rounds = self._count_round()
            poll = max(rules.poll_delay(rounds), policies.MIN_AUTHENTICATION_POLL)
        arrived = await self._inbox.wait_for(
            lambda: journal.state.inbox.proof is not None, until=until, late=late, poll=poll
        )
        proof = journal.state.inbox.proof
        if arrived and proof is not None and not proof.outcome.allows_payment:
            await self._authentication_failed(proof)
        elif token is not None and waits_for_processor:
            await self._look_at_authentication(token)
        elif proof is not None:
            self._forget_proof()
            journal.replace(payment=replace(journal.state.payment, proof=proof))
            journal.advance("paying")

    async def _authentication_failed(self, proof: AuthenticationDone) -> None:
        self._forget_proof()
        self._journal.note("authentication.failed", "issuer", {"outcome": proof.outcome.value})
        if await self._tokens.retire("the authentication failed"):
            self._enter_confirming()
        else:
            self._declined()

    async def _look_at_authentication(self, token: PaymentToken) -> None:
        """Asks the processor whether the token may be charged by now."""
        token = await self._tokens.read(token)
        if token.status == "requires_action":
            self._forget_proof()
            return
        journal = self._journal
        journal.replace(payment=replace(journal.state.payment, confirm_rounds=0))
        journal.advance("paying")

    async def after_decline(self) -> None:
        """Tries the mandate's next payment method, or waits for somebody to say what to do."""
        journal, methods = self._journal, self._authorization.mandate().payment_methods
        payment, retry = journal.state.payment, journal.state.inbox.retry
        tried = payment.methods_tried + 1
        if retry is None and tried < len(methods) and payment.method + 1 < len(methods):
            journal.replace(payment=replace(payment, method=payment.method + 1, methods_tried=tried))
            journal.note("payment.another_method", "waystation", {"number": payment.method + 2})
            journal.advance("paying")
            return
        late = PurchaseRefusal(
            "payment_declined", "the payment was declined; use another payment method", "failed"
        )

        def told() -> bool:
            return journal.state.inbox.retry is not None or journal.state.inbox.revision is not None

        until = journal.state.deadline or rules.revision_deadline(journal.state, now=workflow.now())
        if not await self._inbox.wait_for(told, until=until, late=late):
            return
        retry = journal.state.inbox.retry
        if retry is None:
            self._prepare_anew()
            return
        payment = journal.state.payment
        method = methods.index(retry.payment_method) if retry.payment_method in methods else payment.method
        journal.replace(
            payment=replace(payment, method=method), inbox=replace(journal.state.inbox, retry=None)
        )
        journal.advance("paying")

    # Finding the truth

    async def confirm(self) -> None:
        """Reads, and asks again with the same key, until it is clear what became of the completion."""
        journal, payment = self._journal, self._journal.state.payment
        since = payment.confirm_since or workflow.now()
        journal.replace(payment=replace(payment, confirm_since=since))
        if number := self._count_round():
            await workflow.sleep(rules.poll_delay(number))
        elif payment.tries > 0:
            # The seller's word is missing or makes no sense: the processor knows whether money moved.
            await self._tokens.look()
        waited = workflow.now() - since
        answer = await self._checkout.look()
        if not isinstance(answer, str) and await self._finished(answer):
            return
        payment = journal.state.payment
        gone = isinstance(answer, CheckoutAnswer) and answer.status in _CLOSED_AT_SELLER
        is_open = isinstance(answer, CheckoutAnswer) and answer.status in _OPEN_AT_SELLER
        if waited > policies.CONFIRM_DEADLINE or (gone and payment.money_moved):
            await self._ending.give_up_on_order()
        elif waited > policies.CONFIRM_GIVE_UP and not payment.money_moved:
            if not await self._tokens.retire("no clear answer about the completion"):
                raise PurchaseRefusal(
                    "completion_unconfirmed",
                    "the seller did not confirm the order; nothing was paid",
                    "failed",
                )
        elif answer == "silent" or is_open:
            await self._ask_again()
        elif isinstance(answer, CheckoutAnswer) and not payment.money_moved:
            await self._weigh(answer)

    async def _finished(self, answer: CheckoutAnswer | OrderPlaced) -> bool:
        """Ends the purchase if the checkout has become an order."""
        order = charges.order_in(answer, self._checkout.ref().checkout_id)
        if order is None:
            return False
        if self._journal.state.payment.tries == 0:
            await self._ending.finish_elsewhere(answer, order)
        else:
            await self._ending.finish(answer, order)
        return True

    async def _ask_again(self) -> None:
        """Sends the same request and key: the seller finishes what it began, or answers as before."""
        payment = self._journal.state.payment
        if payment.token is not None and payment.tries > 0:
            await self._complete()
        elif not payment.money_moved:
            raise PurchaseRefusal("completion_unconfirmed", "the seller did not confirm the order", "failed")

    # Steps

    def _enter_confirming(self) -> None:
        journal, payment = self._journal, self._journal.state.payment
        since = payment.confirm_since or workflow.now()
        journal.replace(payment=replace(payment, confirm_since=since))
        journal.advance("confirming")

    def _require_authentication(self) -> None:
        self._forget_proof()
        self._journal.await_person("authentication_required")

    def _declined(self) -> None:
        journal = self._journal
        journal.replace(inbox=replace(journal.state.inbox, retry=None))
        journal.await_person("payment_declined", revision=True)

    def _prepare_anew(self) -> None:
        self._checkout.new_rounds()
        self._journal.advance("preparing")

    def _forget_proof(self) -> None:
        self._journal.replace(inbox=replace(self._journal.state.inbox, proof=None))

    def _count_round(self) -> int:
        """Counts one more round of asking; returns how many there were before."""
        payment = self._journal.state.payment
        self._journal.replace(payment=replace(payment, confirm_rounds=payment.confirm_rounds + 1))
        return payment.confirm_rounds
