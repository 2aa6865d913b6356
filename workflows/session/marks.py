"""Writes what a session is found by into Temporal's search attributes; what that is says listing.py."""

from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate

with workflow.unsafe.imports_passed_through():
    from waystation.models.listing import ListedStatus
    from waystation.temporal.search_attributes import AGENT, LAST_ACTIVITY, STATUS, TERMS, WAITS_FOR
    from workflows.session.listing import Marked


def marked_at_start() -> Marked | None:
    """Returns what whoever started the session has written; ``None`` if that says nothing to a session."""
    given = workflow.info().typed_search_attributes
    status, last_activity = given.get(STATUS), given.get(LAST_ACTIVITY)
    if status not in set(ListedStatus) or last_activity is None:
        return None
    return Marked(
        status=ListedStatus(status),
        waits_for=list(given.get(WAITS_FOR, ())),
        terms=list(given.get(TERMS, ())),
        last_activity=last_activity,
    )


def mark(now: Marked, before: Marked | None, agent: str) -> None:
    """Sets what has changed."""
    updates: list[SearchAttributeUpdate[Any]] = [LAST_ACTIVITY.value_set(now.last_activity)]
    if before is None:
        updates.append(AGENT.value_set(agent))
    if before is None or now.status != before.status:
        updates.append(STATUS.value_set(str(now.status)))
    for key, value, was in (
        (WAITS_FOR, now.waits_for, before.waits_for if before else []),
        (TERMS, now.terms, before.terms if before else []),
    ):
        if value != was:
            updates.append(key.value_set(value) if value else key.value_unset())
    workflow.upsert_search_attributes(updates)
