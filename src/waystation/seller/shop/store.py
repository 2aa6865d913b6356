"""Where a seller keeps its checkouts, orders, webhook deliveries and idempotency keys.

``Store`` is what the kit needs; ``SqliteStore`` comes with it. A checkout is saved only over
the version that was read, so of two writers, in one process or in several, one is told that it came second.
"""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Literal, Protocol

import aiosqlite

from waystation.models.base import Frozen, replaced
from waystation.protocols.acp import CheckoutStatus
from waystation.seller.shop.records import CartRecord, Checkout, Delivery, OrderRecord
from waystation.sqlite_files import open_sqlite

IDEMPOTENCY_RETENTION_SECONDS: Final = 48 * 3600
"""The protocol asks for at least 24 h."""


_SCHEMA = """
CREATE TABLE IF NOT EXISTS checkouts (
  id TEXT PRIMARY KEY, version INTEGER NOT NULL, status TEXT NOT NULL, updated INTEGER NOT NULL,
  expires INTEGER NOT NULL, data TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS checkouts_by_status ON checkouts (status, updated);
CREATE TABLE IF NOT EXISTS orders (
  id TEXT PRIMARY KEY, checkout TEXT UNIQUE NOT NULL, version INTEGER NOT NULL, data TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS carts (id TEXT PRIMARY KEY, expires INTEGER NOT NULL, data TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS idempotency (
  scope TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, owner_pid INTEGER NOT NULL,
  owner TEXT NOT NULL, created INTEGER NOT NULL, status INTEGER, body BLOB, PRIMARY KEY (scope, key));
CREATE TABLE IF NOT EXISTS deliveries (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, url TEXT NOT NULL, order_id TEXT NOT NULL,
  event TEXT NOT NULL, body BLOB NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, due_ms INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending');
CREATE INDEX IF NOT EXISTS deliveries_pending ON deliveries (state, due_ms);
"""


class ConcurrentChangeError(Exception):
    """The record was changed after it was read."""


class Claim(Frozen):
    """The result of claiming an idempotency key.

    ``new``: go ahead; ``replay``: here is the kept answer; ``conflict``: other body; ``in_flight``: wait.
    """

    outcome: Literal["new", "replay", "conflict", "in_flight"]
    status: int = 0
    body: bytes = b""


class Store(Protocol):
    """Everything is durable when a method returns."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...

    async def checkout(self, checkout_id: str) -> Checkout | None: ...
    async def insert_checkout(self, checkout: Checkout) -> None: ...
    async def save_checkout(self, checkout: Checkout) -> Checkout:
        """Saves over the version that was read, else raises ``ConcurrentChangeError``."""
        ...

    async def complete(
        self, checkout: Checkout, order: OrderRecord, deliveries: Sequence[Delivery]
    ) -> Checkout:
        """Saves the checkout, its one order and the order's event, all or none."""
        ...

    async def unsettled(self, updated_before: int) -> list[str]:
        """Returns the ids of checkouts whose payment began and was not heard of since."""
        ...

    async def expired(self, now: int) -> list[str]: ...

    async def order(self, order_id: str) -> OrderRecord | None: ...
    async def save_order(self, order: OrderRecord, deliveries: Sequence[Delivery]) -> OrderRecord: ...

    async def cart(self, cart_id: str) -> CartRecord | None: ...
    async def save_cart(self, cart: CartRecord) -> None: ...
    async def delete_cart(self, cart_id: str) -> None: ...

    async def claim(self, scope: str, key: str, body_digest: str) -> Claim: ...
    async def keep_answer(self, scope: str, key: str, status: int, body: bytes) -> None: ...
    async def give_up_claim(self, scope: str, key: str) -> None: ...

    async def prune(self, now: int) -> None:
        """Deletes what is past its time: stored responses, carts, accepted deliveries."""
        ...

    async def due_deliveries(self, now_ms: int) -> list[Delivery]: ...
    async def mark_delivery(self, delivery_id: str, state: str, attempts: int, due_ms: int) -> None: ...


def _opened(connection: aiosqlite.Connection | None) -> aiosqlite.Connection:
    if connection is None:
        raise RuntimeError("the store is not open; call open() first, or run the app's lifespan")
    return connection


async def _fetched(db: aiosqlite.Connection, sql: str, values: Sequence[str | int]) -> list[aiosqlite.Row]:
    async with db.execute(sql, values) as cursor:
        return list(await cursor.fetchall())


