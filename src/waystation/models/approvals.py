"""What waits for people: tools that agents want to run, carts, paid requests, and questions."""

from datetime import datetime
from enum import StrEnum
from typing import Final

from waystation.models.base import FrozenOpen
from waystation.models.payments import PaidRequestView
from waystation.models.purchases import PurchaseView
from waystation.models.questions import QuestionView


class ApprovalKind(StrEnum):
    """What is to be decided, and by which route."""

    TOOL = "tool"
    """A tool's call; its question is answered."""
    PURCHASE = "purchase"
    PAYMENT = "payment"
    QUESTION = "question"
    """What an agent asks beside: answered like a tool's. Listed only where it is asked for by name."""


APPROVALS: Final = frozenset(ApprovalKind) - {ApprovalKind.QUESTION}
"""What is listed where no kind is named."""


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
    """Whether the caller may: by role, as one of the mandate's approvers, or of those who are asked."""
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
