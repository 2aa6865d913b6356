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
from collections.abc import Mapping
from datetime import timedelta

from pydantic import JsonValue
from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    import activities.contract as contract
    import workflows.mandate.calls as mandates
    import workflows.paid_request.rules as rules
    import workflows.policies as policies
    from activities.contract import (
        CREDENTIAL_NOT_MINTED,
        MANDATE_REFUSED,
        REQUEST_INVALID,
        CloseCall,
        CommitFor,
        PaidRequestCalls,
        ReadOffers,
        RedeemCall,
        ReleaseFor,
        ReserveFor,
    )
    from waystation.buyer.origins import RequestInvalidError, check_transport, origin_of
    from waystation.models.decisions import (
        Approve,
        Cancel,
        Decision,
        Reject,
    )
    from waystation.models.mandates import (
        CommitRequest,
        ReleaseRequest,
        ReserveAnswer,
        ReserveRequest,
        RevokeRequest,
    )
    from waystation.models.payments import (
        ClosedCredential,
        HttpAnswer,
        MintCall,
        MintedCredential,
        MoneyMoved,
        Offer,
        PaidRequestStart,
        PaidRequestStatus,
        PaidRequestView,
        PaymentRefusal,
        ProbeAnswer,
        Receipt,
        RedeemAnswer,
    )
    from waystation.models.trail import AuditTrail
    from workflows.arguments import drop_unless
    from workflows.calls import CallFailure, CallOptions, call_options, durable, quick, settle
    from workflows.decisions import check_decision, the_one_in
    from workflows.keys import step_key
    from workflows.outbox import Outbox
    from workflows.paid_request.rules import PaymentRefused
    from workflows.refusals import require
    from workflows.trail import Trail
    from workflows.waiting import mark_waiting

_PROBE = call_options(
    policies.PROBE_CALL_TIMEOUT, policies.PROBE_CALL_RETRY, heartbeat=policies.PAID_REQUEST_HEARTBEAT
)
_MINT = call_options(
    policies.MINT_CALL_TIMEOUT, policies.MINT_CALL_RETRY, heartbeat=policies.PAID_REQUEST_HEARTBEAT
)
_REDEEM = call_options(
    policies.REDEEM_CALL_TIMEOUT, policies.REDEEM_CALL_RETRY, heartbeat=policies.PAID_REQUEST_HEARTBEAT
)
_LATE_REDEEM = call_options(
    policies.REDEEM_CALL_TIMEOUT, policies.LATE_REDEEM_RETRY, heartbeat=policies.PAID_REQUEST_HEARTBEAT
)
_CLOSE = call_options(
    policies.CLOSE_CALL_TIMEOUT,
    policies.CLOSE_CALL_RETRY,
    heartbeat=policies.PAID_REQUEST_HEARTBEAT,
    give_up=policies.CLOSE_GIVE_UP,
)


