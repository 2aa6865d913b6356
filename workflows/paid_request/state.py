"""A paid request's state: one frozen snapshot of nested records.

The records are plain dataclasses, because a type checker follows ``dataclasses.replace``: a misspelt field
or a value of the wrong type is found before anything runs. ``PaymentJournal`` alone changes the snapshot.
"""

from dataclasses import dataclass
from datetime import datetime

from waystation.models.decisions import Approve, Cancel, Reject
from waystation.models.mandates import HeldReservation, RevokeRequest
from waystation.models.payments import (
    ClosedCredential,
    HttpAnswer,
    MintCall,
    MoneyMoved,
    Offer,
    PaidHttpRequest,
    PaidRequestStatus,
    PaymentRefusal,
    Receipt,
    SealedCredential,
)
from workflows.paid_request import rules
from workflows.trail import Trail


@dataclass(frozen=True, slots=True)
class PinnedTerms:
    """What will be paid, and to whom. The offer's challenge may be renewed, its terms may not change."""

    offer: Offer
    digest: str


@dataclass(frozen=True, slots=True)
class ApprovalState:
    """Who may decide, and what was decided."""

    approvers: tuple[str, ...] = ()
    deadline: datetime | None = None
    decision: Approve | Reject | None = None
    approved_by: str | None = None


@dataclass(frozen=True, slots=True)
class StopState:
    """Wishes to stop; the first of each kind stands."""

    cancel: Cancel | None = None
    revoked: RevokeRequest | None = None


@dataclass(frozen=True, slots=True)
class CredentialState:
    """The credential that pays, and what is known about the money."""

    minted: int = 0
    """Numbers the credentials for idempotency keys, so it only ever grows."""
    current: SealedCredential | None = None
    sent: bool = False
    money_moved: MoneyMoved = "no"
    """The word of processor or chain, once they were asked."""
    closed: ClosedCredential | None = None
    """That word in full, once it is final."""
    minting: MintCall | None = None
    """The call for a credential that was begun and has no answer: there may be one."""


@dataclass(frozen=True, slots=True)
class ResultState:
    """What the server gave, and why the request was not paid or answered."""

    answer: HttpAnswer | None = None
    receipt: Receipt | None = None
    refusal: PaymentRefusal | None = None


@dataclass(frozen=True, slots=True)
class PaidRequestState:
    """Everything."""

    request: PaidHttpRequest
    """As the server was asked last: a redirect before the first 402 changes it."""
    updated_at: datetime
    trail: Trail
    status: PaidRequestStatus = "probing"
    terms: PinnedTerms | None = None
    reservation: HeldReservation | None = None
    approval: ApprovalState = ApprovalState()
    stop: StopState = StopState()
    credential: CredentialState = CredentialState()
    result: ResultState = ResultState()

    def __post_init__(self) -> None:
        """Asserts what must hold in every snapshot; a failure is a bug of ours, never a peer's doing."""
        credential, terms, held = self.credential, self.terms, self.reservation
        assert credential.minted <= rules.MAX_CREDENTIALS, "a request has two credentials at most"
        assert credential.minted == 0 or terms is not None, "a credential is minted for pinned terms"
        assert not credential.sent or credential.current is not None, "what was sent was minted"
        assert self.status != "awaiting_approval" or terms is not None, "people approve pinned terms"
        if terms is not None and held is not None:
            assert held.amount == terms.offer.price, "what is held is the price"

    @property
    def money_moved(self) -> MoneyMoved:
        """Whether money moved. While a credential may be out, nobody knows until processor or chain say."""
        may_be_out = self.credential.current is not None or self.credential.minting is not None
        asked = self.status not in ("paying", "confirming") or not may_be_out
        return self.credential.money_moved if asked else "unknown"


def assert_follows(before: PaidRequestState, after: PaidRequestState) -> None:
    """Asserts what must hold between two snapshots: no counter falls, and the terms stay what they were."""
    assert before.credential.minted <= after.credential.minted, (
        "the counter behind idempotency keys never falls"
    )
    assert len(before.trail.entries) <= len(after.trail.entries), "a trail only grows"
    if before.terms is not None:
        assert after.terms is not None, "pinned terms stay pinned"
        assert after.terms.digest == before.terms.digest, "an approval's digest stays what it was"
        assert after.terms.offer.same_terms(before.terms.offer), "a new challenge changes no terms"
    if rules.is_final(before.status):
        assert after.status == before.status, "a final status is final"
