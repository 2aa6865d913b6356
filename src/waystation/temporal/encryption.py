"""Encryption of everything Temporal stores: AES-256-GCM over each payload.

Workflow inputs, activity results, signals, updates and failures pass through
``EncryptionCodec`` before they leave the process, so a Temporal server (or
whoever reads its database) sees ciphertext only. Several keys can be known at
once, each by a short id that travels with the payload: encrypt with the newest,
keep the old ones until the last workflow that used them is gone.

Payloads that carry no encryption are passed through on decode, so signals typed
by hand (``temporal workflow signal --input '{…}'``) keep working.
"""

import base64
import binascii
import os
import re
from collections.abc import Mapping, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    PayloadCodec,
)

from waystation.errors import StartError
from waystation.temporal.payload_converter import (
    INLINE_FIELD,
    UNREADABLE_FIELD,
    PayloadDecryptionError,
    SharedPydanticPayloadConverter,
    is_inline,
)

KEY_LENGTH_BYTES: Final = 32
NONCE_LENGTH_BYTES: Final = 12
MAX_KEYS: Final = 16

ENCODING: Final = b"binary/encrypted"
CIPHER: Final = b"AES-256-GCM"
_ENCODING_FIELD: Final = "encoding"
_CIPHER_FIELD: Final = "encryption-cipher"
_KEY_ID_FIELD: Final = "encryption-key-id"
_KEY_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

_HOW_TO_MAKE_A_KEY: Final = (
    "make one with: python -c 'import waystation.temporal.encryption as e; print(\"k1:\" + e.generate_key())'"
)


class EncryptionKeyError(StartError, ValueError):
    """A key in the settings cannot be used. The message says what to change and never holds key material."""


def generate_key() -> str:
    """Returns a fresh 256-bit key as URL-safe base64, ready for the settings."""
    return base64.urlsafe_b64encode(os.urandom(KEY_LENGTH_BYTES)).decode()


def parse_key(text: str) -> tuple[str, bytes]:
    """Parses one ``<key id>:<32 bytes as base64>`` and returns ``(key id, key)``.

    Raises:
        EncryptionKeyError: Says which part is wrong and how to make a good key.
    """
    key_id, separator, encoded = text.strip().partition(":")
    if not separator or not _KEY_ID.fullmatch(key_id):
        raise EncryptionKeyError(
            "an encryption key is written <key id>:<base64 of 32 bytes>, with a key id of 1 to 64 letters, "
            f"digits, dots, dashes or underscores; {_HOW_TO_MAKE_A_KEY}"
        )
    padded = encoded.replace("-", "+").replace("_", "/") + "=" * (-len(encoded) % 4)
    try:
        key = base64.b64decode(padded, validate=True)
    except (binascii.Error, ValueError):
        raise EncryptionKeyError(f"encryption key {key_id!r} is not base64; {_HOW_TO_MAKE_A_KEY}") from None
    if len(key) != KEY_LENGTH_BYTES:
        raise EncryptionKeyError(
            f"encryption key {key_id!r} has {len(key)} bytes, AES-256 needs {KEY_LENGTH_BYTES}; "
            + _HOW_TO_MAKE_A_KEY
        )
    return key_id, key


