"""What a holder of an allowance writes down before it pays: one SQLite file for a machine.

A payment is committed, and synced to disk, before its credential is sent. Requests, credentials and
answers are sealed with the payload keys. A lock per allowance keeps a second process out while the
first one lives; it ends with the process, however that dies.
"""

import fcntl
import hashlib
import os
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, Self

import aiosqlite
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from waystation.errors import WaystationError
from waystation.models.base import Frozen
from waystation.models.money import MinorUnits, Money
from waystation.models.payments import (
    REVEAL,
    AllowanceAnswer,
    MintCall,
    MintedCredential,
    PaidHttpRequest,
    RedeemAnswer,
)
from waystation.sqlite_files import open_sqlite

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS journal (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS leases (
    allowance TEXT PRIMARY KEY, lease INTEGER NOT NULL, finished INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS payments (
    allowance TEXT NOT NULL, key TEXT NOT NULL, lease INTEGER NOT NULL, state TEXT NOT NULL,
    counted INTEGER NOT NULL, number INTEGER, reported INTEGER NOT NULL DEFAULT 0,
    made_at REAL NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (allowance, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS payments_by_state ON payments (allowance, state, made_at);
"""

PaymentState = Literal["pinned", "answered", "closed"]
"""``pinned``: a credential for this offer may be out. ``answered``: the server delivered.
``closed``: processor or chain was asked, and what it says is final."""


class JournalPayment(Frozen):
    """One payment of an allowance. Everything that its credential is made from is in it."""

    key: str
    lease: int
    state: PaymentState
    counted: MinorUnits
    """What it takes from the budget as far as is known: the price until it is closed."""
    request: PaidHttpRequest
    max_price: Money | None = None
    """The caller's limit; ``None`` in a journal of before it was written down."""
    mint: MintCall
    credential: MintedCredential | None = None
    redeemed: RedeemAnswer | None = None
    outcome: AllowanceAnswer | None = None
    number: int | None = None


class JournalLockedError(WaystationError):
    """Another live process of this machine pays from the allowance."""


class AllowanceJournal:
    """The payments of this machine's holders. Every write is durable once it returns."""

    def __init__(self, path: Path, codec: PayloadCodec | None) -> None:
        self._path, self._codec = path, codec
        self._connection: aiosqlite.Connection | None = None
        self._locks: dict[str, int] = {}
        self.id = ""
        """Names this journal to the allowances, so that a restart goes on with its leases."""

    async def open(self) -> Self:
        """Opens the file, and makes it if need be, readable by its owner alone."""
        if self._connection is not None:
            return self
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = await open_sqlite(self._path, _SCHEMA)
        await connection.execute(
            "INSERT INTO journal SELECT ? WHERE NOT EXISTS (SELECT 1 FROM journal)", (uuid.uuid4().hex,)
        )
        async with connection.execute("SELECT id FROM journal") as cursor:
            row = await cursor.fetchone()
        self.id = str(row[0]) if row else ""
        self._connection = connection
        return self

    async def close(self) -> None:
        """Closes the file and gives all locks up."""
        for allowance in list(self._locks):
            self.unlock(allowance)
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    def lock(self, allowance: str) -> None:
        """Keeps other processes of this machine out. Raises ``JournalLockedError``."""
        name = hashlib.sha256(allowance.encode()).hexdigest()[:32]
        descriptor = os.open(f"{self._path}.{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise JournalLockedError(f"another process of this machine pays from {allowance}") from None
        self._locks[allowance] = descriptor

    def unlock(self, allowance: str) -> None:
        """Lets others in."""
        descriptor = self._locks.pop(allowance, None)
        if descriptor is not None:
            os.close(descriptor)

    @property
    def _db(self) -> aiosqlite.Connection:
        if self._connection is None:
            raise RuntimeError("the journal isn't open")
        return self._connection

    # Leases

    async def begin(self, allowance: str, lease: int) -> None:
        """Notes the lease under which the next payments are made."""
        await self._db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, 0)", (allowance, lease))

    async def finish(self, allowance: str) -> None:
        """Notes that everything was reported."""
        await self._db.execute("UPDATE leases SET finished = 1 WHERE allowance = ?", (allowance,))

    async def unfinished(self) -> dict[str, int]:
        """Allowances, with their lease, that a process of this machine has left behind."""
        query = "SELECT allowance, lease FROM leases WHERE finished = 0"
        rows = await self._db.execute_fetchall(query)
        return {str(allowance): int(lease) for allowance, lease in rows}

    # Payments

    async def load(self, allowance: str, key: str) -> JournalPayment | None:
        """The payment with this key, or None."""
        query = "SELECT sealed FROM payments WHERE allowance = ? AND key = ?"
        async with self._db.execute(query, (allowance, key)) as cursor:
            row = await cursor.fetchone()
        return await self._open_seal(row[0]) if row else None

    async def write(self, allowance: str, payment: JournalPayment, *, at: datetime) -> None:
        """Writes a payment, new or changed."""
        row = (
            allowance,
            payment.key,
            payment.lease,
            payment.state,
            payment.counted,
            payment.number,
            at.timestamp(),
            await self._seal(payment),
        )
        await self._db.execute(
            "INSERT INTO payments (allowance, key, lease, state, counted, number, made_at, sealed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (allowance, key) DO UPDATE SET"
            " state = excluded.state, counted = excluded.counted, number = excluded.number,"
            " sealed = excluded.sealed",
            row,
        )

    async def counted(self, allowance: str, lease: int) -> int:
        """What the payments of a lease take from the budget, in minor units."""
        query = "SELECT COALESCE(SUM(counted), 0) FROM payments WHERE allowance = ? AND lease = ?"
        async with self._db.execute(query, (allowance, lease)) as cursor:
            row = await cursor.fetchone()
        return int(row[0]) if row else 0

    async def next_number(self, allowance: str, lease: int) -> int:
        """The number of the next closed payment of a lease."""
        query = "SELECT COALESCE(MAX(number), 0) + 1 FROM payments WHERE allowance = ? AND lease = ?"
        async with self._db.execute(query, (allowance, lease)) as cursor:
            row = await cursor.fetchone()
        return int(row[0]) if row else 1

    async def in_state(self, allowance: str, lease: int, state: PaymentState) -> Sequence[JournalPayment]:
        """The payments of a lease in a state, oldest first."""
        query = "SELECT sealed FROM payments WHERE allowance = ? AND lease = ? AND state = ? ORDER BY made_at"
        rows = await self._db.execute_fetchall(query, (allowance, lease, state))
        return [await self._open_seal(row[0]) for row in rows]

    async def unreported(self, allowance: str, lease: int, limit: int) -> Sequence[JournalPayment]:
        """The first closed payments of a lease that the allowance doesn't know of."""
        query = (
            "SELECT sealed FROM payments WHERE allowance = ? AND lease = ? AND state = 'closed'"
            " AND reported = 0 ORDER BY number LIMIT ?"
        )
        rows = await self._db.execute_fetchall(query, (allowance, lease, limit))
        return [await self._open_seal(row[0]) for row in rows]

    async def reported(self, allowance: str, lease: int, up_to: int) -> None:
        """The allowance knows the payments up to this number."""
        await self._db.execute(
            "UPDATE payments SET reported = 1 WHERE allowance = ? AND lease = ? AND number <= ?",
            (allowance, lease, up_to),
        )

    async def forget(self, *, made_before: datetime) -> None:
        """Deletes what was reported and whose allowance was finished, older than an instant."""
        await self._db.execute(
            "DELETE FROM payments WHERE reported = 1 AND made_at < ?"
            " AND allowance IN (SELECT allowance FROM leases WHERE finished = 1)",
            (made_before.timestamp(),),
        )
        await self._db.execute(
            "DELETE FROM leases WHERE finished = 1 AND allowance NOT IN (SELECT allowance FROM payments)"
        )

    async def _seal(self, payment: JournalPayment) -> bytes:
        payload = Payload(
            metadata={"encoding": b"json/plain"}, data=payment.model_dump_json(context=REVEAL).encode()
        )
        sealed = [payload] if self._codec is None else await self._codec.encode([payload])
        return sealed[0].SerializeToString()

    async def _open_seal(self, sealed: bytes) -> JournalPayment:
        payload = Payload.FromString(sealed)
        opened = [payload] if self._codec is None else await self._codec.decode([payload])
        return JournalPayment.model_validate_json(opened[0].data)
