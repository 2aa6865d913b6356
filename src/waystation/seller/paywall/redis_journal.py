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

# The three scripts below each run atomically in Redis. KEYS: entry, index of the
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
            f"{entry.created_at.timestamp():.6f}",
            entry.key,
            str(entry.version - 1),
        ]
        written: Any = await self._redis.eval(script, len(keys), *keys, *values)
        return bool(written)

    async def in_state(
        self, state: EntryState, *, created_before: datetime, after: Entry | None = None
    ) -> Sequence[Entry]:
        """See ``Journal``."""
        keys = await self._keys_before(state, created_before, after)
        entries = [await self.load(key) for key in keys]
        return [entry for entry in entries if entry is not None and entry.state is state]

    async def forget(self, *, delivered_before: datetime) -> int:
        """See ``Journal``."""
        forgotten = 0
        for state in FORGETTABLE:
            for key in await self._keys_before(state, delivered_before):
                await self._redis.delete(self._key(key))
                await self._redis.zrem(self._index(state), key)
                forgotten += 1
        return forgotten

    async def _keys_before(
        self, state: EntryState, instant: datetime, after: Entry | None = None
    ) -> list[str]:
        found: Any = await self._redis.zrangebyscore(
            self._index(state),
            "-inf" if after is None else f"({after.created_at.timestamp():.6f}",
            f"({instant.timestamp():.6f}",
            start=0,
            num=MAX_OPEN_ENTRIES_PER_READ,
        )
        return [key.decode() for key in found]

    async def close(self) -> None:
        """See ``Journal``."""
        await self._redis.aclose()
