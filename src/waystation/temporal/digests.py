"""Asks a workflow whether it was started with what its id is wanted for."""

from temporalio.client import WorkflowQueryFailedError

from waystation.models.digests import Digested
from waystation.temporal.calls import Handle, ask
from waystation.temporal.tokens import QueryName


async def began_with(
    handle: Handle, digest: QueryName[None, str], start: Digested, *, shown: str | None
) -> bool:
    """Returns whether a workflow was started with exactly this.

    Args:
        handle: the workflow.
        digest: its query for the digest of all that it was started with.
        start: what its id is wanted for.
        shown: the digest in its view, which stays as earlier releases know it, for their processes.
    """
    if shown != start.earlier_digest():
        return False
    try:
        return await ask(handle, digest) == start.digest()
    except WorkflowQueryFailedError:  # its worker is of a release without this query
        return True
