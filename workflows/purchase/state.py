"""A purchase's state: one frozen snapshot of nested records, carried whole across continue-as-new.

The records are plain dataclasses, because a type checker follows ``dataclasses.replace``: a misspelt field
or a value of the wrong type is found before anything runs. ``PurchaseJournal`` alone changes the snapshot.
Counters number the steps for idempotency keys, so they only ever grow.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from waystation.models.commerce import CheckoutStatus
from waystation.models.decisions import ApprovalRecord, Approve, Cancel, Refusal, Reject
from waystation.models.mandates import HeldReservation
from waystation.models.money import Money
from waystation.models.purchases import (
    WAITS_FOR_A_PERSON,
    AuthenticationDone,
    Charge,
    CheckoutAnswer,
    FinalStatus,
    IssueToken,
    OrderFacts,
    PayableCart,
    PaymentToken,
    PurchaseRequest,
    PurchaseStatus,
    Receipt,
    RetryPayment,
    Revise,
)
from workflows.trail import Trail

MAX_TRAIL_ENTRIES: Final = 2_000


@dataclass(frozen=True, slots=True)
class MandateFacts:
    """What the mandate said when it was last asked."""

    approval_required: bool
    approvers: tuple[str, ...]
    owner: str
    payment_methods: tuple[str, ...]
    valid_until: datetime


@dataclass(frozen=True, slots=True)
class PlannedEnd:
    """How the purchase will end once everything is undone."""

    outcome: FinalStatus
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class CheckoutState:
    """The seller's checkout as last read, and how far its preparation has come."""

    answer: CheckoutAnswer | None = None
    digest: str | None = None
    payable: PayableCart | None = None
    """The cart that passed every rule; ``None`` once the seller states another one."""
    restate: bool = False
    rounds: int = 0
    updates: int = 0
    revisions: int = 0
    revised_by: tuple[str, ...] = ()
    """Who has changed what is wanted: they don't approve it."""
    cancel_sent: bool = False

    @property
    def open_at_seller(self) -> bool:
        """Whether there is a checkout that can still be canceled."""
        return self.answer is not None and not self.cancel_sent and not self.answer.status.is_terminal

    @property
    def ready(self) -> bool:
        """Whether the seller says that it can be paid, and none of its messages stands against that."""
        return (
            self.answer is not None
            and self.answer.status is CheckoutStatus.READY_FOR_PAYMENT
            and not self.answer.hindrances()
        )


@dataclass(frozen=True, slots=True)
class AuthorizationState:
    """What the mandate allows, holds, and was told."""

    refunded: Money
    """What the mandate was told has come back."""
    mandate: MandateFacts | None = None
    reservation: HeldReservation | None = None
    reservations: int = 0
    committed: HeldReservation | None = None


@dataclass(frozen=True, slots=True)
class ApprovalState:
    """Who approved, and which cart the approvers were last shown."""

    record: ApprovalRecord | None = None
    asked_digest: str | None = None


@dataclass(frozen=True, slots=True)
class PaymentState:
    """The token, the tries, and what is known about the money."""

    token: PaymentToken | None = None
    issuing: IssueToken | None = None
    """The call for a token that was begun and has no answer: there may be one."""
    cart: PayableCart | None = None
    """What the last token was issued for, and what the last completion was to pay."""
    issues: int = 0
    revokes: int = 0
    tries: int = 0
    method: int = 0
    methods_tried: int = 0
    proof: AuthenticationDone | None = None
    confirm_since: datetime | None = None
    confirm_rounds: int = 0
    money_moved: bool = False
    charge: Charge | None = None
    """The processor's word on what was charged."""


@dataclass(frozen=True, slots=True)
class CompletionState:
    """How the purchase ends or has ended, and the order that it follows."""

    end: PlannedEnd | None = None
    receipt: Receipt | None = None
    order: OrderFacts | None = None
    order_sent_at: int = 0
    """The signature's time of the latest webhook."""
    order_heard_of: bool = False
    """Whether there was a webhook since the order was last read."""
    completed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class InboxState:
    """Signals that wait to be acted upon."""

    decision: Approve | Reject | None = None
    cancel: Cancel | None = None
    turn_stopped: Cancel | None = None
    revoked: bool = False
    revision: Revise | None = None
    proof: AuthenticationDone | None = None
    retry: RetryPayment | None = None


@dataclass(frozen=True, slots=True)
class PurchaseState:
    """Everything."""

    request: PurchaseRequest
    updated_at: datetime
    authorization: AuthorizationState
    trail: Trail
    status: PurchaseStatus = "creating"
    deadline: datetime | None = None
    """Until when the present status waits for a person."""
    checkout: CheckoutState = CheckoutState()
    approval: ApprovalState = ApprovalState()
    payment: PaymentState = PaymentState()
    completion: CompletionState = CompletionState()
    inbox: InboxState = InboxState()
    turns_of_people: int = 0
    """How often it has come to wait for a person."""

    @property
    def waits_for_a_person(self) -> bool:
        """Whether nothing happens until somebody does something."""
        if self.status == "awaiting_approval":
            return self.inbox.decision is None and self.approval.asked_digest == self.checkout.digest
        return self.status in WAITS_FOR_A_PERSON

    def __post_init__(self) -> None:
        """Asserts what must hold in every snapshot; a failure is a bug of ours, never a peer's doing."""
        payable, payment = self.checkout.payable, self.payment
        assert payable is None or payable.digest == self.checkout.digest, "a payable cart is the present cart"
        assert payment.token is None or payment.cart is not None, "a token is issued for a checked cart"
        assert payment.token is None or payment.issuing is None, "a token is issued once there is no other"
        assert payment.tries == 0 or payment.cart is not None, "a completion pays a checked cart"
        assert self.completion.receipt is None or payment.money_moved, "a receipt means that money moved"
        held, committed = self.authorization.reservation, self.authorization.committed
        assert held is None or held != committed, "a reservation is held or committed, not both"
        if committed is not None:
            assert self.authorization.refunded <= committed.amount, "no more comes back than was spent"
        if self.status == "undoing":
            assert self.completion.end is not None, "what is undone has a planned end"


def opening_state(request: PurchaseRequest, *, at: datetime) -> PurchaseState:
    """Returns the state in which a purchase starts."""
    nothing = Money(amount=0, currency=request.currency)
    return PurchaseState(
        request=request,
        updated_at=at,
        authorization=AuthorizationState(refunded=nothing),
        trail=Trail(max_entries=MAX_TRAIL_ENTRIES),
    )


def assert_follows(before: PurchaseState, after: PurchaseState) -> None:
    """Asserts what must hold between two snapshots: no counter falls, and spent money stays spent."""
    assert after.request.mandate_id == before.request.mandate_id, "a purchase keeps its mandate"
    for earlier, later in zip(_counters(before), _counters(after), strict=True):
        assert earlier <= later, "the counters behind idempotency keys never fall"
    assert len(before.trail.entries) <= len(after.trail.entries), "a trail only grows"
    assert after.payment.money_moved or not before.payment.money_moved, "money that moved stays moved"
    assert before.authorization.refunded <= after.authorization.refunded, "refunds only add up"


def _counters(state: PurchaseState) -> tuple[int, ...]:
    payment = state.payment
    return (
        state.checkout.updates,
        state.checkout.revisions,
        state.authorization.reservations,
        payment.issues,
        payment.revokes,
        payment.tries,
    )
