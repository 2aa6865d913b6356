"""Says in a workflow's memo that it waits for a person.

Lists are filtered by memos: a purchase runs for months, to follow its order, and what waits for an
approver must be found among all those that wait for nobody.
"""

from temporalio import workflow

WAITS_FOR = "waits_for"
APPROVAL = "approval"
_STATUS = "awaiting_approval"


def mark_waiting(before: str, after: str) -> None:
    """Updates the memo when the status changes."""
    if before != after and _STATUS in (before, after):
        workflow.upsert_memo({WAITS_FOR: APPROVAL if after == _STATUS else None})
