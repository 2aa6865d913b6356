r"""The PaidRequest workflow: one HTTP 402 exchange, at most one settlement, delivered.

ask → choose → reserve → approve (where the mandate wants it) → mint one credential →
send it, the same one again after a lost answer → ask processor or chain what became of
it → commit or release. The credential is in the history (encrypted) before it is sent.
Idempotency keys come from the workflow id and the step alone.

Signals take one JSON object, so Temporal's CLI can send them::

    temporal workflow signal -w <payment id> --name approve \
        --input '{"digest": "sha256:…", "approver": "alice"}'
"""

import asyncio
from dataclasses import replace

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.paid_request.calls as calls
    import workflows.paid_request.rules as rules
    import workflows.policies as policies
    from activities.contract import ReadOffers
    from waystation.buyer.origins import RequestInvalidError, check_transport
    from waystation.models.decisions import Approve, Cancel, Decision, Reject
    from waystation.models.mandates import RevokeRequest
    from waystation.models.payments import Offer, PaidRequestStart, PaidRequestView, ProbeAnswer
    from waystation.models.trail import AuditTrail
    from waystation.temporal.messages import PAID_REQUEST
    from workflows.calls import CallFailure
    from workflows.decisions import the_one_in
    from workflows.guards import answering, drop_unless, ending, starting
    from workflows.outbox import Outbox
    from workflows.paid_request.authorization import PaymentAuthorization
    from workflows.paid_request.credential import PaymentCredential
    from workflows.paid_request.ending import PaymentEnding, as_refused
    from workflows.paid_request.inbox import PaymentInbox
    from workflows.paid_request.journal import PaymentJournal
    from workflows.paid_request.rules import PaymentRefused
    from workflows.paid_request.state import PinnedTerms
    from workflows.refusals import INTERNAL_ERROR, require
    from workflows.webhooks.news import WebhookOutbox


