"""What is said to a purchase, in any order and at any of its steps, is taken, refused or too late."""

from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from temporalio.exceptions import ApplicationError

from tests.support import examples
from tests.workflows.purchase.test_orders import order, refund
from tests.workflows.purchase.test_rules import request
from tests.workflows.purchase.test_state import checked
from waystation.models.commerce import AuthenticationOutcome
from waystation.models.decisions import Approve, Cancel, Reject
from waystation.models.mandates import RevokeRequest
from waystation.models.proofs import ProofVerdict
from waystation.models.purchases import (
    WAITS_FOR_A_PERSON,
    AuthenticationDone,
    OrderEventReceived,
    PurchaseStatus,
    RetryPayment,
    Revise,
)
from workflows.outbox import Outbox
from workflows.purchase import PurchaseStart, rules
from workflows.purchase.inbox import PurchaseInbox
from workflows.purchase.journal import PurchaseJournal
from workflows.purchase.state import MandateFacts
from workflows.webhooks.news import WebhookOutbox

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ANOTHER_CART = "sha256:" + "1" * 64
PEOPLE = st.sampled_from(["alice", "bob", "shopper", "mallory"])
APPROVERS = ("alice", "bob", "shopper")
MANDATE = MandateFacts(
    approval_required=True,
    approvers=APPROVERS,
    owner="alice",
    payment_methods=("pm_1",),
    valid_until=NOW + timedelta(days=1),
)


def run(work: Coroutine[Any, Any, Any]) -> None:
    """Runs what waits for nothing: the proof's verdict is there at once."""
    with pytest.raises(StopIteration):
        work.send(None)


STARTS: list[PurchaseStatus] = [
    *("awaiting_approval", "awaiting_approval", "authentication_required", "payment_declined"),
    *sorted(rules.TRANSITIONS.keys() - rules.FINAL_STATUSES - {"undoing"}),
]
"""Those first in which most of what is said counts."""


