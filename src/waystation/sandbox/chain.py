"""The sandbox's simulated chain: one token's balances and used authorizations, in SQLite."""

import asyncio
import time
from pathlib import Path

import aiosqlite
from eth_utils.crypto import keccak

from waystation.models.base import Frozen
from waystation.protocols.http402.eip3009 import USDC_BASE_SEPOLIA, TokenAsset
from waystation.sqlite_files import open_sqlite

FAUCET_BASE_UNITS = 1_000_000_000
"""Every address starts with 1,000 simulated USDC."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS balances (address TEXT PRIMARY KEY, amount INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS transfers (
    payer TEXT NOT NULL, nonce TEXT NOT NULL, payee TEXT NOT NULL, amount INTEGER NOT NULL,
    tx TEXT NOT NULL UNIQUE, settled_at REAL NOT NULL, PRIMARY KEY (payer, nonce)
) WITHOUT ROWID;
"""


class NonceUsedError(Exception):
    """The authorization has been used."""


class Transfer(Frozen):
    """One settled authorization, in base units of the token."""

    payer: str
    nonce: str
    payee: str
    amount: int
    tx: str
    block: int
    """The number of its block, which is also the block's time: the chain makes one every second."""


class Chain:
    """A token's ledger: each (payer, nonce) moves money once, as EIP-3009 demands."""

    def __init__(self, path: Path, asset: TokenAsset = USDC_BASE_SEPOLIA) -> None:
        self.asset = asset
        self._path = path
        self._connection: aiosqlite.Connection | None = None
        self._lock = asyncio.Lock()

    async def _open(self) -> aiosqlite.Connection:
        if self._connection is None:
            self._connection = await open_sqlite(self._path, _SCHEMA)
        return self._connection

    async def balance(self, address: str) -> int:
        """Returns the base units held. A new address holds what the faucet gave it."""
        async with self._lock:
            return await self._balance(await self._open(), address)

    async def transfer_of(self, payer: str, nonce: str) -> Transfer | None:
        """Returns the transfer that used an authorization, or None."""
        async with self._lock:
            return await self._transfer_of(await self._open(), payer, nonce)

    async def transfers(self) -> list[Transfer]:
        """Returns all transfers, oldest first."""
        query = "SELECT payer, nonce, payee, amount, tx, settled_at FROM transfers ORDER BY settled_at"
        async with self._lock:
            rows = await (await self._open()).execute_fetchall(query)
        return [_transfer(row) for row in rows]

    async def transfer_in(self, tx: str) -> Transfer | None:
        """Returns the transfer that a transaction made, or None."""
        query = "SELECT payer, nonce, payee, amount, tx, settled_at FROM transfers WHERE tx = ?"
        async with self._lock, (await self._open()).execute(query, (tx,)) as cursor:
            row = await cursor.fetchone()
        return _transfer(row) if row else None

    async def move(self, payer: str, payee: str, amount: int, nonce: str) -> Transfer | None:
        """Moves tokens once for a nonce and returns the transfer, or None if the payer has too little.

        Raises:
            NonceUsedError: The nonce has moved tokens before, to whomever.
        """
        async with self._lock:
            connection = await self._open()
            await connection.execute("BEGIN IMMEDIATE")
            try:
                done = await self._move(connection, payer, payee, amount, nonce)
            except BaseException:
                await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")
            return done

    async def _move(
        self, connection: aiosqlite.Connection, payer: str, payee: str, amount: int, nonce: str
    ) -> Transfer | None:
        before = await self._transfer_of(connection, payer, nonce)
        if before is not None:
            raise NonceUsedError(nonce)
        held = await self._balance(connection, payer)
        if held < amount:
            return None
        tx = "0x" + keccak(text=f"{self.asset.currency}|{payer}|{nonce}").hex()
        await self._set_balance(connection, payer, held - amount)
        await self._set_balance(connection, payee, await self._balance(connection, payee) + amount)
        now = time.time()
        row = (payer, nonce, payee, amount, tx, now)
        await connection.execute("INSERT INTO transfers VALUES (?, ?, ?, ?, ?, ?)", row)
        return Transfer(payer=payer, nonce=nonce, payee=payee, amount=amount, tx=tx, block=int(now))

    async def _balance(self, connection: aiosqlite.Connection, address: str) -> int:
        query = "SELECT amount FROM balances WHERE address = ?"
        async with connection.execute(query, (address,)) as cursor:
            row = await cursor.fetchone()
        return int(row[0]) if row else FAUCET_BASE_UNITS

    async def _set_balance(self, connection: aiosqlite.Connection, address: str, amount: int) -> None:
        await connection.execute("INSERT OR REPLACE INTO balances VALUES (?, ?)", (address, amount))

    async def _transfer_of(self, connection: aiosqlite.Connection, payer: str, nonce: str) -> Transfer | None:
        query = (
            "SELECT payer, nonce, payee, amount, tx, settled_at FROM transfers WHERE payer = ? AND nonce = ?"
        )
        async with connection.execute(query, (payer, nonce)) as cursor:
            row = await cursor.fetchone()
        return _transfer(row) if row else None

    async def close(self) -> None:
        """Closes the ledger's file."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


def _transfer(row: aiosqlite.Row) -> Transfer:
    payer, nonce, payee, amount, tx, settled_at = tuple(row)
    return Transfer(payer=payer, nonce=nonce, payee=payee, amount=amount, tx=tx, block=int(settled_at))
