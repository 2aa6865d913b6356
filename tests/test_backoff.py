"""How long clients and agents wait before they try again."""

from types import SimpleNamespace

import pytest

from waystation.backoff import Backoff
from waystation.errors import (
    ApiError,
    ConnectionLost,
    NotAllowed,
    TryLater,
    WaystationError,
    seconds_before_retry,
)


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long everything has waited, without waiting."""
    seconds: list[float] = []

    async def sleep(pause: float) -> None:
        seconds.append(pause)

    # Only there: servers of other tests live in the same loop, and would never let it rest.
    monkeypatch.setattr("waystation.backoff.asyncio", SimpleNamespace(sleep=sleep))
    return seconds


async def test_pauses_double_up_to_the_limit_and_begin_anew_after_a_success(waited: list[float]) -> None:
    backoff = Backoff(1.0, 5.0)
    for _ in range(5):
        await backoff.wait()
    for pause, longest in zip(waited, [1.0, 2.0, 4.0, 5.0, 5.0], strict=True):
        assert longest / 2 <= pause <= longest
    backoff.reset()
    await backoff.wait()
    assert 0.5 <= waited[-1] <= 1.0


async def test_nobody_comes_back_before_the_server_has_asked_them_to(waited: list[float]) -> None:
    backoff = Backoff(0.1, 5.0)
    for _ in range(20):
        await backoff.wait(at_least_seconds=2.0)
        backoff.reset()
    assert all(2.05 <= pause <= 2.1 for pause in waited)
    assert len(set(waited)) > 1


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (TryLater(503, "temporal-unavailable", "try again", 2.0), 2.0),
        (TryLater(429, "too-many", "try again"), 0.0),
        (ApiError(502, "error", "a proxy"), 0.0),
        (ConnectionLost("away"), 0.0),
    ],
)
def test_what_may_work_later_is_tried_again(error: WaystationError, seconds: float) -> None:
    assert seconds_before_retry(error) == seconds


def test_what_was_refused_for_good_is_raised() -> None:
    refused = NotAllowed(403, "forbidden", "not yours")
    with pytest.raises(NotAllowed):
        seconds_before_retry(refused)
