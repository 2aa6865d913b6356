"""Says in a purchase's or paid request's memo and search attributes that it waits for an approver.

Lists are filtered by them: a purchase runs for months, to follow its order; what waits for a person must be
found among all those that wait for nobody.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from waystation.temporal import search_attributes
    from waystation.temporal.names import WAITS_FOR, WAITS_FOR_APPROVAL
    from waystation.temporal.terms import role_term

_STATUS = "awaiting_approval"


def mark_waiting(before: str, after: str) -> None:
    """Updates the memo when the status changes, and the attribute of what was started with attributes."""
    if before == after or _STATUS not in (before, after):
        return
    waits = after == _STATUS
    workflow.upsert_memo({WAITS_FOR: WAITS_FOR_APPROVAL if waits else None})
    if search_attributes.sets_attributes(workflow.info().typed_search_attributes):
        key = search_attributes.WAITS_FOR
        approvers = [role_term("approver")]
        workflow.upsert_search_attributes([key.value_set(approvers) if waits else key.value_unset()])
