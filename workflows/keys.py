"""Idempotency keys of workflows that move money. Pure."""

import hashlib


def step_key(workflow_id: str, step: str, number: int | None = None) -> str:
    """Returns the idempotency key of one step: from the workflow id and the step alone.

    Never from a run, an attempt or a token, so that whatever is tried again is the same request.
    """
    return f"{workflow_id}:{step}" if number is None else f"{workflow_id}:{step}:{number}"


def note_key(workflow_id: str, number: int) -> str:
    """Returns the key of one note to a session, within the narrower alphabet of a session's identifiers."""
    return f"purchase:{hashlib.sha256(workflow_id.encode()).hexdigest()[:32]}:{number}"
