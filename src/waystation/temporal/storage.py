"""Stores payloads too large for Temporal's history in a local folder.

A driver for the SDK's own external storage. Files are named by the hash of their contents, under the workflow
they belong to, so storing one again is harmless and a workflow's files can be removed with it
(``waystation storage prune``).
"""

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.converter import (
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)
from temporalio.service import RPCError, RPCStatusCode

from waystation.errors import WaystationError
from waystation.temporal.names import PAYLOADS_UNAVAILABLE_WORDS
from waystation.temporal.retention import MIN_RETENTION_HOURS

_ORPHANS = "unassigned"


class PayloadsUnavailableError(WaystationError):
    """Stored payloads can't be written or read at the moment; the same again may work."""


class ReachedDriver(StorageDriver):
    """Any driver, whose failures are all ``PayloadsUnavailableError``: callers tell them from bugs."""

    def __init__(self, driver: StorageDriver) -> None:
        self._driver = driver

    def name(self) -> str:
        return self._driver.name()

    def type(self) -> str:
        return self._driver.type()

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        try:
            return await self._driver.store(context, payloads)
        except Exception as error:
            raise PayloadsUnavailableError(
                f"{PAYLOADS_UNAVAILABLE_WORDS} stored: {type(error).__name__}"
            ) from error

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        try:
            return await self._driver.retrieve(context, claims)
        except Exception as error:
            raise PayloadsUnavailableError(
                f"{PAYLOADS_UNAVAILABLE_WORDS} read: {type(error).__name__}"
            ) from error


class FolderStorageDriver(StorageDriver):
    """Keeps payloads as files in a folder that all processes share.

    Raises ``FileNotFoundError`` with the missing path on retrieval, ``OSError`` when the folder
    can't be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def name(self) -> str:
        return "waystation-folder"

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        owner = quote((context.target and context.target.id) or _ORPHANS, safe="")
        return [await asyncio.to_thread(self._store, owner, payload) for payload in payloads]

    def _store(self, owner: str, payload: Payload) -> StorageDriverClaim:
        body = payload.SerializeToString(deterministic=True)
        key = f"{owner}/{hashlib.sha256(body).hexdigest()}"
        path = self._folder / key
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(body)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(path)
            except BaseException:
                # Tried again on a full disk, it would leave another piece each time.
                Path(temporary).unlink(missing_ok=True)
                raise
        else:
            path.touch()
        return StorageDriverClaim(claim_data={"key": key})

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        return [await asyncio.to_thread(self._retrieve, claim.claim_data["key"]) for claim in claims]

    def _retrieve(self, key: str) -> Payload:
        path = (self._folder / key).resolve()
        if not path.is_relative_to(self._folder.resolve()):
            raise FileNotFoundError(key)
        return Payload.FromString(path.read_bytes())

    def owners(self) -> dict[str, Path]:
        """Returns the folders by the id of the workflow they belong to."""
        from urllib.parse import unquote

        return {unquote(path.name): path for path in self._folder.iterdir() if path.is_dir()}


@dataclass(frozen=True)
class Pruned:
    """What ``prune`` removed, or would have removed."""

    files: int = 0
    size_bytes: int = 0
    unknown_workflows: int = 0
    """Workflows that Temporal no longer knows; everything of theirs that is old enough goes."""

    def __add__(self, other: "Pruned") -> "Pruned":
        return Pruned(
            self.files + other.files,
            self.size_bytes + other.size_bytes,
            self.unknown_workflows + other.unknown_workflows,
        )


async def prune(
    folder: Path, client: Client, *, retention: timedelta, dry_run: bool = False, now: datetime | None = None
) -> Pruned:
    """Removes stored payloads that no history needs any more. Running it twice is harmless.

    - For a workflow that Temporal no longer knows: what is older than ``retention``.
    - For one that it knows: what is older, by ``retention``, than the start of its current run, since a run
      takes only its own input from the run before.
    - For payloads that clients stored without naming a workflow (large signals, for example): what is older,
      by ``retention``, than the start of the oldest run that Temporal still has.

    The folder must serve one namespace only, and ``retention`` must not be shorter than that namespace's
    own, or histories of earlier runs can't be read to their end.

    Raises:
        ValueError: The retention is below ``MIN_RETENTION_HOURS``.
        RPCError: Temporal can't be asked. What isn't known to be unneeded stays.
    """
    if retention < timedelta(hours=MIN_RETENTION_HOURS):
        raise ValueError(f"The retention is at least {MIN_RETENTION_HOURS} h: newer payloads may be in use.")
    now = now or datetime.now(UTC)
    removed = Pruned()
    for owner, path in FolderStorageDriver(folder).owners().items():
        if owner == _ORPHANS:
            needed_since, unknown = await _oldest_start(client) or now, 0
        else:
            started = await _run_start(client, owner)
            needed_since, unknown = started or now, int(started is None)
        cutoff = min(needed_since, now) - retention
        gone = await asyncio.to_thread(_remove_older, path, cutoff, dry_run=dry_run)
        removed += gone + Pruned(unknown_workflows=unknown if gone.files else 0)
    return removed


async def _run_start(client: Client, workflow_id: str) -> datetime | None:
    """Returns when the workflow's current run began; None if Temporal doesn't know the workflow."""
    try:
        return (await client.get_workflow_handle(workflow_id).describe()).start_time
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return None
        raise


async def _oldest_start(client: Client) -> datetime | None:
    oldest: datetime | None = None
    async for execution in client.list_workflows():
        oldest = min(oldest or execution.start_time, execution.start_time)
    return oldest


def _remove_older(folder: Path, cutoff: datetime, *, dry_run: bool) -> Pruned:
    removed = Pruned()
    for path, size in _older(folder, cutoff):
        removed += Pruned(files=1, size_bytes=size)
        if not dry_run:
            path.unlink(missing_ok=True)
    if not dry_run:
        # Fails, as it should, if anything is left in it or has just arrived.
        with contextlib.suppress(OSError):
            folder.rmdir()
    return removed


def _older(folder: Path, cutoff: datetime) -> Iterator[tuple[Path, int]]:
    for path in folder.iterdir():
        # Checked one by one, just before each is removed: storing the same again renews a file.
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if datetime.fromtimestamp(status.st_mtime, UTC) < cutoff:
                yield path, status.st_size
