"""A paywall journal in Redis, for processes on several hosts.

Redis must keep what it acknowledges (``appendonly yes``, ``appendfsync always``):
a claim that a crash could lose would allow a second charge.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from redis.asyncio import Redis

from waystation.seller.paywall.entries import Entry, EntryState
from waystation.seller.paywall.journal import FORGETTABLE, MAX_OPEN_ENTRIES_PER_READ

# The scripts below each run atomically in Redis. KEYS: entry, index of the
# old state, index of the new state.
_INSERT = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'entry', ARGV[2], 'index', KEYS[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4])
return 1
"""
_REPLACE = """
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[5] then return 0 end
redis.call('ZREM', redis.call('HGET', KEYS[1], 'index'), ARGV[4])
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'entry', ARGV[2], 'index', KEYS[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4])
return 1
"""
# KEYS: entry, index of its state. ARGV: its key, and when it has to be created before.
_FORGET = """
local created = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not created or tonumber(created) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
"""


class RedisJournal:
    """A journal in Redis. One key prefix per paywall; ``{…}`` keeps it in one cluster slot."""

    def __init__(self, url: str, *, prefix: str = "paywall") -> None:
        self._redis: Redis = Redis.from_url(url)
        self._prefix = "{" + prefix + "}"

    def _key(self, key: str) -> str:
        return f"{self._prefix}:entry:{key}"

    def _index(self, state: EntryState) -> str:
        return f"{self._prefix}:state:{state}"

    async def load(self, key: str) -> Entry | None:
        """See ``Journal``."""
        found: Any = await self._redis.hget(self._key(key), "entry")
        return Entry.model_validate_json(found) if found is not None else None

    async def insert(self, entry: Entry) -> bool:
        """See ``Journal``."""
        return await self._write(_INSERT, entry)

    async def replace(self, entry: Entry) -> bool:
        """See ``Journal``."""
        return await self._write(_REPLACE, entry)

    async def _write(self, script: str, entry: Entry) -> bool:
        keys = [self._key(entry.key), self._index(entry.state)]
        values: list[str] = [
            str(entry.version),
            entry.model_dump_json(),
            _score(entry.created_at),
            entry.key,
            str(entry.version - 1),
        ]
        written: Any = await self._redis.eval(script, len(keys), *keys, *values)
        return bool(written)

    async def in_state(
        self, state: EntryState, *, created_before: datetime, after: Entry | None = None
    ) -> Sequence[Entry]:
        """See ``Journal``."""
        last = None if after is None else (_score(after.created_at), after.key)
        while places := await self._places(state, created_before, last):
            read = [await self.load(key) for _, key in places]
            if found := [entry for entry in read if entry is not None and entry.state is state]:
                return found
            last = places[-1]  # all of these have moved on meanwhile
        return []

    async def forget(self, *, delivered_before: datetime) -> int:
        """See ``Journal``."""
        forgotten = 0
        for state in FORGETTABLE:
            last = None
            while places := await self._places(state, delivered_before, last):
                for _, key in places:
                    keys = [self._key(key), self._index(state)]
                    gone: Any = await self._redis.eval(
                        _FORGET, len(keys), *keys, key, _score(delivered_before)
                    )
                    forgotten += int(gone)
                last = places[-1]
        return forgotten

    async def _places(
        self, state: EntryState, instant: datetime, last: tuple[str, str] | None
    ) -> list[tuple[str, str]]:
        """Returns the next scores and keys in a state's index: by score, then by key."""
        index, end = self._index(state), f"({_score(instant)}"
        found: list[tuple[bytes, float]] = []
        if last is not None and float(last[0]) < instant.timestamp():
            # Entries of the same moment may be on both sides of a page's end.
            peers: Any = await self._redis.zrangebyscore(index, last[0], last[0], withscores=True)
            found = [(key, score) for key, score in peers if key > last[1].encode()]
        begin = "-inf" if last is None else f"({last[0]}"
        later: Any = await self._redis.zrangebyscore(
            index, begin, end, start=0, num=MAX_OPEN_ENTRIES_PER_READ, withscores=True
        )
        page = [*found, *later][:MAX_OPEN_ENTRIES_PER_READ]
        return [(f"{score:.6f}", key.decode()) for key, score in page]

    async def close(self) -> None:
        """See ``Journal``."""
        await self._redis.aclose()


def _score(instant: datetime) -> str:
    """Returns a time as the indexes keep it."""
    return f"{instant.timestamp():.6f}"
