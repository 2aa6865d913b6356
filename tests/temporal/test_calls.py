"""What the SDK's error of a timeout or a cancellation of an update was."""

import asyncio
from typing import Any, cast

import pytest
from temporalio.client import (
    Client,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from waystation.models.payments import LeaseRequest
from waystation.temporal.calls import Handle, start_and_update, update
from waystation.temporal.messages import ALLOWANCE, ALLOWANCE_LEASE, ALLOWANCE_UNTIL_CLOSING


class Silent:
    """Temporal as the SDK shows it, which doesn't answer."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def execute_update(self, *_: Any, **__: Any) -> None:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as cancelled:
            raise WorkflowUpdateRPCTimeoutOrCancelledError from cancelled

    execute_update_with_start_workflow = execute_update


async def test_whoever_is_cancelled_during_an_update_ends_as_cancelled() -> None:
    silent = Silent()
    asking = asyncio.create_task(update(cast(Handle, silent), ALLOWANCE_LEASE, LeaseRequest(holder="h")))
    await silent.asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_whoever_is_cancelled_while_starting_with_an_update_ends_as_cancelled() -> None:
    silent = Silent()
    asking = asyncio.create_task(
        start_and_update(
            cast(Client, silent),
            ALLOWANCE,
            cast(Any, {}),
            ALLOWANCE_UNTIL_CLOSING,
            update_id="once",
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id="a",
            task_queue="q",
        )
    )
    await silent.asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


class Late:
    """Temporal as the SDK shows it when it has waited long enough."""

    async def execute_update(self, *_: Any, **__: Any) -> None:
        raise WorkflowUpdateRPCTimeoutOrCancelledError


async def test_an_update_that_temporal_leaves_unanswered_fails_as_other_calls_of_it_do() -> None:
    with pytest.raises(RPCError) as caught:
        await update(cast(Handle, Late()), ALLOWANCE_LEASE, LeaseRequest(holder="h"))
    assert caught.value.status == RPCStatusCode.DEADLINE_EXCEEDED
