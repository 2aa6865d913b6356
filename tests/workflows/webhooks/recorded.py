"""Histories of endpoints, and of sessions that tell them: recorded once, replayed by every later version."""

import os
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHandle, WorkflowHistory
from temporalio.worker import Replayer

from tests.support import anonymous
from tests.world.replays import replayer_of
from waystation.temporal.connect import CLEAR_DATA_CONVERTER
from worker import WORKFLOWS

FOLDER = Path(__file__).with_name("histories")


def replayer() -> Replayer:
    return replayer_of(WORKFLOWS, CLEAR_DATA_CONVERTER)


async def keep(request: pytest.FixtureRequest, *handles: WorkflowHandle[Any, Any]) -> None:
    """Replays what a test has run, in Temporal's workflow sandbox; records it where that is wanted."""
    for number, handle in enumerate(handles):
        history = await handle.fetch_history()
        await replayer().replay_workflow(history)
        if folder := os.environ.get("WAYSTATION_RECORD_HISTORIES"):
            name = f"{request.node.name.removeprefix('test_')}-{number}.json"
            (Path(folder) / name).write_text(anonymous(history.to_json()) + "\n", encoding="utf-8")


async def replay(name: str) -> None:
    """Replays a recorded history, under the id that it was recorded with."""
    recorded = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    history = WorkflowHistory.from_json(name, recorded)
    started = history.events[0].workflow_execution_started_event_attributes
    await replayer().replay_workflow(WorkflowHistory(started.workflow_id, history.events))
