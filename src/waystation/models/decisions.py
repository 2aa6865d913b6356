"""A person's decision on a purchase or a paid request, and the record of it."""

from datetime import datetime
from typing import Annotated

from pydantic import StringConstraints

from waystation.models.base import Frozen
from waystation.models.mandates import Name
from waystation.models.proofs import Proof

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""The SHA-256 of what is decided on, as ``sha256:<hex>``."""

Reason = Annotated[str, StringConstraints(max_length=500)]
"""Why, for the trail and whoever reads it."""


class Approve(Frozen):
    """Signal ``approve``: this person agrees to the cart with this digest."""

    digest: Digest
    approver: Name
    proof: Proof | None = None


class Reject(Frozen):
    """Signal ``reject``: this person says no. Without a digest it means whatever cart is shown."""

    approver: Name
    digest: Digest | None = None
    reason: Reason = ""
    proof: Proof | None = None


class Decision(Frozen):
    """Update ``decide``: approve or reject, and be told whether it counted."""

    approve: Approve | None = None
    reject: Reject | None = None


class Cancel(Frozen):
    """Signal ``cancel``: stop it if it is not too late."""

    by: Name
    reason: Reason = ""


class ApprovalRecord(Frozen):
    """Who approved what, when. ``auto`` if the mandate allows the amount without a person."""

    digest: Digest
    approver: str
    at: datetime
    auto: bool = False


class Refusal(Frozen):
    """Why a purchase did not happen. ``rule`` is stable; ``message`` says what to do."""

    rule: str
    message: str