@workflow.defn(name="PaidRequest")
class PaidRequest:
    """One paid request. Its workflow id is the payment's id and the root of its idempotency keys."""

    @workflow.init
    def __init__(self, start: PaidRequestStart) -> None:
        self._start = start
        self._request = start.request
        self._status: PaidRequestStatus = "probing"
        self._updated_at = workflow.now()
        self._offer: Offer | None = None
        self._digest: str | None = None
        self._approvers: tuple[str, ...] = ()
        self._decision: Approve | Reject | None = None
        self._approved_by: str | None = None
        self._cancel: Cancel | None = None
        self._revoked: RevokeRequest | None = None
        self._reservation: str | None = None
        self._credential: MintedCredential | None = None
        self._minted = 0
        self._sent = False
        self._money_moved: MoneyMoved = "no"
        self._receipt: Receipt | None = None
        self._answer: HttpAnswer | None = None
        self._refusal: PaymentRefusal | None = None
        self._trail = Trail(max_entries=rules.MAX_AUDIT_ENTRIES)
        self._outbox = Outbox(start.session_id)

    @workflow.run
    async def run(self, start: PaidRequestStart) -> PaidRequestView:
        """Pay and deliver, or undo; the final view says which, and whether money moved."""
        telling = self._outbox.start()
        self._note_request()
        try:
            await self._pay_and_deliver()
        except PaymentRefused as refused:
            await self._undo(refused)
        except CallFailure as failure:
            await self._undo(_as_refused(failure))
        except asyncio.CancelledError:
            self._note("workflow.cancel", "operator", {"status": self._status})
            await self._undo(PaymentRefused("canceled", "the workflow was canceled", "refused"))
        await workflow.wait_condition(lambda: self._outbox.empty and workflow.all_handlers_finished())
        telling.cancel()
        return self.status()

    # What people may say

    @workflow.signal
    @drop_unless(Approve)
    def approve(self, approval: Approve) -> None:
        """This person agrees to the terms with this digest."""
        self._decide_or_note(approval)

    @workflow.signal
    @drop_unless(Reject)
    def reject(self, rejection: Reject) -> None:
        """This person says no."""
        self._decide_or_note(rejection)

    @workflow.update
    async def decide(self, decision: Decision) -> PaidRequestView:
        """Approve or reject, be told whether it counts, and see the request once it is under way or undone.

        Raises:
            ApplicationError: ``NotAwaitingApproval``, ``AlreadyDecided``, ``StaleDigest``, ``NotAnApprover``,
                ``InvalidDecision``.
        """
        self._decide_or_note(the_one_in(decision), tell=True)
        await workflow.wait_condition(lambda: self._status != "awaiting_approval")
        return self.status()

    @decide.validator
    def _decide_is_well_formed(self, decision: Decision) -> None:
        require(decision, Decision)

    @workflow.signal
    @drop_unless(Cancel)
    def cancel(self, cancellation: Cancel) -> None:
        """Stop, if nothing was sent yet."""
        self._heard("cancel.received", cancellation.by, {"reason": cancellation.reason})
        self._cancel = self._cancel or cancellation

    @workflow.signal
    @drop_unless(RevokeRequest)
    def mandate_revoked(self, revocation: RevokeRequest) -> None:
        """The mandate was taken back; sent by the mandate itself."""
        self._heard("mandate.revoked", revocation.by, {"reason": revocation.reason})
        self._revoked = self._revoked or revocation

    @workflow.update
    async def answered(self) -> PaidRequestView:
        """Wait until there is an answer to hand over, or none will come.

        The money may still be being looked after: see ``final``.
        """
        await workflow.wait_condition(
            lambda: self._answer is not None or self._refusal is not None or rules.is_final(self._status)
        )
        return self.status()

    @workflow.update
    async def outcome(self) -> PaidRequestView:
        """Wait for the end."""
        await workflow.wait_condition(lambda: rules.is_final(self._status))
        return self.status()

    @workflow.query
    def status(self) -> PaidRequestView:
        """Where the request stands; nothing secret is in it."""
        return PaidRequestView(
            payment_id=self._id,
            status=self._status,
            final=rules.is_final(self._status),
            url=self._request.url,
            method=self._request.method,
            offer=self._offer,
            terms_digest=self._digest,
            approved_by=self._approved_by,
            credential_fingerprint=self._credential.fingerprint if self._credential else None,
            money_moved=self._moved_so_far(),
            receipt=self._receipt,
            answer=self._answer,
            refusal=self._refusal,
            updated_at=self._updated_at,
        )

    @workflow.query
    def audit(self) -> AuditTrail:
        """Every step so far, each entry carrying the hash of the one before."""
        return self._trail.of(self._id)

    def _moved_so_far(self) -> MoneyMoved:
        """From the moment a credential may be out, nobody knows until processor or chain was asked."""
        asked = self._status not in ("paying", "confirming") or self._credential is None
        return self._money_moved if asked else "unknown"

    def _decide_or_note(self, wanted: Approve | Reject, *, tell: bool = False) -> None:
        kind = "approval" if isinstance(wanted, Approve) else "rejection"
        try:
            check_decision(
                wanted,
                what="payment",
                # From its refusal on it only still has to give its room in the mandate back.
                status=self._status if self._refusal is None else "refused",
                decided_by=self._decision.approver if self._decision else None,
                agent=self._start.agent,
                approvers=self._approvers,
                digest=self._digest,
            )
        except ApplicationError as refusal:
            self._heard(f"{kind}.refused", wanted.approver, {"why": refusal.type, "digest": wanted.digest})
            if tell:
                raise
            return
        self._heard(f"{kind}.received", wanted.approver, {"digest": wanted.digest})
        self._decision = wanted

    # The way of the money

    async def _pay_and_deliver(self) -> None:
        if len(self._id) > rules.MAX_PAYMENT_ID_CHARACTERS:
            raise PaymentRefused("payment_id_too_long", "use a workflow id of at most 200 characters")
        probed = await self._first_answer()
        if probed.answer is not None:
            self._answer = probed.answer
            self._advance("free")
            return
        self._request = probed.request
        offer = rules.choose_offer(self._start, probed)
        self._pin(offer)
        while True:
            reserved = await self._reserve(offer)
            await self._approval(offer, reserved)
            offer = await self._fresh(offer)
            redeemed, closed = await self._spend(offer, reserved)
            if not await self._settle(offer, redeemed, closed):
                return
            offer = rules.same_offer_again(offer, await self._probe())
            self._note("offer.renewed", "server", {"challenge": offer.challenge_id})

    async def _first_answer(self) -> ProbeAnswer:
        headers = self._start.first_answer
        if headers is None:
            await self._check_seller()
            return await self._probe()
        return await settle(
            workflow.execute_local_activity_method(
                PaidRequestCalls.read_payment_offers,
                ReadOffers(request=self._request, headers=headers),
                start_to_close_timeout=policies.READ_OFFERS_TIMEOUT,
                retry_policy=policies.READ_OFFERS_RETRY,
            )
        )

    async def _check_seller(self) -> None:
        """Before anything is sent, even unpaid: a mandate says where its agent may go."""
        try:
            check_transport(self._request.url)
        except RequestInvalidError as error:
            raise PaymentRefused(error.rule, str(error)) from None
        mandate = await mandates.read(self._start.mandate_id)
        origin = origin_of(self._request.url)
        if not {"*", origin} & set(mandate.terms.sellers):
            raise PaymentRefused("seller_not_allowed", f"the mandate does not allow {origin}")

    async def _probe(self) -> ProbeAnswer:
        return await durable(PaidRequestCalls.probe_paid_resource, self._request, _PROBE)

    def _pin(self, offer: Offer) -> None:
        """From here on only this price, payee, currency and realm will be paid."""
        self._offer = offer
        self._digest = rules.terms_digest(self._start, offer)
        self._note(
            "offer.pinned",
            "server",
            {
                "rail": offer.rail,
                "amount": offer.price.amount,
                "currency": offer.price.currency,
                "payee": offer.payee,
                "realm": offer.realm,
                "challenge": offer.challenge_id,
                "digest": self._digest,
            },
        )
        self._advance("choosing")

    async def _reserve(self, offer: Offer) -> ReserveAnswer:
        self._raise_if_stopped()
        # Written down before it is sent: whatever happens now, this key gets settled in the end.
        self._reservation = step_key(self._id, "reserve", self._minted + 1)
        hold = policies.HOLD_MARGIN + timedelta(seconds=self._start.approval_timeout_seconds)
        reserved = await mandates.reserve_for_moments(
            ReserveFor(
                mandate_id=self._start.mandate_id,
                request=ReserveRequest(
                    key=self._reservation,
                    amount=offer.price,
                    seller=origin_of(self._request.url),
                    agent=self._start.agent,
                    protocol=rules.protocol_of(offer.rail),
                    hold_seconds=int(hold.total_seconds()),
                    holder=self._id,
                ),
            )
        )
        self._note("mandate.reserved", "mandate", {"key": self._reservation, "amount": offer.price.amount})
        return reserved

    async def _approval(self, offer: Offer, reserved: ReserveAnswer) -> None:
        if not reserved.approval_required:
            self._approved_by = f"mandate:{self._start.mandate_id}"
            return
        if self._approved_by is not None:
            return  # the same terms under a fresh challenge
        self._approvers = reserved.approvers
        self._advance("awaiting_approval")
        self._announce("approval.requested", {"digest": self._digest, **self._facts(offer)})
        try:
            await workflow.wait_condition(
                lambda: self._decision is not None or self._stopped(),
                timeout=self._start.approval_timeout_seconds,
            )
        except TimeoutError:
            raise PaymentRefused("approval_expired", "nobody approved in time; ask again") from None
        self._raise_if_stopped()
        if isinstance(self._decision, Reject):
            raise PaymentRefused(
                "rejected", f"rejected by {self._decision.approver}: {self._decision.reason or 'no reason'}"
            )
        if self._decision is not None:
            self._approved_by = self._decision.approver
            self._announce("approval.granted", {"digest": self._digest, "approver": self._approved_by})

    async def _fresh(self, offer: Offer) -> Offer:
        """The offer, under a new challenge if the old one ran out while a person thought."""
        ends = offer.expires_at
        if ends is None or ends - workflow.now() > policies.CHALLENGE_MARGIN:
            return offer
        return rules.same_offer_again(offer, await self._probe())

    async def _spend(
        self, offer: Offer, reserved: ReserveAnswer
    ) -> tuple[RedeemAnswer | None, ClosedCredential]:
        """Mint one credential, send it until there is an answer, and find out what became of it."""
        self._raise_if_stopped()
        self._offer = offer
        self._minted += 1
        self._advance("paying")
        credential = await self._mint(offer, reserved)
        self._raise_if_stopped()
        self._sent = True
        redeemed = await self._redeem(offer, credential, _REDEEM)
        self._advance("confirming")
        closed = await self._close(offer, credential)
        if closed.money_moved == "yes" and redeemed is None:
            # Paid, and the answer is owed: the same credential, patiently.
            redeemed = await self._redeem(offer, credential, _LATE_REDEEM)
        return redeemed, closed

    async def _mint(self, offer: Offer, reserved: ReserveAnswer) -> MintedCredential:
        method = self._start.payment_method
        if method is not None and method not in reserved.payment_methods:
            raise PaymentRefused("payment_method_not_allowed", "the mandate doesn't name this payment method")
        # A local activity saves a round trip: what it made is in the history before the next step
        # begins. It may run twice, so nothing in its call may come from the clock of this task.
        at_once = self._minted == 1 and not reserved.approval_required
        at = workflow.info().start_time if at_once else workflow.now()
        call = MintCall(
            offer=offer,
            payment_id=self._id,
            key=step_key(self._id, "mint", self._minted),
            at=at,
            expires_at=min(at + policies.CREDENTIAL_LIFETIME, reserved.valid_until),
            payment_method=method or next(iter(reserved.payment_methods), None),
        )
        mint = PaidRequestCalls.mint_payment_credential
        credential = await (quick(mint, call, _MINT) if at_once else durable(mint, call, _MINT))
        self._credential = credential
        detail = {"credential": credential.fingerprint, **self._facts(offer)}
        self._note("credential.minted", "waystation", detail)
        return credential

    async def _redeem(
        self, offer: Offer, credential: MintedCredential, options: CallOptions
    ) -> RedeemAnswer | None:
        """What came back for the credential; None when nothing did."""
        call = RedeemCall(
            request=self._request,
            offer=offer,
            credential=credential,
            key=step_key(self._id, "request", self._minted),
        )
        self._note("credential.sent", "waystation", {"credential": credential.fingerprint, "key": call.key})
        try:
            redeemed = await durable(PaidRequestCalls.redeem_payment_credential, call, options)
        except CallFailure as failure:
            self._note("server.silent", "server", {"kind": failure.kind, "code": failure.code})
            return None
        answer, receipt = redeemed.answer, redeemed.receipt
        self._answer, self._receipt = answer, receipt
        self._note(
            "server.answered",
            "server",
            {
                "kind": redeemed.kind,
                "status": answer.status if answer else None,
                "body_sha256": answer.body_sha256 if answer else None,
                "problem": redeemed.problem,
                "receipt": receipt.reference if receipt else None,
            },
        )
        return redeemed

    async def _close(self, offer: Offer, credential: MintedCredential) -> ClosedCredential:
        """The processor's or chain's word. A signed authorization is waited out where need be."""
        call = CloseCall(offer=offer, credential=credential, key=step_key(self._id, "close", self._minted))
        closed = await self._ask_what_became(call)
        if closed.money_moved == "unknown" and self._answer is None and credential.valid_before is not None:
            remaining = credential.valid_before - workflow.now() + policies.AUTHORIZATION_MARGIN
            if remaining > timedelta(0):
                self._refusal = PaymentRefusal(
                    rule="payment_not_answered",
                    message="the server didn't deliver; whether money moved is known when the signature ends",
                )
                await workflow.sleep(remaining)
            closed = await self._ask_what_became(call)
        self._money_moved = closed.money_moved
        detail = {"money_moved": closed.money_moved, "amount": closed.amount}
        self._note("credential.closed", closed.source, detail)
        return closed

    async def _ask_what_became(self, call: CloseCall) -> ClosedCredential:
        try:
            return await durable(PaidRequestCalls.close_payment_credential, call, _CLOSE)
        except CallFailure as failure:
            self._note("credential.unclear", "waystation", {"kind": failure.kind, "code": failure.code})
            return ClosedCredential(money_moved="unknown", source="nobody")

    async def _settle(self, offer: Offer, redeemed: RedeemAnswer | None, closed: ClosedCredential) -> bool:
        """Commit or release, and end. True when one more credential is in order."""
        self._check_receipt(closed)
        if closed.money_moved == "no":
            await self._release("the credential moved no money")
            if redeemed is not None and rules.may_mint_again(redeemed, closed, self._minted):
                self._credential, self._sent, self._refusal = None, False, None
                return True
            if self._answer is not None:
                self._note("delivered.unpaid", "server", {})
                self._deliver()
                return False
            raise _nothing_moved(redeemed)
        await self._commit(offer, closed)
        self._end(closed)
        return False

    def _check_receipt(self, closed: ClosedCredential) -> None:
        """An unsigned receipt is the server's word; the processor's or chain's word is set against it."""
        if self._receipt is None or closed.source == "nobody":
            return
        matches = closed.money_moved == "yes" if self._receipt.status == "success" else False
        self._receipt = self._receipt.model_copy(update={"matches_payment": matches})

    def _deliver(self) -> None:
        self._refusal = None
        self._advance("delivered")

    def _end(self, closed: ClosedCredential) -> None:
        """The end of a payment that is spent or counts as spent."""
        if self._answer is not None:
            self._deliver()
            return
        if closed.money_moved == "yes":
            rule, status = "paid_without_answer", "undelivered"
            message = "the money moved but the server never gave the answer; take it up with the server"
        else:
            rule, status = "outcome_unknown", "unknown"
            message = "nobody can say whether money moved; it counts as spent until a person has looked"
        self._refusal = PaymentRefusal(rule=rule, message=message)
        self._advance("undelivered" if status == "undelivered" else "unknown")

    async def _commit(self, offer: Offer, closed: ClosedCredential) -> None:
        if self._reservation is None:
            return
        amount = offer.price.amount if closed.amount is None else min(closed.amount, offer.price.amount)
        request = CommitRequest(key=self._reservation, amount=amount)
        try:
            await mandates.commit(CommitFor(mandate_id=self._start.mandate_id, request=request))
            self._note("mandate.committed", "mandate", {"key": self._reservation, "amount": amount})
        except CallFailure as failure:
            self._note("mandate.commit_failed", "mandate", {"key": self._reservation, "code": failure.code})
        self._reservation = None

    async def _release(self, reason: str) -> None:
        if self._reservation is None:
            return
        request = ReleaseRequest(key=self._reservation, reason=reason)
        try:
            await mandates.release(ReleaseFor(mandate_id=self._start.mandate_id, request=request))
            self._note("mandate.released", "mandate", {"key": self._reservation, "why": reason})
        except CallFailure as failure:
            self._note("mandate.release_failed", "mandate", {"key": self._reservation, "code": failure.code})
        self._reservation = None

    async def _undo(self, refused: PaymentRefused) -> None:
        """After a refusal on the way: make sure nothing can be charged, then give the room back."""
        self._note("payment.refused", "waystation", {"rule": refused.rule, "message": str(refused)})
        self._refusal = refused.as_refusal()
        offer, credential = self._offer, self._credential
        if offer is not None and credential is not None and self._is_dangerous(credential):
            closed = await self._close(offer, credential)
            self._check_receipt(closed)
            if closed.money_moved != "no":
                await self._commit(offer, closed)
                self._end(closed)
                return
        await self._release(refused.rule)
        if self._answer is not None:  # stopped when it was all but over
            self._deliver()
        else:
            self._advance(refused.status)

    def _is_dangerous(self, credential: MintedCredential) -> bool:
        """Whether somebody could still charge it: a token even unsent, a signature only once sent."""
        return self._sent or credential.token_id is not None

    # Stopping

    def _stopped(self) -> bool:
        return self._cancel is not None or self._revoked is not None

    def _raise_if_stopped(self) -> None:
        if self._revoked is not None:
            raise PaymentRefused("mandate_revoked", "the mandate was revoked; ask for a new one")
        if self._cancel is not None:
            raise PaymentRefused("canceled", f"canceled by {self._cancel.by}")

    # The trail and the session

    @property
    def _id(self) -> str:
        return workflow.info().workflow_id

    def _advance(self, status: PaidRequestStatus) -> None:
        if status == self._status:
            return
        mark_waiting(self._status, status)
        self._note("payment.status", "waystation", {"from": self._status, "to": status})
        self._status = status
        data = {"status": status, "url": self._request.url, "turn_id": self._start.turn_id}
        facts = self._facts(self._offer) if self._offer else {}
        refusal = self._refusal.model_dump(mode="json") if self._refusal else None
        shown = {**data, **facts, "refusal": refusal, "money_moved": self._moved_so_far()}
        self._announce("payment.updated", {key: value for key, value in shown.items() if value is not None})

    @staticmethod
    def _facts(offer: Offer) -> dict[str, JsonValue]:
        return {
            "rail": offer.rail.value,
            "amount": offer.price.amount,
            "currency": offer.price.currency,
            "payee": offer.payee,
        }

    def _note_request(self) -> None:
        start = self._start
        self._note(
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

    def _note(self, action: str, actor: str, detail: Mapping[str, JsonValue]) -> None:
        self._updated_at = workflow.now()
        self._trail = self._trail.noted(action, actor, detail, time=workflow.now())

    def _heard(self, action: str, actor: str, detail: Mapping[str, JsonValue]) -> None:
        self._updated_at = workflow.now()
        self._trail = self._trail.heard(action, actor, detail, time=workflow.now())

    def _announce(self, kind: str, data: Mapping[str, JsonValue]) -> None:
        self._outbox.put([{"type": kind, "data": {"payment_id": self._id, **data}}])


def _nothing_moved(redeemed: RedeemAnswer | None) -> PaymentRefused:
    """The end of a request whose credential is known to have moved no money."""
    if redeemed is None:
        return PaymentRefused("server_unavailable", "the server never answered; no money moved", "failed")
    if redeemed.kind == "refused":
        said = redeemed.problem or "no reason given"
        return PaymentRefused(
            "payment_refused", f"the server refused the payment ({said}); no money moved", "failed"
        )
    if redeemed.kind == "redirected":
        message = "the server redirected the paid request; the credential went nowhere else, no money moved"
        return PaymentRefused("redirected", message, "failed")
    return PaymentRefused("answer_too_large", "the answer is too large to take; no money moved", "failed")


def _as_refused(failure: CallFailure) -> PaymentRefused:
    """What a failed call means while nothing was sent."""
    if failure.kind in (MANDATE_REFUSED, REQUEST_INVALID, CREDENTIAL_NOT_MINTED):
        return PaymentRefused(failure.code, str(failure))
    if failure.kind == contract.PAYMENT_METHOD_DECLINED:
        return PaymentRefused("payment_declined", str(failure), "failed")
    rule = {
        contract.SELLER_UNAVAILABLE: "server_unavailable",
        contract.PROCESSOR_UNAVAILABLE: "processor_unavailable",
        contract.PROCESSOR_REFUSED: "processor_refused",
    }.get(failure.kind, "call_failed")
    return PaymentRefused(rule, str(failure), "failed")
