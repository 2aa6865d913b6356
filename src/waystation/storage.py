"""Where payloads too large for Temporal's history go: a local folder.

A driver for the SDK's own external storage. Files are named by the hash of what is in them,
under the workflow they belong to, so that storing again is harmless and a workflow's files can
be removed with it (``waystation storage prune``).
"""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)

_ORPHANS = "unassigned"


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
            with os.fdopen(handle, "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
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
        """The folders by the id of the workflow they belong to."""
        from urllib.parse import unquote

        return {unquote(path.name): path for path in self._folder.iterdir() if path.is_dir()}
