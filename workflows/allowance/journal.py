"""The only ways to change an allowance's state: replace a part, note in the trail, announce."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import JsonValue
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.allowance.rules as allowance_rules
    from waystation.models.mandates import ReserveAnswer
    from waystation.models.payments import (
        AllowanceAnswer,
        AllowancePayment,
        AllowanceStart,
        AllowanceView,
        PaymentRefusal,
    )
    from waystation.models.trail import AuditTrail
    from workflows.allowance.rules import Ledger
    from workflows.allowance.state import AllowanceState, assert_follows
    from workflows.outbox import Outbox
    from workflows.refusals import refusal
    from workflows.trail import Trail

ALLOWANCE_CLOSED = "AllowanceClosed"
ALLOWANCE_EXHAUSTED = "AllowanceExhausted"
"""Error types of what is refused before anything happened."""

Detail = Mapping[str, JsonValue]


class AllowanceJournal:
    """Holds the state of one allowance, keeps its trail, and tells its session."""

    def __init__(self, start: AllowanceStart, state: AllowanceState | None, outbox: Outbox) -> None:
        self.start = start
        self._outbox = outbox
        self._state = state or AllowanceState(
            ledger=Ledger(budget=start.budget.amount),
            trail=Trail(max_entries=allowance_rules.MAX_AUDIT_ENTRIES),
        )
        self.calls_in_run = 0
        """Payments and reports since this run began."""

    @property
    def id(self) -> str:
        """The allowance's id, which is its workflow's."""
        return workflow.info().workflow_id

    @property
    def state(self) -> AllowanceState:
        """The present snapshot."""
        return self._state

    def count(self, ledger: Ledger) -> None:
        """Takes the ledger as it is now."""
        self._put(replace(self._state, ledger=ledger))

    def open(self, reserved: ReserveAnswer) -> None:
        """Writes down what the mandate answered."""
        self._put(replace(self._state, reserved=reserved))

    def end_at(self, ends_at_seconds: int) -> None:
        """Writes down when no more payments are taken."""
        self._put(replace(self._state, ends_at_seconds=ends_at_seconds))

    def answer(self, payment: AllowancePayment, answer: AllowanceAnswer) -> None:
        """Keeps the answer of a payment that the workflow itself made."""
        state, key = self._state, payment.key
        answers, digests = {**state.answers, key: answer}, {**state.digests, key: payment.digest()}
        self._put(replace(state, answers=answers, digests=digests))

    def close(self) -> None:
        """Takes no more payments."""
        self._put(replace(self._state, closing=True))

    def refuse(self, why: PaymentRefusal) -> None:
        """Writes down what went wrong with the mandate."""
        self._put(replace(self._state, refusal=why))

    def check_open(self) -> ReserveAnswer:
        """Returns what the mandate answered, where payments may be begun.

        Raises:
            ApplicationError: ``AllowanceClosed``, ``AllowanceExhausted``.
        """
        state = self._state
        if state.closing or state.reserved is None:
            why = state.refusal.message if state.refusal else "it was settled or has ended"
            raise refusal(ALLOWANCE_CLOSED, f"the allowance takes no more payments: {why}")
        if state.reserved.approval_required:  # by a release that reserved it all the same
            raise refusal(ALLOWANCE_CLOSED, "the mandate wants a person to approve payments of this size")
        if state.ledger.payments >= allowance_rules.MAX_PAYMENTS:
            raise refusal(ALLOWANCE_EXHAUSTED, "it has made its last payment; open a new allowance")
        return state.reserved

    async def until_opened(self) -> None:
        """Waits until the mandate has answered."""
        await workflow.wait_condition(lambda: self._state.reserved is not None or self._state.closing)

    def note(self, action: str, actor: str, detail: Detail) -> None:
        """Adds a step of the allowance's own to the trail."""
        trail = self._state.trail.noted(action, actor, detail, time=workflow.now())
        self._put(replace(self._state, trail=trail))

    def note_signal(self, action: str, actor: str, detail: Detail) -> None:
        """Adds what somebody else said, while there is room for that."""
        trail = self._state.trail.heard(action, actor, detail, time=workflow.now())
        self._put(replace(self._state, trail=trail))

    def note_call(self, action: str, actor: str, detail: Detail) -> None:
        """Adds what a payment that was to be made has come to."""
        trail = self._state.trail.called(action, actor, detail, time=workflow.now())
        self._put(replace(self._state, trail=trail))

    def announce(self, payments: Sequence[Detail]) -> None:
        """Lets the session know what became of payments."""
        common: Detail = {"allowance_id": self.id, "turn_id": self.start.turn_id}
        self._outbox.put(
            [
                {
                    "type": "payment.updated",
                    "data": {"payment_id": f"{self.id}:{payment['key']}", **common, **payment},
                }
                for payment in payments
            ]
        )

    def carried(self, max_answer_bytes: int) -> AllowanceState:
        """Returns what the next run begins with."""
        answers = allowance_rules.newest_answers(self._state.answers, max_answer_bytes)
        digests = {key: digest for key, digest in self._state.digests.items() if key in answers}
        return replace(self._state, answers=answers, digests=digests, notes=self._outbox.numbered)

    def trail(self) -> AuditTrail:
        """Returns every step so far."""
        return self._state.trail.of(self.id)

    def view(self) -> AllowanceView:
        """Returns what is spent and held."""
        state, ledger = self._state, self._state.ledger
        return AllowanceView(
            allowance_id=self.id,
            open=not state.closing and state.reserved is not None,
            budget=self.start.budget,
            spent=ledger.spent,
            held=ledger.held,
            payments=ledger.payments,
            holder=ledger.lease.holder if ledger.lease else None,
            refusal=state.refusal,
            agent=self.start.agent,
            session_id=self.start.session_id,
            start_digest=self.start.earlier_digest(),
        )

    def _put(self, after: AllowanceState) -> None:
        assert_follows(self._state, after)
        self._state = after
