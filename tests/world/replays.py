"""Replayers: does a worker that knows nothing but a history take the workflow up where it stands?"""

from collections.abc import Sequence
from typing import Any

from temporalio.converter import DataConverter
from temporalio.worker import Replayer, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from tests.world.workflow_sandbox import SANDBOX

AS_IT_IS = SandboxedWorkflowRunner()
"""Temporal's sandbox as workflows of users run in it."""


def replayer_of(
    workflows: Sequence[type], converter: DataConverter, runner: WorkflowRunner = SANDBOX
) -> Replayer:
    """A replayer that waits: the SDK's own fails a task of two seconds, of which a busy machine makes any."""
    given: dict[str, Any] = {"workflows": workflows, "data_converter": converter, "workflow_runner": runner}
    return Replayer(**given, debug_mode=True)
