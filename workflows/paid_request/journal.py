"""The only ways to change a paid request's state: replace a part, take a step, note, announce."""

from collections.abc import Mapping
from dataclasses import replace

from pydantic import JsonValue
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.paid_request.rules as rules
    from waystation.models.mandates import HeldReservation
    from waystation.models.payments import (
        Offer,
        PaidHttpRequest,
        PaidRequestStart,
        PaidRequestStatus,
        PaidRequestView,
        PaymentRefusal,
    )
    from waystation.models.trail import AuditTrail
    from waystation.models.webhooks import news_of_money
    from workflows.outbox import Outbox
    from workflows.paid_request.state import (
        ApprovalState,
        CredentialState,
        PaidRequestState,
        PinnedTerms,
        ResultState,
        StopState,
        assert_follows,
    )
    from workflows.trail import Trail
    from workflows.waiting import mark_waiting
    from workflows.webhooks.news import WebhookOutbox

Detail = Mapping[str, JsonValue]


class PaymentJournal:
    """Holds the state of one paid request, keeps its trail, and tells its session and webhooks."""

    def __init__(self, start: PaidRequestStart, outbox: Outbox, webhooks: WebhookOutbox) -> None:
        self.start = start
        self._outbox, self._webhooks = outbox, webhooks
        self._state = PaidRequestState(
            request=start.request,
            updated_at=workflow.now(),
            trail=Trail(max_entries=rules.MAX_AUDIT_ENTRIES),
        )

    @property
    def id(self) -> str:
        """The paid request's id, which is its workflow's."""
        return workflow.info().workflow_id

    @property
    def state(self) -> PaidRequestState:
        """The present snapshot."""
        return self._state

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return rules.is_final(self._state.status)

    def replace(
        self,
        *,
        request: PaidHttpRequest | None = None,
        terms: PinnedTerms | None = None,
        approval: ApprovalState | None = None,
        stop: StopState | None = None,
        credential: CredentialState | None = None,
        result: ResultState | None = None,
    ) -> None:
        """Replaces the records given, all in one step; the others stay."""
        before = self._state
        self._put(
            replace(
                before,
                request=request or before.request,
                terms=terms or before.terms,
                approval=approval or before.approval,
                stop=stop or before.stop,
                credential=credential or before.credential,
                result=result or before.result,
            )
        )

    def hold(self, reservation: HeldReservation | None) -> None:
        """Writes down what the mandate holds, or that it holds nothing any more."""
        self._put(replace(self._state, reservation=reservation))

    def refuse(self, refusal: PaymentRefusal | None) -> None:
        """Writes down why the request is not paid or answered; ``None`` once it is after all."""
        self.replace(result=replace(self._state.result, refusal=refusal))

    def advance(self, status: PaidRequestStatus) -> None:
        """Takes a step, notes it, and tells the session."""
        before = self._state.status
        if status == before:
            return
        mark_waiting(before, status)
        self.sum_up_calls()
        self.note("payment.status", "waystation", {"from": before, "to": status})
        self._put(replace(self._state, status=status))
        self.announce("payment.updated", self._summary())

    def note(self, action: str, actor: str, detail: Detail) -> None:
        """Adds a step of the request's own to the trail."""
        now = workflow.now()
        trail = self._state.trail.noted(action, actor, detail, time=now)
        self._put(replace(self._state, trail=trail, updated_at=now))

    def note_signal(self, action: str, actor: str, detail: Detail) -> None:
        """Adds what somebody else said, while there is room for that."""
        now = workflow.now()
        trail = self._state.trail.heard(action, actor, detail, time=now)
        self._put(replace(self._state, trail=trail, updated_at=now))

    def note_call(self, action: str, actor: str, detail: Detail) -> None:
        """Adds what a server or processor was asked or has answered."""
        now = workflow.now()
        trail = self._state.trail.called(action, actor, detail, time=now)
        self._put(replace(self._state, trail=trail, updated_at=now))

    def sum_up_calls(self) -> None:
        """Makes entries of the answers that were only counted."""
        trail = self._state.trail.summed_up(time=workflow.now())
        self._put(replace(self._state, trail=trail))

    def announce(self, kind: str, data: Detail) -> None:
        """Lets the session and webhooks know."""
        self._outbox.put([{"type": kind, "data": {"payment_id": self.id, **data}}])
        start, terms = self.start, self._state.terms
        facts: dict[str, JsonValue] = {
            "payment_id": self.id,
            **(offer_facts(terms.offer) if terms else {}),
            **data,
            "session_id": start.session_id,
            "turn_id": start.turn_id,
            "agent": start.agent,
            "mandate_id": start.mandate_id,
        }
        self._webhooks.put(news_of_money(self.id, kind, workflow.now(), facts))

    def trail(self) -> AuditTrail:
        """Returns every step so far."""
        return self._state.trail.of(self.id)

    def view(self) -> PaidRequestView:
        """Returns the request as it stands; nothing secret is in it."""
        state, terms, credential = self._state, self._state.terms, self._state.credential.current
        waits = state.status == "awaiting_approval"
        return PaidRequestView(
            payment_id=self.id,
            status=state.status,
            final=self.is_final,
            url=state.request.url,
            method=state.request.method,
            offer=terms.offer if terms else None,
            terms_digest=terms.digest if terms else None,
            body_sha256=rules.body_sha256(state.request) if state.request.body_base64 else None,
            approval_deadline=state.approval.deadline if waits else None,
            approvers=state.approval.approvers,
            approved_by=state.approval.approved_by,
            credential_fingerprint=credential.fingerprint if credential else None,
            money_moved=state.money_moved,
            receipt=state.result.receipt,
            answer=state.result.answer,
            refusal=state.result.refusal,
            updated_at=state.updated_at,
            agent=self.start.agent,
            mandate_id=self.start.mandate_id,
            session_id=self.start.session_id,
            turn_id=self.start.turn_id,
            start_digest=self.start.earlier_digest(),
        )

    def question(self, terms: PinnedTerms) -> dict[str, JsonValue]:
        """Returns all that the digest of the terms covers, who is asked to approve them, and until when."""
        request, approval = self._state.request, self._state.approval
        facts: dict[str, JsonValue] = {
            "digest": terms.digest,
            "method": request.method,
            "url": request.url,
            "realm": terms.offer.realm,
            **offer_facts(terms.offer),
            "turn_id": self.start.turn_id,
            "approvers": [*approval.approvers],
            "deadline": approval.deadline.isoformat() if approval.deadline else None,
        }
        return facts | ({"body_sha256": rules.body_sha256(request)} if request.body_base64 else {})

    def _summary(self) -> dict[str, JsonValue]:
        """Returns what a session's reader needs to follow a paid request."""
        state = self._state
        refusal = state.result.refusal
        summary: dict[str, JsonValue] = {
            "status": state.status,
            "url": state.request.url,
            "turn_id": self.start.turn_id,
            **(offer_facts(state.terms.offer) if state.terms else {}),
            "refusal": refusal.model_dump(mode="json") if refusal else None,
            "money_moved": state.money_moved,
        }
        return {key: value for key, value in summary.items() if value is not None}

    def _put(self, after: PaidRequestState) -> None:
        assert_follows(self._state, after)
        self._state = after


def offer_facts(offer: Offer) -> dict[str, JsonValue]:
    """Returns an offer's terms as trail and session say them."""
    return {
        "rail": offer.rail.value,
        "amount": offer.price.amount,
        "currency": offer.price.currency,
        "payee": offer.payee,
    }
