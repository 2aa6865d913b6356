"""Waiting for an end: what is bounded, and what a caller who gives up leaves behind."""

import asyncio
from datetime import UTC, datetime

import pytest

from api.gateways.outcomes import outcome_of
from waystation.models.payments import PaidRequestView

WAITS = PaidRequestView(
    payment_id="p",
    status="awaiting_approval",
    final=False,
    url="https://api.example/",
    method="GET",
    updated_at=datetime(2026, 1, 1, tzinfo=UTC),
)
DONE = WAITS.model_copy(update={"status": "delivered", "final": True})


async def _never(_: PaidRequestView) -> PaidRequestView:
    return await asyncio.Event().wait() and DONE


async def _found() -> PaidRequestView:
    return WAITS


def _is_final(view: PaidRequestView) -> bool:
    return view.final


async def test_no_answer_ends_with_what_is_found() -> None:
    """Whatever one call of Temporal's client may take: it polls anew when a poll ends without an answer."""
    assert await outcome_of(WAITS, _never, _is_final, _found, within_seconds=0.01) == WAITS


async def test_a_renewed_run_is_asked_again() -> None:
    answers = iter([WAITS, DONE])

    async def ask(_: PaidRequestView) -> PaidRequestView:
        return next(answers)

    assert await outcome_of(WAITS, ask, _is_final, _found, within_seconds=60) == DONE


async def test_who_gets_no_end_looks_ever_more_rarely() -> None:
    """While a run is being renewed its update gives the same answer at once, however often it is asked."""
    asked = 0

    async def ask(_: PaidRequestView) -> PaidRequestView:
        nonlocal asked
        asked += 1
        return WAITS

    assert await outcome_of(WAITS, ask, _is_final, _found, within_seconds=2) == WAITS
    assert 2 <= asked <= 6


async def test_what_is_final_is_not_waited_for() -> None:
    assert await outcome_of(DONE, _never, _is_final, _found, within_seconds=60) == DONE


async def test_a_caller_who_goes_away_is_not_kept() -> None:
    waiting = asyncio.create_task(outcome_of(WAITS, _never, _is_final, _found, within_seconds=60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
