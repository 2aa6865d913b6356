"""SQLite files that several processes of one host share, opened so that a crash loses nothing."""

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Final

import aiosqlite

from waystation.errors import StartError

BUSY_TIMEOUT_SECONDS: Final = 10.0
"""How long a statement waits for another process's lock."""
RETRY_PAUSE_SECONDS: Final = 0.02
PRIMARY_CODE: Final = 0xFF
"""The bits of SQLite's extended error codes that have the code proper."""
UNUSABLE: Final = frozenset(
    {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM}
)
"""Errors that come from where the file is, or from what it is."""


async def open_sqlite(path: Path, schema: str = "") -> aiosqlite.Connection:
    """Opens a connection in autocommit mode, with a write-ahead log; a commit is on disk when it returns.

    Makes the folder if need be, and applies the ``schema`` (statements that may be run again).

    Raises:
        StartError: The file can't be opened, made or written to, or is no database.
        sqlite3.OperationalError: Others hold the file for longer than ``BUSY_TIMEOUT_SECONDS``.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return await _open(path, schema)
    except OSError as error:
        raise StartError(f"{path} can't be used: its folder can't be made ({error.strerror}).") from error
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & PRIMARY_CODE not in UNUSABLE:
            raise
        raise StartError(f"{path} can't be used: {error}.") from error


async def _open(path: Path, schema: str) -> aiosqlite.Connection:
    connection = await aiosqlite.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_SECONDS)
    try:
        await _use_write_ahead_log(connection)
        # With NORMAL a crash of the process loses nothing; a power cut could lose the last moments. Money
        # has moved by then, so every commit goes to the disk.
        await connection.execute("PRAGMA synchronous = FULL")
        await connection.executescript(f"BEGIN IMMEDIATE; {schema} COMMIT;")
    except BaseException:
        await connection.close()
        raise
    return connection


async def _use_write_ahead_log(connection: aiosqlite.Connection) -> None:
    """Retries: SQLite refuses immediately, whatever its timeout, while another process sets up a new file."""
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            await connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            await asyncio.sleep(RETRY_PAUSE_SECONDS)
        else:
            return
