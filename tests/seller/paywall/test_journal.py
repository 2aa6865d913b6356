"""Both journals: one writer wins, what is acknowledged stays, replicas see each other."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.world.redis import NO_REDIS, REDIS, running_redis
from waystation.models.money import Money
from waystation.models.payments import Rail
from waystation.seller.paywall import journal, redis_journal
from waystation.seller.paywall.entries import Charge, Entry, EntryState, Lease, StoredAnswer
from waystation.seller.paywall.journal import Journal, SqliteJournal, every_in_state
from waystation.seller.paywall.redis_journal import RedisJournal

NOW = datetime.now(UTC)


def entry(key: str = "k", created_at: datetime = NOW) -> Entry:
    return Entry(
        key=key,
        challenge_id=key,
        fingerprint="f",
        scope="s",
        route="GET /",
        rail=Rail.MPP_STRIPE,
        price=Money(amount=50, currency="usd"),
        payee="bn_1",
        created_at=created_at,
    )


CHARGE = Charge(reference="pi_1", charged_at=NOW)
ANSWER = StoredAnswer(status=200, headers=(), body_base64="")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if REDIS is None:
        pytest.skip(NO_REDIS)
    folder = tmp_path_factory.mktemp("redis")
    with running_redis(folder, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server.url


@pytest.fixture(params=["sqlite", "redis"])
async def journals(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Journal, Journal]]:
    """Two replicas of one journal."""
    pair: tuple[Journal, Journal]
    if request.param == "sqlite":
        pair = (SqliteJournal(tmp_path / "j.sqlite3"), SqliteJournal(tmp_path / "j.sqlite3"))
    else:
        url = request.getfixturevalue("redis_url")
        pair = (RedisJournal(url, prefix=tmp_path.name), RedisJournal(url, prefix=tmp_path.name))
    yield pair
    for made in pair:
        await made.close()


async def test_of_two_inserts_one_wins(journals: tuple[Journal, Journal]) -> None:
    won = await asyncio.gather(*(journals[n % 2].insert(entry()) for n in range(8)))
    assert sum(won) == 1
    assert await journals[1].load("k") == entry()


async def test_of_two_workers_one_takes_the_entry(journals: tuple[Journal, Journal]) -> None:
    await journals[0].insert(entry())
    lease = Lease(owner="a", until=NOW)
    won = await asyncio.gather(*(journals[n % 2].replace(entry().taken(lease)) for n in range(8)))
    assert sum(won) == 1


async def test_a_stale_worker_cannot_overwrite_its_successor(journals: tuple[Journal, Journal]) -> None:
    await journals[0].insert(entry())
    mine = entry().taken(Lease(owner="a", until=NOW))
    await journals[0].replace(mine)
    theirs = mine.taken(Lease(owner="b", until=NOW))
    await journals[1].replace(theirs)
    assert not await journals[0].replace(mine.refused("too late"))
    assert await journals[0].load("k") == theirs


async def test_replacing_what_does_not_exist_fails(journals: tuple[Journal, Journal]) -> None:
    assert not await journals[0].replace(entry().refused("x"))
    assert await journals[0].load("k") is None


async def test_entries_are_found_by_state_and_age_and_forgotten_when_finished(
    journals: tuple[Journal, Journal],
) -> None:
    old = NOW - timedelta(days=40)
    await journals[0].insert(entry("open", old))
    await journals[0].insert(entry("done", old))
    await journals[0].insert(entry("fresh"))
    charged = entry("done", old).charged(CHARGE)
    assert await journals[0].replace(charged)
    assert await journals[0].replace(charged.delivered(ANSWER))
    claimed = await journals[1].in_state(EntryState.CLAIMED, created_before=NOW - timedelta(days=1))
    assert [found.key for found in claimed] == ["open"]
    assert await journals[1].forget(delivered_before=NOW) == 1
    assert await journals[1].load("done") is None
    assert await journals[1].load("open") is not None


async def test_entries_that_stay_open_hide_no_others(
    journals: tuple[Journal, Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (journal, redis_journal):
        monkeypatch.setattr(module, "MAX_OPEN_ENTRIES_PER_READ", 2)
    for number in range(7):
        await journals[0].insert(entry(f"k{number}", NOW - timedelta(seconds=number)))
    found = await every_in_state(journals[1], EntryState.CLAIMED, created_before=NOW + timedelta(1))
    assert [one.key for one in found] == [f"k{number}" for number in reversed(range(7))]


def test_money_only_moves_forward_in_an_entry() -> None:
    charged = entry().charged(CHARGE)
    for impossible in (lambda: charged.refused("no"), lambda: charged.left_unclear("?")):
        with pytest.raises(ValueError, match="entry is charged"):
            impossible()
    with pytest.raises(ValueError, match="entry is claimed"):
        entry().delivered(ANSWER)
    assert charged.delivered(ANSWER).finished


def test_a_lease_keeps_others_out_until_it_ends() -> None:
    held = entry().taken(Lease(owner="a", until=NOW))
    assert held.held_by_other("b", NOW - timedelta(seconds=1))
    assert not held.held_by_other("a", NOW - timedelta(seconds=1))
    assert not held.held_by_other("b", NOW)
