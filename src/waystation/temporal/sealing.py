"""Seals payment secrets in histories, so that they open only where workers' keys are (AES-256-GCM).

The payload keys (``waystation.temporal.encryption``) are in every process, agents' included. What could be
spent by whoever reads it is sealed once more, with keys that only workers have, and bound to its workflow.
"""

import base64
import binascii
import os
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from waystation.errors import WaystationError
from waystation.models.proofs import Sealed
from waystation.temporal.encryption import NONCE_LENGTH_BYTES, EncryptionKeyError, parse_key

_PREFIX: Final = "sealed"


class SealError(WaystationError):
    """A secret can't be sealed or opened here; the message says what to set, and never holds the secret.

    ``final`` unless it opens once the key that it names is set.
    """

    def __init__(self, message: str, *, final: bool = True) -> None:
        super().__init__(message)
        self.final = final


class Vault:
    """Seals with the first key, opens with all of them.

    Args:
        keys: ``<id>:<base64 of 32 bytes>`` each, as in ``WAYSTATION_TOKEN_KEYS``. Without any, nothing can be
            sealed or opened.

    Raises:
        EncryptionKeyError: A key is malformed, or two have the same id.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        parsed = [parse_key(text) for text in keys]
        self._ciphers = {key_id: AESGCM(key) for key_id, key in parsed}
        if len(self._ciphers) != len(parsed):
            raise EncryptionKeyError("two token keys have the same key id; give each its own")
        self._active = parsed[0][0] if parsed else None

    def __repr__(self) -> str:
        return f"Vault({sorted(self._ciphers)!r})"

    @property
    def is_open(self) -> bool:
        """Whether there is a key to seal with."""
        return self._active is not None

    def check_open(self) -> None:
        """Raises ``SealError`` without a key: ask before a secret is made that couldn't be kept."""
        if self._active is None:
            raise SealError(
                "this worker has no key for payment tokens; set WAYSTATION_TOKEN_KEYS, "
                "the same for all workers"
            )

    def seal(self, secret: str, *, workflow_id: str) -> Sealed:
        """Returns a secret as it may stand in this workflow's history.

        Raises:
            SealError: There is no key.
        """
        self.check_open()
        assert self._active is not None
        nonce = os.urandom(NONCE_LENGTH_BYTES)
        bound = _bound_to(workflow_id, self._active)
        text = nonce + self._ciphers[self._active].encrypt(nonce, secret.encode(), bound)
        return f"{_PREFIX}:{self._active}:{base64.urlsafe_b64encode(text).decode().rstrip('=')}"

    def open(self, sealed: Sealed, *, workflow_id: str) -> str:
        """Returns a secret that was sealed for this workflow.

        Raises:
            SealError: Its key isn't known here, or it belongs to another workflow.
        """
        _, key_id, text = sealed.split(":", 2)
        if not key_id:
            raise SealError("an earlier release made this payment token; its history no longer gives it away")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SealError(
                f"a payment token was sealed with the key '{key_id}', which this worker doesn't have; "
                "add it to WAYSTATION_TOKEN_KEYS",
                final=False,
            )
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            nonce, body = raw[:NONCE_LENGTH_BYTES], raw[NONCE_LENGTH_BYTES:]
            return cipher.decrypt(nonce, body, _bound_to(workflow_id, key_id)).decode()
        except (InvalidTag, ValueError, binascii.Error):
            raise SealError("a payment token was changed, or belongs to another workflow") from None


def _bound_to(workflow_id: str, key_id: str) -> bytes:
    return f"{_PREFIX}\n{key_id}\n{workflow_id}".encode()