class SqliteStore:
    """A store in one SQLite file, for any number of processes on one machine."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        # Reading and writing take a connection each: on a shared one a read would see what another task has
        # not committed yet, and a write that begins during a read would be refused as locked.
        self._reader: aiosqlite.Connection | None = None
        self._writer: aiosqlite.Connection | None = None
        self._reading = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._owner = secrets.token_hex(8)

    async def open(self) -> None:
        self._writer = await self._connected()
        self._reader = await self._connected()
        await self._free_claims_of_the_dead()

    async def _connected(self) -> aiosqlite.Connection:
        connection = await open_sqlite(self._path, _SCHEMA)
        connection.row_factory = aiosqlite.Row
        return connection

    async def close(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                await connection.close()
        self._reader = self._writer = None

    async def _row(self, sql: str, *values: str | int) -> aiosqlite.Row | None:
        rows = await self._rows(sql, *values)
        return rows[0] if rows else None

    async def _rows(self, sql: str, *values: str | int) -> list[aiosqlite.Row]:
        # One at a time: a statement that overlaps another one sees the state at which that one began.
        async with self._reading:
            return await _fetched(_opened(self._reader), sql, values)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        writer = _opened(self._writer)
        async with self._writing:
            await writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
            except BaseException:
                await writer.execute("ROLLBACK")
                raise
            await writer.execute("COMMIT")

    # Checkouts and orders

    async def checkout(self, checkout_id: str) -> Checkout | None:
        row = await self._row("SELECT data FROM checkouts WHERE id = ?", checkout_id)
        return Checkout.model_validate_json(row["data"]) if row else None

    async def insert_checkout(self, checkout: Checkout) -> None:
        async with self._transaction() as db:
            await db.execute(
                "INSERT INTO checkouts VALUES (?, ?, ?, ?, ?, ?)",
                (
                    checkout.id,
                    checkout.version,
                    checkout.status,
                    checkout.updated_at,
                    checkout.expires_at,
                    checkout.model_dump_json(),
                ),
            )

    async def save_checkout(self, checkout: Checkout) -> Checkout:
        async with self._transaction() as db:
            return await self._put_checkout(db, checkout)

    async def _put_checkout(self, db: aiosqlite.Connection, checkout: Checkout) -> Checkout:
        following = replaced(checkout, version=checkout.version + 1)
        cursor = await db.execute(
            "UPDATE checkouts SET version = ?, status = ?, updated = ?, expires = ?, data = ? "
            "WHERE id = ? AND version = ?",
            (
                following.version,
                following.status,
                following.updated_at,
                following.expires_at,
                following.model_dump_json(),
                checkout.id,
                checkout.version,
            ),
        )
        if cursor.rowcount != 1:
            raise ConcurrentChangeError(checkout.id)
        return following

    async def complete(
        self, checkout: Checkout, order: OrderRecord, deliveries: Sequence[Delivery]
    ) -> Checkout:
        async with self._transaction() as db:
            completed = await self._put_checkout(db, checkout)
            await db.execute(
                "INSERT INTO orders VALUES (?, ?, ?, ?)",
                (order.order.id, checkout.id, order.version, order.model_dump_json()),
            )
            await self._put_deliveries(db, deliveries)
            return completed

    async def unsettled(self, updated_before: int) -> list[str]:
        rows = await self._rows(
            "SELECT id FROM checkouts WHERE status IN (?, ?) AND updated <= ? ORDER BY updated LIMIT 100",
            CheckoutStatus.COMPLETE_IN_PROGRESS,
            CheckoutStatus.IN_PROGRESS,
            updated_before,
        )
        return [row["id"] for row in rows]

    async def expired(self, now: int) -> list[str]:
        closed = (
            CheckoutStatus.COMPLETED,
            CheckoutStatus.CANCELED,
            CheckoutStatus.EXPIRED,
            CheckoutStatus.COMPLETE_IN_PROGRESS,
        )
        rows = await self._rows(
            "SELECT id FROM checkouts WHERE expires <= ? AND status NOT IN (?, ?, ?, ?) LIMIT 100",
            now,
            *closed,
        )
        return [row["id"] for row in rows]

    async def order(self, order_id: str) -> OrderRecord | None:
        row = await self._row("SELECT data FROM orders WHERE id = ?", order_id)
        return OrderRecord.model_validate_json(row["data"]) if row else None

    async def save_order(self, order: OrderRecord, deliveries: Sequence[Delivery]) -> OrderRecord:
        following = replaced(order, version=order.version + 1)
        async with self._transaction() as db:
            cursor = await db.execute(
                "UPDATE orders SET version = ?, data = ? WHERE id = ? AND version = ?",
                (following.version, following.model_dump_json(), order.order.id, order.version),
            )
            if cursor.rowcount != 1:
                raise ConcurrentChangeError(order.order.id)
            await self._put_deliveries(db, deliveries)
        return following

    # Carts

    async def cart(self, cart_id: str) -> CartRecord | None:
        row = await self._row(
            "SELECT data FROM carts WHERE id = ? AND expires > ?", cart_id, int(time.time())
        )
        return CartRecord.model_validate_json(row["data"]) if row else None

    async def save_cart(self, cart: CartRecord) -> None:
        async with self._transaction() as db:
            await db.execute(
                "INSERT INTO carts VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET data = excluded.data, "
                "expires = excluded.expires",
                (cart.id, cart.expires_at, cart.model_dump_json()),
            )

    async def delete_cart(self, cart_id: str) -> None:
        async with self._transaction() as db:
            await db.execute("DELETE FROM carts WHERE id = ?", (cart_id,))

    # Idempotency keys

    async def claim(self, scope: str, key: str, body_digest: str) -> Claim:
        now = int(time.time())
        async with self._transaction() as db:
            cursor = await db.execute(
                "INSERT INTO idempotency (scope, key, fingerprint, owner_pid, owner, created) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (scope, key, body_digest, os.getpid(), self._owner, now),
            )
            if cursor.rowcount == 1:
                return Claim(outcome="new")
            found = await _fetched(db, "SELECT * FROM idempotency WHERE scope = ? AND key = ?", (scope, key))
            row = found[0]
            if row["fingerprint"] != body_digest:
                return Claim(outcome="conflict")
            if row["status"] is not None:
                return Claim(outcome="replay", status=row["status"], body=row["body"])
            if self._is_alive(row["owner_pid"], row["owner"]):
                return Claim(outcome="in_flight")
            await db.execute(
                "UPDATE idempotency SET owner_pid = ?, owner = ? WHERE scope = ? AND key = ?",
                (os.getpid(), self._owner, scope, key),
            )
            return Claim(outcome="new")

    async def keep_answer(self, scope: str, key: str, status: int, body: bytes) -> None:
        async with self._transaction() as db:
            await db.execute(
                "UPDATE idempotency SET status = ?, body = ? WHERE scope = ? AND key = ?",
                (status, body, scope, key),
            )

    async def give_up_claim(self, scope: str, key: str) -> None:
        async with self._transaction() as db:
            await db.execute(
                "DELETE FROM idempotency WHERE scope = ? AND key = ? AND status IS NULL AND owner = ?",
                (scope, key, self._owner),
            )

    def _is_alive(self, pid: int, owner: str) -> bool:
        """Returns whether the process that claimed a key can still be working on it.

        A process that was killed leaves its claims behind; waiting for them would block the very retry that
        is to find out what happened. A restarted container may get the same pid again, hence the second word.
        """
        if pid == os.getpid():
            return owner == self._owner
        with suppress(ProcessLookupError):
            try:
                os.kill(pid, 0)
            except PermissionError:
                return True
            return True
        return False

    async def _free_claims_of_the_dead(self) -> None:
        rows = await self._rows("SELECT scope, key, owner_pid, owner FROM idempotency WHERE status IS NULL")
        async with self._transaction() as db:
            for row in rows:
                if not self._is_alive(row["owner_pid"], row["owner"]):
                    await db.execute(
                        "DELETE FROM idempotency WHERE scope = ? AND key = ? AND owner = ?",
                        (row["scope"], row["key"], row["owner"]),
                    )

    async def prune(self, now: int) -> None:
        oldest = now - IDEMPOTENCY_RETENTION_SECONDS
        async with self._transaction() as db:
            await db.execute("DELETE FROM idempotency WHERE created < ? AND status IS NOT NULL", (oldest,))
            await db.execute("DELETE FROM carts WHERE expires <= ?", (now,))
            await db.execute(
                "DELETE FROM deliveries WHERE state = 'delivered' AND due_ms < ?", (oldest * 1000,)
            )

    # Webhook deliveries

    async def _put_deliveries(self, db: aiosqlite.Connection, deliveries: Sequence[Delivery]) -> None:
        await db.executemany(
            "INSERT INTO deliveries (id, url, order_id, event, body, due_ms) VALUES (?, ?, ?, ?, ?, 0)",
            [(one.id, one.url, one.order_id, one.event, one.body) for one in deliveries],
        )

    async def due_deliveries(self, now_ms: int) -> list[Delivery]:
        """Returns only the oldest pending event for each target and order: the next must not overtake it."""
        rows = await self._rows(
            "SELECT * FROM deliveries WHERE seq IN (SELECT min(seq) FROM deliveries WHERE state = 'pending' "
            "GROUP BY url, order_id) AND due_ms <= ? ORDER BY seq LIMIT 50",
            now_ms,
        )
        return [
            Delivery(
                id=row["id"],
                url=row["url"],
                order_id=row["order_id"],
                event=row["event"],
                body=row["body"],
                attempts=row["attempts"],
            )
            for row in rows
        ]

    async def mark_delivery(self, delivery_id: str, state: str, attempts: int, due_ms: int) -> None:
        async with self._transaction() as db:
            await db.execute(
                "UPDATE deliveries SET state = ?, attempts = ?, due_ms = ? WHERE id = ?",
                (state, attempts, due_ms, delivery_id),
            )
