"""Large sessions over the folder driver, on a real Temporal server with replay at every task."""

import asyncio
import os
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.converter import (
    DataConverter,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from tests.support import eventually
from tests.temporal.support import BIG_CHARACTERS, running
from tests.world.replays import replayer_of
from tests.world.temporal import TemporalServer
from waystation.errors import StartError
from waystation.settings import Settings
from waystation.temporal.connect import CLEAR_DATA_CONVERTER, data_converter, open_client
from waystation.temporal.names import SESSION_FULL
from waystation.temporal.storage import FolderStorageDriver, PayloadsUnavailableError, prune
from worker import WORKFLOW_RUNNER, WORKFLOWS
from workflows.policies import SHORTEST_RUN

RETENTION = timedelta(hours=2)
LATER = timedelta(hours=5)


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    return tmp_path / "payloads"


@pytest.fixture
async def converter(folder: Path) -> DataConverter:
    settings = Settings(storage_dir=folder, storage_threshold_bytes=50_000)
    return await data_converter(settings, AsyncExitStack())


def stored(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


async def test_a_session_above_the_threshold_continues_as_new_and_is_read_and_replayed_whole(
    temporal_server: TemporalServer, converter: DataConverter, folder: Path
) -> None:
    async with running(temporal_server, converter) as session:
        for turn in range(8):
            await session.say(f"question {turn}")
        await eventually(lambda: _ran(session, 3))
        files = await _all_stored(folder)
        texts = await session.texts()
        assert stored(folder) == files, "reading stores nothing"
        description = await session.handle.describe()
        history = await session.handle.fetch_history()
        assert await session.runs() >= 3
    answers = [text.split(" ")[0] for text in texts if text.startswith("t")]
    assert answers == [f"t{turn}.{number}" for turn in range(1, 9) for number in range(10)]
    assert sum(map(len, texts)) > 1_500_000
    # The state (over 1.5 MB) went from run to run outside the history.
    assert description.raw_description.workflow_execution_info.history_size_bytes < 1_000_000
    assert (folder / session.handle.id).is_dir()
    replayer = replayer_of(WORKFLOWS, converter, WORKFLOW_RUNNER)
    await replayer.replay_workflow(history)


async def _all_stored(folder: Path) -> list[Path]:
    """What is stored once no run is about to end any more: for longer than a run waits, nothing was added."""
    files: list[Path] = []
    while files != stored(folder):
        files = stored(folder)
        await asyncio.sleep(2 * SHORTEST_RUN.total_seconds())
    return files


async def _ran(session: object, times: int) -> bool:
    return await session.runs() >= times  # type: ignore[attr-defined]


async def test_pruning_keeps_what_a_running_session_needs_and_drops_earlier_runs(
    temporal_server: TemporalServer, converter: DataConverter, folder: Path
) -> None:
    async with running(temporal_server, converter) as session:
        for run in (2, 3):
            for turn in range(3):
                await session.say(f"question {turn} before run {run}")
            await eventually(lambda run=run: _ran(session, run))
        before = await session.texts()
        client = session.client
        started = (await session.handle.describe()).start_time
        # As if all but what belongs to the current run were old.
        for path in stored(folder):
            if path.stat().st_mtime < started.timestamp() - 1:
                _age(path, RETENTION + timedelta(hours=1))
        old = [path for path in stored(folder) if _is_old(path)]
        dry = await prune(folder, client, retention=RETENTION, dry_run=True)
        assert all(path.exists() for path in old)
        removed = await prune(folder, client, retention=RETENTION)
        assert removed == dry
        assert {path for path in old if path.exists()} == set()
        assert await session.texts() == before
        await session.say("and after?")
        assert len(await session.texts()) == len(before) + 11


def _age(path: Path, by: timedelta) -> None:
    at = (datetime.now(UTC) - by).timestamp()
    os.utime(path, (at, at))


def _is_old(path: Path) -> bool:
    return datetime.now(UTC).timestamp() - path.stat().st_mtime > 3600


async def test_a_large_signal_is_kept_with_its_session_while_its_run_may_be_replayed(
    temporal_server: TemporalServer, converter: DataConverter, folder: Path
) -> None:
    async with running(temporal_server, converter, events_per_run=0) as session:
        await session.say("big")
        assert any(path.stat().st_size > BIG_CHARACTERS for path in stored(folder / session.handle.id))
        assert (await prune(folder, session.client, retention=RETENTION)).files == 0
        assert any(text.startswith("t1.0") for text in await session.texts())


async def test_payloads_of_nobody_in_particular_go_when_no_run_is_as_old(
    temporal_server: TemporalServer, converter: DataConverter, folder: Path
) -> None:
    async with running(temporal_server, converter) as session:
        old, young = folder / "unassigned" / "old", folder / "unassigned" / "young"
        old.parent.mkdir(parents=True)
        for path, age in ((old, LATER), (young, timedelta(hours=1))):
            path.write_bytes(b"x")
            _age(path, age)
        assert (await prune(folder, session.client, retention=RETENTION)).files == 1
    assert [path.name for path in stored(folder / "unassigned")] == ["young"]


async def test_what_belongs_to_forgotten_workflows_goes_when_it_is_old(
    temporal: Client, folder: Path
) -> None:
    driver = FolderStorageDriver(folder)
    young, old = folder / "never-heard-of-it", folder / "t%2F1"
    for owner in (young, old):
        owner.mkdir()
        (owner / "a").write_bytes(b"12345")
    _age(old / "a", LATER)
    removed = await prune(folder, temporal, retention=RETENTION)
    assert (removed.files, removed.size_bytes, removed.unknown_workflows) == (1, 5, 1)
    # One that Temporal doesn't know yet: its payload is stored first.
    assert set(driver.owners()) == {"never-heard-of-it"}


async def test_too_short_a_retention_is_refused(temporal: Client, folder: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 h"):
        await prune(folder, temporal, retention=timedelta(minutes=5))


async def test_nothing_goes_while_temporal_is_away(folder: Path) -> None:
    client = await open_client("127.0.0.1:1", lazy=True)
    owner = folder / "anyone"
    owner.mkdir(parents=True)
    (owner / "a").write_bytes(b"x")
    _age(owner / "a", LATER)
    with pytest.raises((RPCError, RuntimeError)):
        await prune(folder, client, retention=RETENTION)
    assert (owner / "a").exists()


async def test_storing_again_renews_and_keys_stay_inside(folder: Path) -> None:
    driver = FolderStorageDriver(folder)
    payload = Payload(data=b"x")
    (claim,) = await driver.store(StorageDriverStoreContext(), [payload])
    path = folder / claim.claim_data["key"]
    _age(path, LATER)
    assert await driver.store(StorageDriverStoreContext(), [payload]) == [claim]
    assert not _is_old(path)
    assert await driver.retrieve(StorageDriverRetrieveContext(), [claim]) == [payload]
    outside = StorageDriverClaim(claim_data={"key": "../secret"})
    (folder.parent / "secret").write_bytes(payload.SerializeToString())
    with pytest.raises(FileNotFoundError):
        await driver.retrieve(StorageDriverRetrieveContext(), [outside])


async def test_without_a_storage_a_session_is_full_before_temporal_refuses_it(
    temporal_server: TemporalServer,
) -> None:
    limits = Settings().session_limits
    assert limits.max_log_bytes < Settings(storage_dir=Path("any")).session_limits.max_log_bytes
    async with running(temporal_server, CLEAR_DATA_CONVERTER, limits=limits) as session:
        for _ in range(5):
            await session.say("more")
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await session.say("one more")
        assert isinstance(refused.value.cause, ApplicationError)
        assert refused.value.cause.type == SESSION_FULL
        await eventually(lambda: _ran(session, 2))
        assert sum(map(len, await session.texts())) > limits.max_log_bytes * 0.9


async def test_a_storage_out_of_reach_is_told_from_a_bug(converter: DataConverter, folder: Path) -> None:
    large = "x" * 60_000
    stored_before = await converter.encode([large])
    away = folder.with_name("away")
    _replace_by_a_file(folder, away)
    with pytest.raises(PayloadsUnavailableError):
        await converter.encode([large])
    with pytest.raises(PayloadsUnavailableError):
        await converter.decode(stored_before)
    with pytest.raises(StartError, match="WAYSTATION_STORAGE_DIR"):
        await data_converter(Settings(storage_dir=folder), AsyncExitStack())
    _put_back(folder, away)
    assert await converter.decode(stored_before) == [large]


def _replace_by_a_file(folder: Path, away: Path) -> None:
    folder.rename(away)
    folder.touch()


def _put_back(folder: Path, away: Path) -> None:
    folder.unlink()
    away.rename(folder)


async def test_a_payload_that_finds_no_room_leaves_nothing_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        await FolderStorageDriver(folder).store(StorageDriverStoreContext(), [Payload(data=b"x")])
    assert stored(folder) == []
