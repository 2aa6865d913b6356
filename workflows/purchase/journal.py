"""The only ways to change a purchase's state: replace a part, take a step, note in the trail, announce."""

from collections.abc import Mapping
from dataclasses import replace

from pydantic import JsonValue
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.purchase.rules as rules
    from waystation.models.purchases import NextAction, PurchaseStatus, PurchaseView
    from waystation.models.trail import AuditTrail
    from waystation.models.webhooks import news_of_money
    from workflows.outbox import Outbox
    from workflows.purchase.state import (
        ApprovalState,
        AuthorizationState,
        CheckoutState,
        CompletionState,
        InboxState,
        PaymentState,
        PurchaseState,
        assert_follows,
    )
    from workflows.waiting import mark_waiting
    from workflows.webhooks.news import WebhookOutbox

Detail = Mapping[str, JsonValue]


class PurchaseJournal:
    """Holds the state of one purchase, keeps its trail, and tells its session and webhooks."""

    def __init__(
        self, purchase_id: str, state: PurchaseState, outbox: Outbox, webhooks: WebhookOutbox
    ) -> None:
        self.id = purchase_id
        self._state = state
        self._outbox, self._webhooks = outbox, webhooks

    @property
    def state(self) -> PurchaseState:
        """The present snapshot."""
        return self._state

    @property
    def is_final(self) -> bool:
        """Whether the purchase has ended."""
        return self._state.status in rules.FINAL_STATUSES

    def replace(
        self,
        *,
        checkout: CheckoutState | None = None,
        authorization: AuthorizationState | None = None,
        approval: ApprovalState | None = None,
        payment: PaymentState | None = None,
        completion: CompletionState | None = None,
        inbox: InboxState | None = None,
    ) -> None:
        """Replaces the records given, all in one step; the others stay."""
        before = self._state
        self._put(
            replace(
                before,
                checkout=checkout or before.checkout,
                authorization=authorization or before.authorization,
                approval=approval or before.approval,
                payment=payment or before.payment,
                completion=completion or before.completion,
                inbox=inbox or before.inbox,
            )
        )

    def revise_request(self) -> None:
        """Applies the revision that waits: the checkout has to be stated anew."""
        state = self._state
        revision = state.inbox.revision
        assert revision is not None, "a revision is applied only when there is one"
        checkout = replace(
            state.checkout,
            restate=True,
            rounds=0,
            revisions=state.checkout.revisions + 1,
            revised_by=tuple(sorted({*state.checkout.revised_by, revision.by})),
            payable=None,
        )
        self._put(
            replace(
                state,
                request=rules.revised(state.request, revision),
                checkout=checkout,
                inbox=replace(state.inbox, revision=None),
            )
        )

    def advance(self, status: PurchaseStatus) -> None:
        """Takes a legal step, notes it, and tells the session."""
        before = self._state.status
        self._put(replace(self._state, status=rules.advance(before, status)))
        mark_waiting(before, status)
        if before != status:
            self.sum_up_calls()
            self.note("purchase.status", "waystation", {"from": before, "to": status})
            self.announce("purchase.updated", self.summary())

    def await_person(self, status: PurchaseStatus, *, revision: bool = False) -> None:
        """Takes a step to a status that waits for a person, with its deadline."""
        deadline = rules.revision_deadline if revision else rules.person_deadline
        until = deadline(self._state, now=workflow.now())
        self._put(replace(self._state, deadline=until))
        self.advance(status)

    def note(self, action: str, actor: str, detail: Detail | None = None) -> None:
        """Adds a step of the purchase's own to the trail."""
        trail = self._state.trail.noted(action, actor, detail or {}, time=workflow.now())
        self._put(replace(self._state, trail=trail))

    def note_signal(self, action: str, actor: str, detail: Detail | None = None) -> None:
        """Adds what somebody else said, while there is room for that."""
        trail = self._state.trail.heard(action, actor, detail or {}, time=workflow.now())
        self._put(replace(self._state, trail=trail))

    def note_call(self, action: str, actor: str, detail: Detail) -> None:
        """Adds what a seller or processor was asked or has answered."""
        trail = self._state.trail.called(action, actor, detail, time=workflow.now())
        self._put(replace(self._state, trail=trail))

    def sum_up_calls(self) -> None:
        """Makes entries of the answers that were only counted."""
        trail = self._state.trail.summed_up(time=workflow.now())
        self._put(replace(self._state, trail=trail))

    def announce(self, kind: str, data: Detail) -> None:
        """Lets the session and webhooks know."""
        self._outbox.put([{"type": kind, "data": {"purchase_id": self.id, **data}}])
        request, answer = self._state.request, self._state.checkout.answer
        facts: dict[str, JsonValue] = {
            "purchase_id": self.id,
            "total": answer.cart.total if answer else None,
            **data,
            "session_id": request.session_id,
            "turn_id": request.turn_id,
            "agent": request.agent.id,
            "mandate_id": request.mandate_id,
            "seller": request.seller,
            "currency": request.currency,
        }
        self._webhooks.put(news_of_money(self.id, kind, workflow.now(), facts))

    def trail(self) -> AuditTrail:
        """Returns every step so far."""
        return self._state.trail.of(self.id)

    def summary(self) -> dict[str, JsonValue]:
        """Returns what a session's reader needs to follow a purchase; nothing secret is in it."""
        state, answer, end = self._state, self._state.checkout.answer, self._state.completion.end
        summary: dict[str, JsonValue] = {
            "status": state.status,
            "seller": state.request.seller,
            "currency": state.request.currency,
            "total": answer.cart.total if answer else None,
            "digest": state.checkout.digest,
            "turn_id": state.request.turn_id,
        }
        if answer and state.status in ("escalated", "needs_revision"):
            summary["continue_url"] = answer.continue_url
            summary["messages"] = [m.model_dump(mode="json") for m in answer.messages]
        if answer and state.status == "authentication_required":
            summary["authentication"] = answer.authentication
            action = self._next_action()
            summary["next_action"] = action.model_dump(exclude_none=True) if action else None
        if end and self.is_final:
            summary["refusal"] = end.refusal.model_dump(mode="json")
        if state.payment.charge is not None:
            summary["charge"] = state.payment.charge.model_dump(mode="json", exclude_none=True)
        if order := state.completion.order:
            summary["order"] = {"id": order.id, "status": order.status, "permalink_url": order.permalink_url}
        return {key: value for key, value in summary.items() if value is not None}

    def view(self) -> PurchaseView:
        """Returns the purchase as it stands."""
        state, answer = self._state, self._state.checkout.answer
        end = state.completion.end
        authenticating = state.status == "authentication_required"
        return PurchaseView(
            purchase_id=self.id,
            status=state.status,
            final=self.is_final,
            request=state.request,
            cart=answer.cart if answer else None,
            digest=state.checkout.digest,
            approval=state.approval.record,
            approval_deadline=state.deadline if state.status == "awaiting_approval" else None,
            approvers=state.authorization.mandate.approvers if state.authorization.mandate else (),
            messages=answer.messages if answer else (),
            continue_url=answer.continue_url if answer else None,
            authentication=answer.authentication if answer and authenticating else None,
            next_action=self._next_action(),
            options=answer.options if answer else (),
            receipt=state.completion.receipt,
            order=state.completion.order,
            refusal=end.refusal if end else None,
            money_moved=state.payment.money_moved,
            charge=state.payment.charge,
            payment_tries=state.payment.tries,
            waits_for_a_person=state.waits_for_a_person,
            turns_of_people=state.turns_of_people,
            updated_at=state.updated_at,
        )

    def _next_action(self) -> NextAction | None:
        token = self._state.payment.token
        return token.next_action if token and self._state.status == "authentication_required" else None

    def _put(self, after: PurchaseState) -> None:
        assert_follows(self._state, after)
        comes_to_wait = after.waits_for_a_person and not self._state.waits_for_a_person
        turns = after.turns_of_people + comes_to_wait
        self._state = replace(after, updated_at=workflow.now(), turns_of_people=turns)
