"""Queries that a worker can't answer yet."""

import dataclasses
import time
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import OutboundInterceptor, QueryWorkflowInput, WorkflowQueryFailedError

from waystation.temporal import asking, names
from waystation.temporal.asking import AskAgain

QUERY = QueryWorkflowInput(
    id="s-1", run_id=None, query="snapshot", args=[], reject_condition=None, headers={}, ret_type=None,
    rpc_metadata={}, rpc_timeout=None,
)  # fmt: skip
EVER = 1_000


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
    assert await AskAgain().intercept_client(Refusing(names.NOT_BEGUN, 3)).query_workflow(QUERY) == 4


@pytest.mark.parametrize("limited", [True, False], ids=["the caller's limit", "its own"])
async def test_it_is_refused_in_the_end(limited: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = timedelta(seconds=0.3)
    monkeypatch.setattr(asking, "PATIENCE", timedelta(hours=1) if limited else limit)
    query = dataclasses.replace(QUERY, rpc_timeout=limit if limited else None)
    worker, began = Refusing(names.NOT_BEGUN, EVER), time.monotonic()
    with pytest.raises(WorkflowQueryFailedError, match="has yet to begin"):
        await AskAgain().intercept_client(worker).query_workflow(query)
    assert 1 < worker.attempts < EVER
    assert time.monotonic() - began >= 0.1, "it was given time"


async def test_another_refusal_is_final() -> None:
    worker = Refusing("no such query", EVER)
    with pytest.raises(WorkflowQueryFailedError, match="no such query"):
        await AskAgain().intercept_client(worker).query_workflow(QUERY)
    assert worker.attempts == 1
