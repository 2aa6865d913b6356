"""SQLite files that several processes open."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from waystation import sqlite_files
from waystation.errors import StartError
from waystation.sqlite_files import open_sqlite

SCHEMA = "CREATE TABLE IF NOT EXISTS things (name TEXT PRIMARY KEY);"
OPENERS = 8


async def test_a_new_file_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "new.sqlite3"
    connections = await asyncio.gather(*(open_sqlite(path, SCHEMA) for _ in range(OPENERS)))
    for number, connection in enumerate(connections):
        await connection.execute("INSERT INTO things VALUES (?)", (str(number),))
        await connection.close()
    with contextlib.closing(sqlite3.connect(path)) as plain:
        assert plain.execute("SELECT count(*) FROM things").fetchone() == (OPENERS,)
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_opening_waits_for_another_process_that_is_making_the_file(tmp_path: Path) -> None:
    path = tmp_path / "young.sqlite3"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE others (a)")
        other.execute("BEGIN IMMEDIATE")
        opening = asyncio.create_task(open_sqlite(path, SCHEMA))
        assert not (await asyncio.wait({opening}, timeout=0.3))[0]
        other.execute("COMMIT")
    await (await opening).close()


async def test_a_file_that_others_keep_locked_is_refused_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_files, "BUSY_TIMEOUT_SECONDS", 0.1)
    path = tmp_path / "locked.sqlite3"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await open_sqlite(path, SCHEMA)
        other.execute("ROLLBACK")
    await (await open_sqlite(path, SCHEMA)).close()


@pytest.mark.parametrize(
    "name", ["a-file/below", "a-file", "."], ids=["below a file", "no database", "a folder"]
)
async def test_a_file_that_cannot_be_used_is_said_with_its_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "a-file").write_text("this is no database, and longer than the header of one: " * 20)
    with pytest.raises(StartError, match="can't be used") as refused:
        await open_sqlite(tmp_path / name, SCHEMA)
    assert str(tmp_path / name) in str(refused.value)