@workflow.defn(name=PAID_REQUEST.name)
class PaidRequest:
    """One paid request. Its workflow id is its own id and the root of its idempotency keys."""

    @workflow.init
    @starting
    def __init__(self, start: PaidRequestStart) -> None:
        self._outbox = Outbox(start.session_id)
        self._webhooks = WebhookOutbox(gathers=True)
        journal = PaymentJournal(start, self._outbox, self._webhooks)
        inbox = PaymentInbox(journal)
        authorization = PaymentAuthorization(journal, inbox)
        credential = PaymentCredential(journal, inbox)
        self._journal, self._inbox = journal, inbox
        self._authorization, self._credential = authorization, credential
        self._ending = PaymentEnding(journal, authorization, credential)

    @workflow.run
    @ending
    async def run(self, start: PaidRequestStart) -> PaidRequestView:
        """Pays and delivers, or undoes; the final view says which, and whether money moved."""
        telling, telling_webhooks = self._outbox.start(), self._webhooks.start()
        self._note_request(start)
        try:
            await self._pay_and_deliver(start)
        except PaymentRefused as refused:
            await self._undo(refused)
        except CallFailure as failure:
            await self._undo(as_refused(failure))
        except asyncio.CancelledError:
            self._journal.note("workflow.cancel", "operator", {"status": self._journal.state.status})
            await self._undo(PaymentRefused("canceled", "the workflow was canceled", "refused"))
        except Exception:
            workflow.logger.exception("The payment can't go on; it is undone")
            await self._undo(PaymentRefused("internal_error", INTERNAL_ERROR, "failed"))
        self._webhooks.hurry()
        await workflow.wait_condition(self._is_quiet)
        self._journal.sum_up_calls()
        telling.cancel()
        telling_webhooks.cancel()
        return self.status()

    def _is_quiet(self) -> bool:
        return self._outbox.empty and self._webhooks.empty and workflow.all_handlers_finished()

    async def _undo(self, refused: PaymentRefused) -> None:
        try:
            await self._ending.undo(refused)
        except Exception:
            workflow.logger.exception("The payment can't be undone; it is ended as it stands")
            await self._ending.abandon()

    # What people may say

    @workflow.signal
    @drop_unless(Approve)
    async def approve(self, approval: Approve) -> None:
        """This person agrees to the terms with this digest."""
        await self._inbox.decide(approval)

    @workflow.signal
    @drop_unless(Reject)
    async def reject(self, rejection: Reject) -> None:
        """This person says no."""
        await self._inbox.decide(rejection)

    @workflow.update
    @answering
    async def decide(self, decision: Decision) -> PaidRequestView:
        """Approves or rejects; returns the request once it is under way or undone.

        Raises:
            ApplicationError: ``NotProven``, ``NotAwaitingApproval``, ``AlreadyDecided``, ``StaleDigest``,
                ``NotAnApprover``, ``InvalidDecision``.
        """
        await self._inbox.decide(the_one_in(decision), tell=True)
        await workflow.wait_condition(lambda: self._journal.state.status != "awaiting_approval")
        return self.status()

    @decide.validator
    def _decide_is_well_formed(self, decision: Decision) -> None:
        require(decision, Decision)

    @workflow.signal
    @drop_unless(Cancel)
    def cancel(self, cancellation: Cancel) -> None:
        """Stop, if nothing was sent yet."""
        self._inbox.cancel(cancellation)

    @workflow.signal
    @drop_unless(RevokeRequest)
    def mandate_revoked(self, revocation: RevokeRequest) -> None:
        """The mandate was revoked; sent by the mandate itself."""
        self._inbox.mandate_revoked(revocation)

    @workflow.update
    @answering
    async def answered(self) -> PaidRequestView:
        """Waits until there is an answer to hand over, or none will come.

        The money may still be being looked after: see ``final``.
        """

        def settled() -> bool:
            result = self._journal.state.result
            return result.answer is not None or result.refusal is not None or self._journal.is_final

        await workflow.wait_condition(settled)
        return self.status()

    @workflow.update
    @answering
    async def outcome(self) -> PaidRequestView:
        """Waits for the end."""
        await workflow.wait_condition(lambda: self._journal.is_final)
        return self.status()

    @workflow.query
    def status(self) -> PaidRequestView:
        """Returns the request as it stands; nothing secret is in it."""
        return self._journal.view()

    @workflow.query
    def digest(self) -> str:
        """Returns what its id stands for: the digest of all that it was started with."""
        return self._journal.start.digest()

    @workflow.query
    def audit(self) -> AuditTrail:
        """Returns every step so far, each entry carrying the hash of the one before."""
        return self._journal.trail()

    # The way of the money

    async def _pay_and_deliver(self, start: PaidRequestStart) -> None:
        if len(self._journal.id) > rules.MAX_PAYMENT_ID_CHARACTERS:
            raise PaymentRefused("payment_id_too_long", "use a workflow id of at most 200 characters")
        probed = await self._first_answer(start)
        if probed.answer is not None:
            self._journal.replace(result=replace(self._journal.state.result, answer=probed.answer))
            self._journal.advance("free")
            return
        self._journal.replace(request=probed.request)
        terms = self._pin(rules.choose_offer(start, probed))
        while True:
            reserved = await self._authorization.reserve(terms)
            await self._authorization.approve(terms, reserved)
            terms = await self._fresh(terms)
            redeemed, closed = await self._credential.spend(terms, reserved)
            if not await self._ending.settle(redeemed, closed):
                return
            terms = await self._renewed(terms)
            self._journal.note("offer.renewed", "server", {"challenge": terms.offer.challenge_id})

    async def _first_answer(self, start: PaidRequestStart) -> ProbeAnswer:
        request = self._journal.state.request
        if start.first_answer is not None:
            return await calls.read_offers(ReadOffers(request=request, headers=start.first_answer))
        try:
            check_transport(request.url)
        except RequestInvalidError as error:
            raise PaymentRefused(error.rule, str(error)) from None
        await self._authorization.check_seller()
        return await calls.probe(self._journal, request)

    def _pin(self, offer: Offer) -> PinnedTerms:
        """From here on only this price, payee, currency and realm will be paid."""
        terms = PinnedTerms(offer=offer, digest=rules.terms_digest(self._journal.start, offer))
        self._journal.replace(terms=terms)
        self._journal.note(
            "offer.pinned",
            "server",
            {
                "rail": offer.rail,
                "amount": offer.price.amount,
                "currency": offer.price.currency,
                "payee": offer.payee,
                "realm": offer.realm,
                "challenge": offer.challenge_id,
                "digest": terms.digest,
            },
        )
        self._journal.advance("choosing")
        return terms

    async def _fresh(self, terms: PinnedTerms) -> PinnedTerms:
        """Returns the terms, under a new challenge if the old one ran out while a person thought."""
        ends = terms.offer.expires_at
        if ends is None or ends - workflow.now() > policies.CHALLENGE_MARGIN:
            return terms
        return await self._renewed(terms)

    async def _renewed(self, terms: PinnedTerms) -> PinnedTerms:
        """Returns the terms under a new challenge; raises ``PaymentRefused`` where they have changed."""
        probed = await calls.probe(self._journal, self._journal.state.request)
        return replace(terms, offer=rules.same_offer_again(terms.offer, probed))

    def _note_request(self, start: PaidRequestStart) -> None:
        self._journal.note(
            "payment.requested",
            start.agent,
            {
                "mandate_id": start.mandate_id,
                "url": start.request.url,
                "method": start.request.method,
                "max_amount": start.max_price.amount,
                "currency": start.max_price.currency,
            },
        )
