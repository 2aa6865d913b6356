"""Queries that a worker can't answer yet."""

from typing import Any

import pytest
from temporalio.client import OutboundInterceptor, QueryWorkflowInput, WorkflowQueryFailedError

from waystation.temporal import names
from waystation.temporal.asking import MAX_QUERY_ATTEMPTS, AskAgain

QUERY = QueryWorkflowInput(
    id="s-1", run_id=None, query="snapshot", args=[], reject_condition=None, headers={}, ret_type=None,
    rpc_metadata={}, rpc_timeout=None,
)  # fmt: skip


class Refusing(OutboundInterceptor):
    """Refuses a few times, then answers with the number of attempts."""

    def __init__(self, words: str, times: int) -> None:
        self.words, self.times, self.attempts = words, times, 0

    async def query_workflow(self, input: QueryWorkflowInput) -> Any:  # noqa: A002
        self.attempts += 1
        if self.attempts <= self.times:
            raise WorkflowQueryFailedError(self.words)
        return self.attempts


async def test_a_query_is_repeated_while_its_worker_has_a_task_to_begin() -> None:
    assert await AskAgain().intercept_client(Refusing(names.NOT_BEGUN, 1)).query_workflow(QUERY) == 2


@pytest.mark.parametrize(("words", "attempts"), [(names.NOT_BEGUN, MAX_QUERY_ATTEMPTS), ("no such query", 1)])
async def test_a_query_is_refused_in_the_end(words: str, attempts: int) -> None:
    worker = Refusing(words, MAX_QUERY_ATTEMPTS)
    with pytest.raises(WorkflowQueryFailedError, match=words[:10]):
        await AskAgain().intercept_client(worker).query_workflow(QUERY)
    assert worker.attempts == attempts
