"""Which ends of an attempt are the end of its turn, and which another attempt follows."""

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.activity import ActivityCancellationDetails
from temporalio.testing import ActivityEnvironment

from waystation.agent import RetryTurn
from waystation.agent.runner import another_attempt_follows, was_missed

NOTHING = {"fenced": False, "stopped": False, "parked": False, "gives_back": False}
FOLLOWED: list[tuple[BaseException, set[str]]] = [
    (RetryTurn("busy"), set()),
    (ExceptionGroup("several", [ValueError(), RetryTurn("busy")]), set()),
    (asyncio.CancelledError(), {"parked"}),
    (ValueError("on the way out"), {"parked"}),
    (asyncio.CancelledError(), {"gives_back"}),
    (asyncio.CancelledError(), {"fenced", "stopped"}),  # another attempt has begun
]
LAST: list[tuple[BaseException, set[str]]] = [
    (asyncio.CancelledError(), set()),
    (asyncio.CancelledError(), {"stopped"}),
    (asyncio.CancelledError(), {"stopped", "gives_back"}),
    (asyncio.CancelledError(), {"stopped", "parked"}),
    (RetryTurn("busy"), {"stopped"}),
    (ValueError("a bug"), set()),
    (ValueError("a bug"), {"gives_back"}),
]


@pytest.mark.parametrize(("error", "was"), FOLLOWED)
def test_another_attempt_goes_on(error: BaseException, was: set[str]) -> None:
    assert another_attempt_follows(error, **{**NOTHING, **dict.fromkeys(was, True)})


@pytest.mark.parametrize(("error", "was"), LAST)
def test_nobody_goes_on(error: BaseException, was: set[str]) -> None:
    assert not another_attempt_follows(error, **{**NOTHING, **dict.fromkeys(was, True)})


@pytest.mark.parametrize(
    ("said", "lasted", "followed"),
    [
        ({"not_found": True}, timedelta(seconds=9), True),  # a heartbeat was missed
        ({"timed_out": True}, timedelta(seconds=9), True),
        ({"not_found": True}, timedelta(seconds=61), False),  # the turn's time is over
        ({"cancel_requested": True}, timedelta(seconds=9), False),  # somebody has stopped it
    ],
)
def test_an_attempt_whose_heartbeats_were_missed_is_followed(
    said: dict[str, bool], lasted: timedelta, followed: bool
) -> None:
    info = dataclasses.replace(
        ActivityEnvironment.default_info(),
        started_time=datetime.now(UTC) - lasted,
        start_to_close_timeout=timedelta(seconds=60),
    )
    assert was_missed(ActivityCancellationDetails(**said), info) == followed
