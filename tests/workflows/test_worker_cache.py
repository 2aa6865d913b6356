"""How many workflows a worker keeps in memory is a setting."""

from pathlib import Path

import pytest
from temporalio.api.enums.v1 import TaskQueueKind

from tests.world.temporal import running_temporal
from tests.world.worker import running_worker
from waystation.models.events import Actor, Role
from waystation.models.sessions import Membership
from waystation.temporal.connect import CLEAR_DATA_CONVERTER, open_client
from waystation.temporal.names import SESSION_TASK_QUEUE
from workflows.session import AgentSession, SessionInput


@pytest.mark.parametrize("cached", [0, 5])
async def test_a_worker_keeps_as_many_workflows_as_it_is_told_to(tmp_path: Path, cached: int) -> None:
    async with running_temporal(tmp_path) as temporal:
        env = {"TEMPORAL_ADDRESS": temporal.address, "WAYSTATION_WORKER_CACHED_WORKFLOWS": str(cached)}
        async with running_worker(tmp_path, env=env):
            client = await open_client(temporal.address, data_converter=CLEAR_DATA_CONVERTER)
            session = await client.start_workflow(
                AgentSession.run, SessionInput(agent="nobody"), id="s", task_queue=SESSION_TASK_QUEUE
            )
            await session.query(AgentSession.snapshot)  # answered once the first task is over
            ada = Membership(participant=Actor(id="ada", role=Role.USER))
            await session.execute_update(AgentSession.join, ada)
            history = await session.fetch_history()
    kinds = {
        event.workflow_task_scheduled_event_attributes.task_queue.kind
        for event in history.events
        if event.HasField("workflow_task_scheduled_event_attributes")
    }
    # A task of a workflow that some worker keeps is offered to that worker first.
    assert (TaskQueueKind.TASK_QUEUE_KIND_STICKY in kinds) == (cached > 0)
