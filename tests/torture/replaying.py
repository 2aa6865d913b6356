"""Runs histories through the workflows' code again, each within a bound.

Temporal's replayer waits for ever where a history gives a worker nothing to do, and can't be cancelled then.
So it runs in a thread of its own, which is left behind where that happens.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Final

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory
from temporalio.converter import DataConverter

from tests.world.replays import replayer_of
from waystation.temporal.messages import ALLOWANCE, BUY, ORDER_EVENTS, PAID_REQUEST
from waystation.temporal.names import MANDATE_WORKFLOW, PURCHASE_WORKFLOW, SESSION_WORKFLOW, TURN_WORKFLOW
from worker import WORKFLOW_RUNNER, WORKFLOWS

REPLAY_SECONDS: Final = 30.0
"""How long one history may take."""
HUNG: Final = f"its replay did not end within {REPLAY_SECONDS:.0f} seconds"
MAX_FAILURE_CHARACTERS: Final = 1_000
TYPES: Final = frozenset(
    {
        SESSION_WORKFLOW, TURN_WORKFLOW, MANDATE_WORKFLOW, PURCHASE_WORKFLOW,
        *(workflow.name for workflow in (BUY, ORDER_EVENTS, PAID_REQUEST, ALLOWANCE)),
    }
)  # fmt: skip
"""Of workflows whose code is Waystation's."""

Results = dict[str, str | None]


def replayed(converter: DataConverter, histories: Mapping[str, WorkflowHistory]) -> Results:
    """Returns by name what failed when a history was run as a worker runs it; ``None`` if nothing did."""
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)  # it tells again what workers have told
    results: Results = {}
    waiting = [(name, history) for name, history in histories.items() if _can_be_run(history)]
    while waiting:
        done: queue.Queue[tuple[str, str | None]] = queue.Queue()
        threading.Thread(target=_replay_all, args=(converter, waiting, done), daemon=True).start()
        results |= _collected(waiting, done)
        waiting = [one for one in waiting if one[0] not in results]
    return results


def _can_be_run(history: WorkflowHistory) -> bool:
    """Whether it is one of ours, and a worker had anything to do with it."""
    type_ = history.events[0].workflow_execution_started_event_attributes.workflow_type.name
    tasks = (event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED for event in history.events)
    return type_ in TYPES and any(tasks)


def _collected(
    waiting: Sequence[tuple[str, WorkflowHistory]], done: "queue.Queue[tuple[str, str | None]]"
) -> Results:
    """Returns what has come of them in their order, until all are done or one hangs."""
    results: Results = {}
    for name, _ in waiting:
        try:
            _, results[name] = done.get(timeout=REPLAY_SECONDS)
        except queue.Empty:
            results[name] = HUNG
            break
    return results


def _replay_all(
    converter: DataConverter,
    waiting: Sequence[tuple[str, WorkflowHistory]],
    done: "queue.Queue[tuple[str, str | None]]",
) -> None:
    async def replay_each() -> None:
        for name, history in waiting:
            done.put((name, await _failure(converter, history)))

    asyncio.run(replay_each())


async def _failure(converter: DataConverter, history: WorkflowHistory) -> str | None:
    replayer = replayer_of(WORKFLOWS, converter, WORKFLOW_RUNNER)
    try:
        outcome = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    except Exception as error:  # whatever it is, it is what came of this history
        return repr(error)[:MAX_FAILURE_CHARACTERS]
    return str(outcome.replay_failure)[:MAX_FAILURE_CHARACTERS] if outcome.replay_failure else None
