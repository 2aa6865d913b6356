"""Says in a workflow's memo that it waits for a person.

Lists are filtered by memos: a purchase runs for months, to follow its order, and so does a session; what
waits for a person must be found among all those that wait for nobody.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from waystation.temporal.names import WAITS_FOR, WAITS_FOR_APPROVAL

_STATUS = "awaiting_approval"


def mark_waiting(before: str, after: str) -> None:
    """Updates the memo when the status changes."""
    if before != after and _STATUS in (before, after):
        mark_waits_for(WAITS_FOR_APPROVAL if after == _STATUS else None)


def mark_waits_for(what: str | None) -> None:
    """Updates the memo."""
    workflow.upsert_memo({WAITS_FOR: what})
