"""A person's decision on a purchase or a paid request: the first that counts stands, others are told why."""

from collections.abc import Collection, Sequence

from waystation.models.decisions import Approve, Decision, Reject
from waystation.temporal.names import (
    ALREADY_DECIDED,
    NOT_AN_APPROVER,
    NOT_AWAITING_APPROVAL,
    STALE_DIGEST,
)
from workflows.refusals import refusal


def the_one_in(decision: Decision) -> Approve | Reject:
    """Returns the approval or rejection.

    Raises:
        ApplicationError: ``InvalidDecision`` if there are both or neither.
    """
    wanted = decision.approve or decision.reject
    if wanted is None or (decision.approve and decision.reject):
        raise refusal("InvalidDecision", "give either approve or reject")
    return wanted


def check_decision(
    wanted: Approve | Reject,
    *,
    what: str,
    status: str,
    decided_by: str | None,
    wanted_by: Collection[str],
    approvers: Sequence[str],
    digest: str | None,
) -> None:
    """Checks that a decision counts; without ``approvers``, anybody but those who want it may decide.

    ``wanted_by`` are the agent, and whoever has changed what it wants.

    Raises:
        ApplicationError: ``AlreadyDecided``, ``NotAwaitingApproval``, ``NotAnApprover``, ``StaleDigest``.
    """
    if decided_by is not None:
        raise refusal(ALREADY_DECIDED, f"{decided_by} has already decided")
    if status != "awaiting_approval":
        raise refusal(NOT_AWAITING_APPROVAL, f"the {what} is {status}; nothing waits for approval")
    if wanted.approver in wanted_by or (approvers and wanted.approver not in approvers):
        raise refusal(NOT_AN_APPROVER, f"{wanted.approver} may not decide on this {what}")
    if wanted.digest is not None and wanted.digest != digest:
        raise refusal(
            STALE_DIGEST,
            f"the {what} has changed, and this digest is of other terms; look again and use the new digest",
        )
