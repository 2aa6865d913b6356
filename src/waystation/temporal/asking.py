"""Asks a workflow again when its worker could not answer yet, for every query that a client of ours sends."""

import asyncio
from typing import Any, Final

from temporalio.client import Interceptor, OutboundInterceptor, QueryWorkflowInput, WorkflowQueryFailedError

from waystation.temporal.names import NOT_BEGUN

MAX_QUERY_ATTEMPTS: Final = 8
QUERY_PAUSE_SECONDS: Final = 0.05
"""The pause before a query is repeated, times the attempts made: the task before it is with a worker."""


class AskAgain(Interceptor):
    """Repeats queries of workers that have just taken a workflow over and have a task to begin first."""

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
        """See ``Interceptor``."""
        return _Asking(next)


class _Asking(OutboundInterceptor):
    async def query_workflow(self, input: QueryWorkflowInput) -> Any:  # noqa: A002
        for attempt in range(1, MAX_QUERY_ATTEMPTS):
            try:
                return await super().query_workflow(input)
            except WorkflowQueryFailedError as error:
                if NOT_BEGUN not in str(error):
                    raise
            await asyncio.sleep(QUERY_PAUSE_SECONDS * attempt)
        return await super().query_workflow(input)
