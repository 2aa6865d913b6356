"""Calls that a type checker must refuse. Nothing runs this: ``make types`` reads it.

Each line with an ignored error is one to mypy and to pyright. Where a checker no longer finds an error, it
complains about the comment that ignores it.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=error

from typing import Any, assert_type

from temporalio.client import Client, WorkflowHandle

import waystation.temporal.messages as messages
from waystation.models.decisions import Cancel
from waystation.models.mandates import MandateView, Reservation, ReserveAnswer, ReserveRequest
from waystation.models.payments import AllowanceAnswer, AllowanceStart
from waystation.models.sessions import Stop
from waystation.temporal.calls import (
    ask,
    result_of,
    start_activity,
    start_workflow,
    tell,
    tell_workflow,
    update,
)


async def wrong_names(handle: WorkflowHandle[Any, Any], wish: Cancel) -> None:
    await tell(handle, messages.ALLOWANCE_SETLE, wish)  # type: ignore[attr-defined]
    await tell(handle, "settle", wish)  # type: ignore[arg-type]
    await tell(handle, messages.ALLOWANCE_STATUS, wish)  # type: ignore[arg-type]
    await ask(handle, messages.ALLOWANCE_SETTLE)  # type: ignore[call-overload]


async def wrong_arguments(
    client: Client, handle: WorkflowHandle[Any, Any], wish: Cancel, start: AllowanceStart
) -> None:
    await tell(handle, messages.SESSION_STOP, wish)  # type: ignore[misc]
    await tell(handle, messages.ALLOWANCE_SETTLE, {"by": "alice"})  # type: ignore[misc]
    await tell_workflow("session", messages.SESSION_STOP, wish)  # type: ignore[misc]
    await ask(handle, messages.ALLOWANCE_ANSWER)  # type: ignore[arg-type]
    await ask(handle, messages.ALLOWANCE_ANSWER, 1)  # type: ignore[misc]
    await ask(handle, messages.MANDATE_BALANCE, "key")  # type: ignore[misc]
    await update(handle, messages.MANDATE_RESERVE, wish)  # type: ignore[misc]
    await update(handle, messages.MANDATE_RESERVE)  # type: ignore[arg-type]
    await start_workflow(client, messages.ALLOWANCE, start, id="a", task_queue="q")  # type: ignore[misc]
    start_activity(messages.RUN_TURN, "session")  # type: ignore[misc]


async def wrong_results(handle: WorkflowHandle[Any, Any], request: ReserveRequest) -> None:
    _: Reservation = await update(handle, messages.MANDATE_RESERVE, request)  # type: ignore[arg-type]


async def right(client: Client, handle: WorkflowHandle[Any, Any], request: ReserveRequest) -> None:
    await tell(handle, messages.SESSION_STOP, Stop())
    assert_type(await ask(handle, messages.MANDATE_BALANCE), MandateView)
    assert_type(await ask(handle, messages.ALLOWANCE_ANSWER, "key"), AllowanceAnswer | None)
    assert_type(await update(handle, messages.MANDATE_RESERVE, request), ReserveAnswer)
    assert_type(await update(handle, messages.ALLOWANCE_UNTIL_CLOSING), bool)
    assert_type(await result_of(client, messages.ORDER_EVENTS, "id"), int)