class EncryptionCodec(PayloadCodec):
    """Encrypts each payload with the active key; decrypts with whichever known key it names.

    Args:
        keys: 32-byte keys by key id.
        active_key_id: the key that new payloads are encrypted with.
    """

    def __init__(self, keys: Mapping[str, bytes], *, active_key_id: str) -> None:
        if active_key_id not in keys:
            raise EncryptionKeyError(f"the active key {active_key_id!r} is not among the given keys")
        if len(keys) > MAX_KEYS:
            raise EncryptionKeyError(
                f"{len(keys)} encryption keys given, at most {MAX_KEYS} are kept; drop old ones"
            )
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._active_key_id = active_key_id

    def __repr__(self) -> str:
        return f"EncryptionCodec(active_key_id={self._active_key_id!r}, known={sorted(self._ciphers)!r})"

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypts each payload whole, metadata included."""
        return [self._encrypt(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypts what is encrypted, and passes the rest through.

        Raises:
            PayloadDecryptionError: Names the key id that is missing, or says that the bytes were changed.
        """
        return [self._decrypt(payload) for payload in payloads]

    def _encrypt(self, payload: Payload) -> Payload:
        nonce = os.urandom(NONCE_LENGTH_BYTES)
        key_id = self._active_key_id.encode()
        # The key id is authenticated too: a payload cannot be re-labelled.
        sealed = self._ciphers[self._active_key_id].encrypt(nonce, payload.SerializeToString(), key_id)
        sealed_payload = Payload(
            metadata={_ENCODING_FIELD: ENCODING, _CIPHER_FIELD: CIPHER, _KEY_ID_FIELD: key_id},
            data=nonce + sealed,
        )
        if is_inline(payload):
            sealed_payload.metadata[INLINE_FIELD] = payload.metadata[INLINE_FIELD]
        return sealed_payload

    def _decrypt(self, payload: Payload) -> Payload:
        if payload.metadata.get(_ENCODING_FIELD) != ENCODING:
            return payload
        key_id = payload.metadata.get(_KEY_ID_FIELD, b"").decode("ascii", "replace")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise PayloadDecryptionError(
                f"a payload was encrypted with key {key_id!r}, which is not configured here; "
                "add that key to the settings (old keys stay until their workflows are gone)"
            )
        nonce, sealed = payload.data[:NONCE_LENGTH_BYTES], payload.data[NONCE_LENGTH_BYTES:]
        try:
            plain = cipher.decrypt(nonce, sealed, key_id.encode())
        except (InvalidTag, ValueError):
            raise PayloadDecryptionError(
                f"a payload does not decrypt with key {key_id!r}: it was changed, or the key differs from "
                "the one it was written with"
            ) from None
        return Payload.FromString(plain)


class NoKeysCodec(PayloadCodec):
    """For processes without keys: passes what is in clear through, and says what is missing for the rest."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Returns the payloads as they are."""
        return [*payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Returns the payloads as they are.

        Raises:
            PayloadDecryptionError: One of them is encrypted.
        """
        for payload in payloads:
            if payload.metadata.get(_ENCODING_FIELD) == ENCODING:
                key_id = payload.metadata.get(_KEY_ID_FIELD, b"").decode("ascii", "replace")
                raise PayloadDecryptionError(
                    f"a payload was encrypted with key {key_id!r}, and this process has no keys; set "
                    "WAYSTATION_ENCRYPTION_KEYS as for the other processes"
                )
        return [*payloads]


class MarkingCodec(PayloadCodec):
    """Decrypts as another codec does, and marks what it can't instead of raising.

    For workers of workflows: their SDK decrypts all that has come for a workflow at once, so that one payload
    which raises would hold up the rest for ever. Whatever reads a marked one raises (``payload_converter``).
    """

    def __init__(self, codec: PayloadCodec) -> None:
        self._codec = codec

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypts each payload."""
        return await self._codec.encode(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypts each payload that can be."""
        return [await self._decode(payload) for payload in payloads]

    async def _decode(self, payload: Payload) -> Payload:
        try:
            [decoded] = await self._codec.decode([payload])
        except PayloadDecryptionError as error:
            return Payload(metadata={UNREADABLE_FIELD: str(error).encode()})
        return decoded


def encryption_codec(keys: Sequence[str]) -> EncryptionCodec:
    """Returns the codec for the keys in the settings, newest first.

    Args:
        keys: ``<key id>:<base64 of 32 bytes>`` each. The first one encrypts; all of them decrypt.

    Raises:
        EncryptionKeyError: There is no key, an unreadable one, or one id twice.
    """
    if not keys:
        raise EncryptionKeyError(f"no encryption key is configured; {_HOW_TO_MAKE_A_KEY}")
    parsed = [parse_key(text) for text in keys]
    by_id = dict(parsed)
    if len(by_id) != len(parsed):
        raise EncryptionKeyError("two encryption keys have the same key id; give each its own")
    return EncryptionCodec(by_id, active_key_id=parsed[0][0])


def encrypting_data_converter(codec: PayloadCodec) -> DataConverter:
    """Returns a converter that encrypts pydantic payloads, and failure messages and stack traces too."""
    return DataConverter(
        payload_converter_class=SharedPydanticPayloadConverter,
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
        payload_codec=codec,
    )
