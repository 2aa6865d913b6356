"""The payments that an allowance makes itself, for processes that hold nothing that pays."""

import asyncio
from typing import Final

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.allowance.rules as allowance_rules
    import workflows.minting as minting
    import workflows.policies as policies
    from activities.contract import AllowanceCall, PaidRequestCalls
    from waystation.buyer.offer_choice import OfferRefused, lower_limit
    from waystation.buyer.origins import origin_of
    from waystation.buyer.outcomes import KEY_REUSED, key_is_reused
    from waystation.models.base import replaced
    from waystation.models.mandates import ReserveAnswer
    from waystation.models.money import Money
    from waystation.models.payments import AllowanceAnswer, AllowancePayment, PaymentRefusal
    from workflows.allowance.journal import ALLOWANCE_CLOSED, ALLOWANCE_EXHAUSTED, AllowanceJournal
    from workflows.allowance.leases import ALLOWANCE_LEASED
    from workflows.calls import CallFailure, Detail, PeerCall, peer_options
    from workflows.keys import step_key
    from workflows.paid_request.calls import CLOSE
    from workflows.refusals import refusal

ANSWER_FORGOTTEN = "AllowanceAnswerForgotten"
LIMIT_REFUSED = "AllowanceLimitRefused"

_PAY: Final = PeerCall(
    method=PaidRequestCalls.pay_within_allowance,
    options=peer_options(
        policies.ALLOWANCE_CALL_TIMEOUT,
        policies.REDEEM_CALL_RETRY,
        peer="server",
        heartbeat=policies.PAID_REQUEST_HEARTBEAT,
    ),
    answered="payment.made",
    failed="payment.unanswered",
)
_CLOSE: Final = PeerCall(
    method=PaidRequestCalls.close_within_allowance,
    options=CLOSE,
    answered="payment.looked_up",
    failed="payment.unclear",
)


class AllowancePayments:
    """Pays one request after the other, or several at once, each in one activity."""

    def __init__(self, journal: AllowanceJournal) -> None:
        self._journal = journal
        self._under_way: set[str] = set()

    @property
    def under_way(self) -> bool:
        """Whether a payment is being made."""
        return bool(self._under_way)

    async def pay(self, payment: AllowancePayment) -> AllowanceAnswer:
        """Pays and gives the answer; the same key again gives the same one.

        Raises:
            ApplicationError: ``AllowanceClosed``, ``AllowanceExhausted``, ``AllowanceLeased``,
                ``AllowanceAnswerForgotten``, ``AllowanceLimitRefused``, ``key_reused``; nothing was begun.
        """
        journal, key = self._journal, payment.key
        await workflow.wait_condition(lambda: key not in self._under_way)
        known = journal.state.answers.get(key)
        if known is not None:
            if not payment.matches(journal.state.digests.get(key, known.request_digest)):
                raise refusal(KEY_REUSED, key_is_reused(key))
            return known
        reserved = self._check(payment)
        most = self._limit(payment)
        self._under_way.add(key)
        journal.count(journal.state.ledger.hold(most.amount))
        try:
            paid = await self._paid(self._call(payment, most, reserved))
            answer = replaced(paid, request_digest=payment.request.digest())
        finally:
            self._under_way.discard(key)
        journal.count(journal.state.ledger.settle(key, held=most.amount, amount=answer.amount))
        journal.calls_in_run += 1
        journal.answer(payment, answer)
        journal.announce([allowance_rules.shown_answer(payment, answer, journal.start.budget.currency)])
        return answer

    def _check(self, payment: AllowancePayment) -> ReserveAnswer:
        journal, ledger, start = self._journal, self._journal.state.ledger, self._journal.start
        reserved = journal.check_open()
        if ledger.lease is not None:
            raise refusal(ALLOWANCE_LEASED, "a process holds this allowance and pays by itself")
        if payment.key in ledger.keys:
            raise refusal(ANSWER_FORGOTTEN, f"'{payment.key}' was paid long ago and its answer isn't kept")
        if origin_of(payment.request.url) != start.seller:
            raise refusal(ALLOWANCE_CLOSED, f"this allowance is for {start.seller} alone")
        if ledger.left < self._limit(payment).amount:
            raise refusal(
                ALLOWANCE_EXHAUSTED, f"{ledger.left} of the budget is left, one payment may cost more"
            )
        return reserved

    def _limit(self, payment: AllowancePayment) -> Money:
        """Returns the most that a payment may cost: the lower of its own limit and the allowance's."""
        try:
            return lower_limit(self._journal.start.max_price, payment.max_price)
        except OfferRefused as refused:
            raise refusal(LIMIT_REFUSED, str(refused)) from None

    def _call(self, payment: AllowancePayment, most: Money, reserved: ReserveAnswer) -> AllowanceCall:
        journal, start, now = self._journal, self._journal.start, workflow.now()
        return AllowanceCall(
            payment=payment,
            payment_id=step_key(journal.id, payment.key),
            max_price=most,
            rails=start.rails,
            expected_payee=start.expected_payee,
            payment_method=start.payment_method or next(iter(reserved.payment_methods), None),
            at=now,
            expires_at=min(now + policies.CREDENTIAL_LIFETIME, reserved.valid_until),
        )

    async def _paid(self, call: AllowanceCall) -> AllowanceAnswer:
        try:
            return await self._made(_PAY, call)
        except CallFailure as failure:
            return await self._find_truth(call, failure)
        except asyncio.CancelledError:
            return await self._find_truth(call, None)

    async def _find_truth(self, call: AllowanceCall, failure: CallFailure | None) -> AllowanceAnswer:
        """No answer came: what the processor or chain says; what nobody knows counts as spent."""
        try:
            return await self._made(_CLOSE, call)
        except CallFailure as unclear:
            why = PaymentRefusal(rule=unclear.code, message=str(failure or unclear))
            if unclear.kind in minting.NEVER_MINTED:
                # Not even the credential could be had: a final refusal to mint means that none exists.
                return AllowanceAnswer(money_moved="no", refusal=why)
            counted = AllowanceAnswer(money_moved="unknown", amount=call.max_price.amount, refusal=why)
            facts = allowance_rules.audited_answer(call.payment, counted)
            self._journal.note("payment.counted_as_spent", "waystation", facts)
            return counted

    async def _made(
        self, calling: PeerCall[PaidRequestCalls, AllowanceCall, AllowanceAnswer], call: AllowanceCall
    ) -> AllowanceAnswer:
        def heard(answer: AllowanceAnswer) -> Detail:
            return allowance_rules.audited_answer(call.payment, answer)

        about: Detail = {"key": call.payment.key}
        return await calling.make(self._journal, call, heard=heard, about=about)
