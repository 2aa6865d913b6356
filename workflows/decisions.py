"""A person's decision on a purchase or a paid request: the first that counts stands, others are told why."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from pydantic import JsonValue

from waystation.models.decisions import Approve, Decision, Reject
from waystation.models.proofs import ProofVerdict
from waystation.temporal.names import (
    ALREADY_DECIDED,
    INVALID_DECISION,
    NOT_AN_APPROVER,
    NOT_AWAITING_APPROVAL,
    NOT_PROVEN,
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
        raise refusal(INVALID_DECISION, "give either approve or reject")
    return wanted


def kind_of(wanted: Approve | Reject) -> Literal["approve", "reject"]:
    """Returns what a proof of it must say."""
    return "approve" if isinstance(wanted, Approve) else "reject"


def refused_entry(
    claimed_by: str, verdict: ProofVerdict, facts: Mapping[str, JsonValue]
) -> tuple[str, dict[str, JsonValue]]:
    """Returns who goes into the trail for a refused decision, and with what. A claim is nobody's act."""
    if verdict.valid:
        return claimed_by, {**facts}
    return "unproven", {**facts, "claimed_by": claimed_by, "unproven": verdict.why}


def check_decision(
    wanted: Approve | Reject,
    verdict: ProofVerdict,
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
        ApplicationError: ``NotProven``, ``AlreadyDecided``, ``NotAwaitingApproval``, ``NotAnApprover``,
            ``StaleDigest``.
    """
    if not verdict.valid:
        raise refusal(NOT_PROVEN, f"this decision does not count: {verdict.why}")
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