class Said(RuleBasedStateMachine):
    """A purchase whose loop takes any legal step, while everybody speaks."""

    @initialize(status=st.sampled_from(STARTS), revised_by=st.sampled_from([(), ("bob",)]))
    def begin(self, status: PurchaseStatus, revised_by: tuple[str, ...]) -> None:
        state = checked()
        checkout = replace(state.checkout, revised_by=revised_by, revisions=len(revised_by))
        authorization = replace(state.authorization, mandate=MANDATE)
        state = replace(state, status=status, checkout=checkout, authorization=authorization)
        self.journal = PurchaseJournal("p", state, Outbox(None), WebhookOutbox())
        self.inbox = PurchaseInbox(self.journal)
        self.furthest = -1

    def decide(self, wanted: Approve | Reject) -> None:
        before = self.journal.state
        try:
            run(self.inbox.decide(wanted, tell=True))
        except ApplicationError as refusal:
            assert refusal.type in ("NotAwaitingApproval", "AlreadyDecided", "NotAnApprover", "StaleDigest")  # noqa: PT017
            assert self.journal.state.inbox == before.inbox
            return
        assert before.status == "awaiting_approval"
        assert before.inbox.decision is None
        assert wanted.approver in APPROVERS
        assert wanted.approver not in (before.request.agent.id, *before.checkout.revised_by)
        assert wanted.digest in (None, before.checkout.digest)
        assert self.journal.state.inbox.decision == wanted

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        legal = rules.TRANSITIONS[self.journal.state.status] - {"undoing"}  # its end would have to be planned
        if not legal:
            return
        status = data.draw(st.sampled_from(sorted(legal)))
        if status in WAITS_FOR_A_PERSON:
            self.journal.await_person(status, revision=status == "needs_revision")
        else:
            self.journal.advance(status)

    @rule(status=st.sampled_from([*rules.TRANSITIONS]))
    def step_where_none_leads(self, status: PurchaseStatus) -> None:
        before = self.journal.state.status
        if status != before and status not in rules.TRANSITIONS[before]:
            with pytest.raises(rules.IllegalTransitionError):
                self.journal.advance(status)
        assert self.journal.state.status == before

    @rule(approver=PEOPLE)
    def approve(self, approver: str) -> None:
        digest = self.journal.state.checkout.digest
        assert digest is not None
        self.decide(Approve(digest=digest, approver=approver))

    @rule()
    def approve_another_cart(self) -> None:
        self.decide(Approve(digest=ANOTHER_CART, approver="alice"))

    @rule(approver=PEOPLE, stale=st.none() | st.booleans())
    def reject(self, approver: str, stale: bool | None) -> None:
        digest = None if stale is None else ANOTHER_CART if stale else self.journal.state.checkout.digest
        self.decide(Reject(approver=approver, digest=digest))

    @rule(by=PEOPLE, quantity=st.integers(1, 3))
    def revise(self, by: str, quantity: int) -> None:
        waiting = self.journal.state.inbox.revision
        self.inbox.revise(Revise.model_validate({"by": by, "items": [{"id": "mug", "quantity": quantity}]}))
        assert waiting is None or self.journal.state.inbox.revision == waiting, "one change at a time"

    @precondition(lambda self: self.journal.state.inbox.revision is not None)
    @rule()
    def act_on_the_revision(self) -> None:
        revision = self.journal.state.inbox.revision
        assert revision is not None
        self.journal.revise_request()
        state = self.journal.state
        assert state.checkout.payable is None, "what was checked is not what is wanted now"
        assert revision.by in state.checkout.revised_by
        assert state.request.items == revision.items

    @rule(by=PEOPLE)
    def cancel(self, by: str) -> None:
        first = self.journal.state.inbox.cancel
        self.inbox.cancel(Cancel(by=by))
        assert first is None or self.journal.state.inbox.cancel == first

    @rule()
    def stop_the_turn(self) -> None:
        self.inbox.turn_stopped(Cancel(by="waystation"))

    @rule()
    def revoke_the_mandate(self) -> None:
        self.inbox.mandate_revoked(RevokeRequest(by="alice"))

    @rule(outcome=st.sampled_from([AuthenticationOutcome.DENIED, AuthenticationOutcome.NOT_SUPPORTED]))
    def authenticate(self, outcome: AuthenticationOutcome) -> None:
        before = self.journal.state
        self.inbox.authentication_result(AuthenticationDone(outcome=outcome))
        taken = self.journal.state.inbox.proof != before.inbox.proof
        assert not taken or (before.status == "authentication_required" and before.inbox.proof is None)

    @rule(by=PEOPLE, method=st.sampled_from([None, "pm_1", "pm_2"]))
    def retry(self, by: str, method: str | None) -> None:
        before = self.journal.state
        run(self.inbox.retry_payment(RetryPayment(by=by, payment_method=method)))
        taken = self.journal.state.inbox.retry != before.inbox.retry
        assert not taken or (before.status == "payment_declined" and method != "pm_2")

    @rule(
        status=st.sampled_from(["created", "shipped", "canceled"]),
        amount=st.integers(1, 9),
        sent_at=st.integers(0, 3),
        checkout=st.sampled_from(["cs_1", "cs_2"]),
        name=st.sampled_from(["o", "another"]),
    )
    def hear_of_the_order(self, status: str, amount: int, sent_at: int, checkout: str, name: str) -> None:
        before = self.journal.state.completion.order
        said = order(status, id=name, checkout_id=checkout, adjustments=[refund("completed", amount)])
        event = OrderEventReceived(event_id="e", sent_at=sent_at, type="order_update", order=said)
        self.inbox.order_event(event)
        after = self.journal.state.completion.order
        if checkout != "cs_1" or (before is not None and before.id != name):
            assert after == before, "the order of another checkout is nothing to us"
            return
        assert after is not None
        rank = ["created", "shipped", "canceled"].index(str(after.status))
        assert rank >= self.furthest, "an order only moves forward"
        self.furthest = rank
        if before is not None:
            assert sum(one.amount or 0 for one in before.adjustments) <= sum(
                one.amount or 0 for one in after.adjustments
            )

    @rule()
    def carry_over(self) -> None:
        start = PurchaseStart(request=request(), state=self.journal.state)
        again = PurchaseStart.model_validate_json(start.model_dump_json())
        assert again == start
        assert again.state is not None
        self.journal = PurchaseJournal("p", again.state, Outbox(None), WebhookOutbox())
        self.inbox = PurchaseInbox(self.journal)

    @precondition(lambda self: hasattr(self, "journal"))
    @invariant()
    def a_wish_to_stop_is_never_lost(self) -> None:
        said = self.journal.state.inbox
        if said.revoked or said.cancel is not None:
            with pytest.raises(rules.PurchaseRefusal):
                self.inbox.raise_if_stopped()

    @precondition(lambda self: hasattr(self, "journal"))
    @invariant()
    def the_trail_is_whole(self) -> None:
        trail = self.journal.trail()
        assert len(trail.entries) == len(self.journal.state.trail.entries)
        assert self.journal.view().final is self.journal.is_final


def test_whatever_is_said_in_whatever_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async def valid(*_: object) -> ProofVerdict:
        return ProofVerdict(valid=True)

    monkeypatch.setattr("workflows.purchase.inbox.verdict_on", valid)
    monkeypatch.setattr("temporalio.workflow.now", lambda: NOW)
    monkeypatch.setattr("workflows.purchase.journal.mark_waiting", lambda before, after: None)
    monkeypatch.setattr("temporalio.workflow.patched", lambda patch: False)
    bounds = settings(max_examples=examples(100), stateful_step_count=30)
    run_state_machine_as_test(Said, settings=bounds)  # type: ignore[no-untyped-call]
