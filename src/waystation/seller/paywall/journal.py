"""Where a paywall records its payments: SQLite by default, Redis for several hosts.

A journal is only a compare-and-set store of entries; the allowed transitions are in
``waystation.seller.paywall.entries``.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

import aiosqlite

from waystation.seller.paywall.entries import Entry, EntryState
from waystation.sqlite_files import open_sqlite

MAX_OPEN_ENTRIES_PER_READ = 500

FORGETTABLE = (EntryState.DELIVERED, EntryState.REFUSED, EntryState.NAMED)
"""States in which nothing is owed any more, neither an answer nor a refund."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS paywall_entries (
    key TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    created_at TEXT NOT NULL,
    entry TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS paywall_entries_by_state ON paywall_entries (state, created_at);
"""


class Journal(Protocol):
    """A durable compare-and-set store. Every method returns only once its effect is durable."""

    async def load(self, key: str) -> Entry | None:
        """Returns the entry as it stands, or None."""
        ...

    async def insert(self, entry: Entry) -> bool:
        """Writes a new entry. Returns False if the key already exists."""
        ...

    async def replace(self, entry: Entry) -> bool:
        """Writes the successor of ``version - 1``. Returns False if another writer came first."""
        ...

    async def in_state(
        self, state: EntryState, *, created_before: datetime, after: Entry | None = None
    ) -> Sequence[Entry]:
        """Returns the oldest entries in a state, at most ``MAX_OPEN_ENTRIES_PER_READ``.

        Given the last one of a page as ``after``, it returns the next page.
        """
        ...

    async def forget(self, *, delivered_before: datetime) -> int:
        """Deletes finished entries created before a point in time. Returns how many."""
        ...

    async def close(self) -> None:
        """Releases files and connections."""
        ...


async def every_in_state(journal: Journal, state: EntryState, *, created_before: datetime) -> Sequence[Entry]:
    """Returns all entries in a state, oldest first, read page by page: open ones can't hide behind others."""
    found = [*await journal.in_state(state, created_before=created_before)]
    page = found
    while page:
        page = [*await journal.in_state(state, created_before=created_before, after=page[-1])]
        found += page
    return found


class SqliteJournal:
    """A journal in one SQLite file, shared by every process of one host.

    Writes are synced to disk before they return: a claim that a crash could lose
    would allow a second charge.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._connection: aiosqlite.Connection | None = None
        self._lock = asyncio.Lock()

    async def _open(self) -> aiosqlite.Connection:
        if self._connection is None:
            self._connection = await open_sqlite(self._path, _SCHEMA)
        return self._connection

    async def load(self, key: str) -> Entry | None:
        """See ``Journal``."""
        async with self._lock:
            connection = await self._open()
            query = "SELECT entry FROM paywall_entries WHERE key = ?"
            async with connection.execute(query, (key,)) as cursor:
                row = await cursor.fetchone()
        return Entry.model_validate_json(row[0]) if row else None

    async def insert(self, entry: Entry) -> bool:
        """See ``Journal``."""
        row = (entry.key, entry.version, entry.state, _stamp(entry.created_at), entry.model_dump_json())
        async with self._lock:
            connection = await self._open()
            try:
                await connection.execute("INSERT INTO paywall_entries VALUES (?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                return False
        return True

    async def replace(self, entry: Entry) -> bool:
        """See ``Journal``."""
        query = (
            "UPDATE paywall_entries SET version = ?, state = ?, created_at = ?, entry = ? "
            "WHERE key = ? AND version = ?"
        )
        row = (entry.version, entry.state, _stamp(entry.created_at), entry.model_dump_json())
        known = (entry.key, entry.version - 1)
        async with self._lock:
            connection = await self._open()
            cursor = await connection.execute(query, (*row, *known))
        return cursor.rowcount == 1

    async def in_state(
        self, state: EntryState, *, created_before: datetime, after: Entry | None = None
    ) -> Sequence[Entry]:
        """See ``Journal``."""
        query = (
            "SELECT entry FROM paywall_entries WHERE state = ? AND created_at < ? "
            "AND (created_at, key) > (?, ?) ORDER BY created_at, key LIMIT ?"
        )
        last = ("", "") if after is None else (_stamp(after.created_at), after.key)
        row = (state, _stamp(created_before), *last, MAX_OPEN_ENTRIES_PER_READ)
        async with self._lock:
            connection = await self._open()
            rows = await connection.execute_fetchall(query, row)
        return [Entry.model_validate_json(found[0]) for found in rows]

    async def forget(self, *, delivered_before: datetime) -> int:
        """See ``Journal``."""
        query = "DELETE FROM paywall_entries WHERE state IN (?, ?, ?) AND created_at < ?"
        row = (*FORGETTABLE, _stamp(delivered_before))
        async with self._lock:
            connection = await self._open()
            cursor = await connection.execute(query, row)
        return cursor.rowcount

    async def close(self) -> None:
        """See ``Journal``."""
        async with self._lock:
            if self._connection is not None:
                await self._connection.close()
                self._connection = None


def _stamp(instant: datetime) -> str:
    """Returns a UTC timestamp that sorts as text."""
    return f"{instant.timestamp():020.6f}"
