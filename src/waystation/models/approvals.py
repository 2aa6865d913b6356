"""What waits for a person's approval: tools that agents want to run, carts and paid requests."""

from datetime import datetime
from enum import StrEnum

from waystation.models.base import FrozenOpen
from waystation.models.payments import PaidRequestView
from waystation.models.purchases import PurchaseView
from waystation.models.questions import QuestionView


class ApprovalKind(StrEnum):
    """What is to be approved, and by which route it is decided."""

    TOOL = "tool"
    """A tool's call; its question is answered."""
    PURCHASE = "purchase"
    PAYMENT = "payment"


class WaitingApproval(FrozenOpen):
    """Something that waits for a decision, with all that is decided on: one of the last three."""

    kind: ApprovalKind
    id: str
    """Of the question, the purchase or the paid request."""
    session_id: str | None = None
    agent: str | None = None
    digest: str
    """What whoever approves gives back: it says what they have seen."""
    since: datetime
    deadline: datetime | None = None
    may_decide: bool
    """Whether the caller may: by role, and with a tool also as one of its audience."""
    question: QuestionView | None = None
    purchase: PurchaseView | None = None
    payment: PaidRequestView | None = None


class ApprovalList(FrozenOpen):
    """What waits for a decision, newest first."""

    approvals: tuple[WaitingApproval, ...]
    count: int
    """How many wait, also beyond ``limit``."""
    more: bool = False
    """Whether there are so many that not all were looked at; ``count`` is then the least."""
