"""Waiting for how something ends: however many callers wait, little is under way in its workflow.

Temporal lets ten updates of a workflow be under way at a time, and an approval is one of them. An update that
waits for an end stays under way when its caller has gone away. So all callers wait for one and the same, by
its id; those who also wait for a person, for one other.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from temporalio.client import WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError

from waystation.backoff import Backoff
from waystation.models.payments import PaidRequestView
from waystation.models.purchases import PurchaseView

OUTCOME: Final = "outcome"
"""The id of the update with which all wait for the end, and how the id of each other one begins."""
MIN_PAUSE_SECONDS: Final = 0.2
MAX_PAUSE_SECONDS: Final = 5.0
"""Before asking again, where a run is being renewed or the update can't be made: longer each time."""

View = TypeVar("View", PurchaseView, PaidRequestView)


async def outcome_of(
    view: View,
    ask: Callable[[View], Awaitable[View]],
    reached: Callable[[View], bool],
    look: Callable[[], Awaitable[View]],
    *,
    within_seconds: float,
) -> View:
    """Returns an answer that is ``reached``, or what ``look`` finds after ``within_seconds``.

    Args:
        view: What was found last.
        ask: Makes the update that answers once it is reached, or when the run is renewed.
        reached: Whether an answer is what the caller waits for.
        look: Finds how it stands, and raises a problem if nobody can say.
        within_seconds: The limit of all of it, but for the last look.
    """
    deadline = time.monotonic() + within_seconds
    pauses = Backoff(MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS)
    while not reached(view) and (left := deadline - time.monotonic()) > 0:
        answer = await _answer_within(ask(view), left)
        if answer is not None and reached(answer):
            return answer
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline - time.monotonic()):
                await pauses.wait()
        view = await look()
    return view


async def _answer_within(asked: Awaitable[View], seconds: float) -> View | None:
    """Returns ``None`` if there is no answer by then, or the update could not be made: looking says why."""
    try:
        # One limit over everything: the SDK would apply a timeout to each of the many calls of an update.
        async with asyncio.timeout(seconds):
            return await asked
    except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError, WorkflowUpdateFailedError, RPCError):
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # the SDK reports a cancellation as a timeout
            raise asyncio.CancelledError from None
        return None
