"""Asks a workflow again when its worker could not answer yet, for every query that a client of ours sends."""

import asyncio
import time
from datetime import timedelta
from typing import Any, Final

from temporalio.client import Interceptor, OutboundInterceptor, QueryWorkflowInput, WorkflowQueryFailedError

from waystation.temporal.names import NOT_BEGUN

PATIENCE: Final = timedelta(seconds=10)
"""How long a query is repeated that its caller has given no time limit. A task waits for five seconds for a
worker that has died, before another may begin it."""
SHORTEST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 0.5


class AskAgain(Interceptor):
    """Repeats queries of workers that have just taken a workflow over and have a task to begin first."""

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
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
