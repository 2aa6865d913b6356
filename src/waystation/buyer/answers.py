"""Stores large answers to paid requests in pieces, encrypted, in the same external storage as payloads.

Each piece is an ordinary Temporal payload: the client's codec encrypts it, and its storage driver keeps it
under the workflow that asked. Keys, retention and pruning are therefore the same as for all payloads.
"""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    DataConverter,
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
    StorageDriverWorkflowInfo,
)

from waystation.models.payments import HttpAnswer

MAX_INLINE_ANSWER_BYTES: Final = 256 * 1024
"""An answer up to this size is kept in the history itself."""
MAX_UNSTORED_ANSWER_BYTES: Final = 1024 * 1024
"""Without external storage, larger answers are refused: Temporal allows 2 MB in a payload."""
MAX_STORED_ANSWER_BYTES: Final = 64 * 1024 * 1024
PIECE_BYTES: Final = 1024 * 1024
MAX_PIECES: Final = MAX_STORED_ANSWER_BYTES // PIECE_BYTES + 1


@dataclass(frozen=True)
class KeptAnswer:
    """A body that was read in full: inline, or behind a reference."""

    inline: bytes
    reference: str | None
    size_bytes: int
    sha256: str


class AnswerStore:
    """Writes answer bodies to storage and reads them back."""

    def __init__(self, converter: DataConverter, *, namespace: str = "default") -> None:
        """Takes the Temporal client's ``converter``: its codec encrypts, its external storage stores."""
        self._codec = converter.payload_codec
        storage = converter.external_storage
        self._driver: StorageDriver | None = storage.drivers[0] if storage is not None else None
        self._namespace = namespace

    @property
    def _limit_bytes(self) -> int:
        return MAX_UNSTORED_ANSWER_BYTES if self._driver is None else MAX_STORED_ANSWER_BYTES

    @property
    def limit_text(self) -> str:
        """The message for an answer that is too large."""
        advice = "; set WAYSTATION_STORAGE_DIR for larger ones" if self._driver is None else ""
        return f"the answer is larger than {self._limit_bytes} bytes{advice}"

    async def keep(self, chunks: AsyncIterator[bytes], owner: str) -> KeptAnswer | None:
        """Reads a body in bounded memory; returns None if it is too large.

        ``owner`` is the workflow that the stored pieces belong to.
        """
        buffer, digest, size = bytearray(), hashlib.sha256(), 0
        claims: list[dict[str, str]] = []
        async for chunk in chunks:
            size += len(chunk)
            if size > self._limit_bytes:
                return None
            digest.update(chunk)
            buffer += chunk
            while self._driver is not None and len(buffer) >= PIECE_BYTES:
                claims.append(await self._store(bytes(buffer[:PIECE_BYTES]), owner))
                del buffer[:PIECE_BYTES]
        if self._driver is not None and size > MAX_INLINE_ANSWER_BYTES and buffer:
            claims.append(await self._store(bytes(buffer), owner))
            buffer.clear()
        reference = await self._reference(claims, owner) if claims else None
        return KeptAnswer(bytes(buffer), reference, size, digest.hexdigest())

    async def body(self, answer: HttpAnswer) -> bytes:
        """Returns the whole body of an answer.

        Raises:
            LookupError: The body is in storage that this process doesn't have, or was changed there.
        """
        if answer.body_ref is None:
            return base64.b64decode(answer.body_base64)
        listed = json.loads(await self._retrieve(json.loads(answer.body_ref)))
        body = b"".join([await self._retrieve(claim) for claim in listed])
        if hashlib.sha256(body).hexdigest() != answer.body_sha256:
            raise LookupError("the stored answer is not the one that was paid for")
        return body

    async def _reference(self, claims: list[dict[str, str]], owner: str) -> str:
        """Returns one claim for the list of claims, so that a reference stays small."""
        return json.dumps(await self._store(json.dumps(claims).encode(), owner))

    async def _store(self, piece: bytes, owner: str) -> dict[str, str]:
        if self._driver is None:
            raise LookupError("no external storage is configured")
        [sealed] = await self._sealed(Payload(metadata={"encoding": b"binary/plain"}, data=piece))
        target = StorageDriverWorkflowInfo(namespace=self._namespace, id=owner)
        [claim] = await self._driver.store(StorageDriverStoreContext(target=target), [sealed])
        return dict(claim.claim_data)

    async def _sealed(self, payload: Payload) -> list[Payload]:
        return [payload] if self._codec is None else await self._codec.encode([payload])

    async def _retrieve(self, claim: dict[str, str]) -> bytes:
        if self._driver is None:
            raise LookupError("the answer is in external storage; set WAYSTATION_STORAGE_DIR here too")
        found = await self._driver.retrieve(
            StorageDriverRetrieveContext(), [StorageDriverClaim(claim_data=claim)]
        )
        opened = found if self._codec is None else await self._codec.decode(found)
        return bytes(opened[0].data)
