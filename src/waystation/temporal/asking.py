"""Asks Temporal again, or otherwise, where its first answer doesn't say how things stand.

Every client of ours has this interceptor, so nobody who queries or updates a workflow has to know of it:

- A query of a worker that could not answer yet is repeated; and where no task will ever begin, because the
  run has been terminated, the worker is told so with the query.
- An update that came while a run ended is refused as if there were no such workflow, by each later try with
  its id too. It is said to have ended, if it has.
"""

import asyncio
import time
from datetime import timedelta
from typing import Any, Final

from temporalio.api.common.v1 import Payload
from temporalio.client import (
    DescribeWorkflowInput,
    Interceptor,
    OutboundInterceptor,
    QueryWorkflowInput,
    StartWorkflowUpdateInput,
    WorkflowExecutionStatus,
    WorkflowQueryFailedError,
    WorkflowUpdateHandle,
)
from temporalio.service import RPCError, RPCStatusCode

from waystation.temporal.calls import CLOSING
from waystation.temporal.names import NOT_BEGUN, RUN_HAS_ENDED

PATIENCE: Final = timedelta(seconds=10)
"""How long a query is repeated that its caller has given no time limit. A task waits for five seconds for a
worker that has died, before another may begin it."""
SHORTEST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 0.5
_ENDED: Final = "workflow execution already completed"
"""What Temporal says of an update to a workflow that has ended before."""


class AskAgain(Interceptor):
    """Repeats what may be answered later, and finds out whether the workflow has ended."""

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
        """See ``Interceptor``."""
        return _Asking(next)


class _Asking(OutboundInterceptor):
    async def query_workflow(self, input: QueryWorkflowInput) -> Any:  # noqa: A002
        deadline = time.monotonic() + (input.rpc_timeout or PATIENCE).total_seconds()
        pause = SHORTEST_PAUSE_SECONDS
        while True:
            try:
                return await super().query_workflow(input)
            except WorkflowQueryFailedError as error:
                if NOT_BEGUN not in str(error) or time.monotonic() + pause >= deadline:
                    raise
            if await self._has_ended(input.id, input.run_id, input.rpc_timeout):
                input.headers = {**input.headers, RUN_HAS_ENDED: Payload()}
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def start_workflow_update(self, input: StartWorkflowUpdateInput) -> WorkflowUpdateHandle[Any]:  # noqa: A002
        try:
            return await super().start_workflow_update(input)
        except RPCError as error:
            if CLOSING in str(error) and await self._has_ended(input.id, input.run_id, input.rpc_timeout):
                raise RPCError(_ENDED, RPCStatusCode.NOT_FOUND, b"") from error
            raise

    async def _has_ended(self, workflow_id: str, run_id: str | None, within: timedelta | None) -> bool:
        """Returns whether Temporal says that no task of the workflow will begin any more."""
        try:
            found = await super().describe_workflow(
                DescribeWorkflowInput(
                    id=workflow_id, run_id=run_id, rpc_metadata={}, rpc_timeout=within or PATIENCE
                )
            )
        except RPCError:
            return False
        # One that continued as new is still going on, in its next run.
        return found.status not in (
            WorkflowExecutionStatus.RUNNING,
            WorkflowExecutionStatus.CONTINUED_AS_NEW,
        )
