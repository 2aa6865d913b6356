"""What keeps live text off the screens, and for how long."""

import asyncio

import pytest

from api.live import holds as holds_module
from api.live.holds import MAX_HELD_DELTAS, Holds
from tests.support import eventually
from waystation.models.live import Delta


def delta(number: int) -> Delta:
    return Delta(turn_id="t1", attempt=1, message_id="m", offset=number, length=1)


async def test_a_stop_is_unread_until_a_reading_that_began_after_it() -> None:
    holds = Holds(lambda request_id: None)
    before = holds.begin_reading()
    holds.ask("1")
    assert holds.asked
    holds.take("1")
    assert (holds.asked, holds.unread) == (False, True)
    assert not holds.read(before)
    assert holds.unread
    assert holds.read(holds.begin_reading())
    assert not holds.unread


async def test_two_who_stop_are_waited_for_one_by_one() -> None:
    holds = Holds(lambda request_id: None)
    holds.ask("1")
    holds.ask("1")
    holds.ask("2")
    holds.drop("1")
    assert holds.asked
    holds.drop("2")
    holds.drop("of another process")
    assert not holds.asked


async def test_what_is_held_is_bounded_and_released_in_order() -> None:
    holds = Holds(lambda request_id: None)
    for number in range(MAX_HELD_DELTAS + 5):
        holds.hold(delta(number))
    assert [held.delta.offset for held in holds.release()] == list(range(MAX_HELD_DELTAS))
    assert holds.release() == []


async def test_a_stop_of_which_nothing_more_is_heard_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds_module, "MAX_STOPPING_SECONDS", 0.01)
    given_up: list[str] = []
    holds = Holds(given_up.append)
    holds.ask("1")
    await eventually(lambda: given_up == ["1"])
    holds.ask("2")
    holds.stop()
    await asyncio.sleep(0.03)
    assert given_up == ["1"]
