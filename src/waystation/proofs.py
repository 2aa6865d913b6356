"""Signs people's decisions, and checks the signatures (Ed25519 over canonical JSON, RFC 8785).

Who signs has authenticated the person: the API, or somebody with the key at the command line. Who checks is a
worker, which knows public keys only. A signature names the workflow and everything that was decided, so it is
worth nothing elsewhere, for anything else, or after its end.
"""

import base64
import binascii
import os
import re
import time
from collections.abc import Sequence
from typing import Final

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel

from waystation.errors import StartError
from waystation.models.base import JsonObject
from waystation.models.proofs import (
    KEY_ID_PATTERN,
    DecisionKind,
    Proof,
    ProofQuestion,
    ProofVerdict,
    facts,
)

KEY_BYTES: Final = 32
MAX_LIFETIME_SECONDS: Final = 7 * 24 * 3600
"""A signature that lasts longer is refused: whoever finds it later could use it."""
API_LIFETIME_SECONDS: Final = 120
"""The API hands a decision over at once; this covers a slow Temporal and clocks that differ."""
CLOCK_LEEWAY_SECONDS: Final = 60
"""How far a signer's clock may be ahead."""

_CONTEXT: Final = "waystation decision 1"
"""Signed with everything, so that a key's signatures for anything else mean nothing here."""
_HOW_TO_MAKE_KEYS: Final = "make a pair with: waystation sign new-key"


class DecisionKeyError(StartError, ValueError):
    """A key in the settings can't be used. The message says what to change, and never holds the key."""


class Signer:
    """Signs decisions with the newest key; it holds the secret seed."""

    def __init__(self, key_id: str, seed: bytes) -> None:
        self._key_id, self._key = key_id, Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def of(cls, text: str) -> "Signer":
        """Returns the signer of one key ``<id>:<base64 of a 32-byte seed>``. Raises ``DecisionKeyError``."""
        return cls(*_parse(text, "signing key"))

    def __repr__(self) -> str:
        return f"Signer({self._key_id!r})"

    @property
    def public_key(self) -> str:
        """What workers know of the key: ``<id>:<base64 of 32 bytes>``."""
        return f"{self._key_id}:{_encode(self._key.public_key().public_bytes_raw())}"

    def sign(
        self,
        kind: DecisionKind,
        workflow_id: str,
        said: BaseModel,
        *,
        lasts_seconds: int = API_LIFETIME_SECONDS,
        now: int | None = None,
    ) -> Proof:
        """Returns the proof of a decision about one workflow, valid for ``lasts_seconds`` from now."""
        issued_at = int(time.time()) if now is None else now
        expires_at = issued_at + lasts_seconds
        statement = _statement(kind, workflow_id, facts(said), self._key_id, issued_at, expires_at)
        return Proof(
            key=self._key_id,
            issued_at=issued_at,
            expires_at=expires_at,
            signature=_encode(self._key.sign(statement)),
        )


class Verifier:
    """Checks proofs against the public keys it knows.

    Args:
        public_keys: ``<id>:<base64 of 32 bytes>`` each; every one verifies, so that keys can be rotated.
        unsigned: whether a decision without any proof counts. A wrong proof never does.

    Raises:
        DecisionKeyError: A key is malformed, or two have the same id.
    """

    def __init__(self, public_keys: Sequence[str] = (), *, unsigned: bool = False) -> None:
        self._unsigned = unsigned
        self._keys: dict[str, Ed25519PublicKey] = {}
        for text in public_keys:
            key_id, value = _parse(text, "public key")
            if key_id in self._keys:
                raise DecisionKeyError(f"two public keys have the id {key_id!r}; give each its own")
            self._keys[key_id] = Ed25519PublicKey.from_public_bytes(value)

    @property
    def takes_unsigned(self) -> bool:
        """Whether decisions without a proof count."""
        return self._unsigned

    @property
    def knows_keys(self) -> bool:
        """Whether any signature can be checked."""
        return bool(self._keys)

    def judge(self, workflow_id: str, question: ProofQuestion, *, now: int | None = None) -> ProofVerdict:
        """Returns whether a decision about this workflow counts."""
        proof = question.proof
        if proof is None:
            return self._judge_unsigned()
        key = self._keys.get(proof.key)
        if key is None:
            return _refused(
                f"it is signed with the key '{proof.key}', which this worker doesn't know; "
                "add its public key to WAYSTATION_DECISION_PUBLIC_KEYS"
            )
        statement = _statement(
            question.kind, workflow_id, question.said, proof.key, proof.issued_at, proof.expires_at
        )
        try:
            key.verify(_decode(proof.signature), statement)
        except InvalidSignature:
            return _refused("its signature is not of this decision about this workflow")
        at = question.at if question.at is not None else int(time.time()) if now is None else now
        if proof.expires_at - proof.issued_at > MAX_LIFETIME_SECONDS:
            return _refused("its signature lasts for more than a week; sign it anew")
        if not proof.issued_at - CLOCK_LEEWAY_SECONDS <= at < proof.expires_at:
            return _refused("its signature has expired, or isn't valid yet; decide again")
        return ProofVerdict(valid=True, key=proof.key)

    def _judge_unsigned(self) -> ProofVerdict:
        if self._unsigned:
            return ProofVerdict(valid=True)
        if self._keys:
            return _refused("it is not signed; decide through the API, or sign it with 'waystation sign'")
        return _refused(
            "it is not signed, and this worker knows no key; set WAYSTATION_DECISION_KEYS for the API and "
            "WAYSTATION_DECISION_PUBLIC_KEYS for workers"
        )


def signer_from(keys: Sequence[str]) -> Signer | None:
    """Returns who signs with the first of the keys ``<id>:<base64 of 32 bytes>``; ``None`` without keys.

    Raises:
        DecisionKeyError: A key is malformed.
    """
    signers = [Signer.of(text) for text in keys]
    return signers[0] if signers else None


def new_signing_key(key_id: str) -> str:
    """Returns a fresh ``<id>:<base64 of a 32-byte seed>`` for ``WAYSTATION_DECISION_KEYS``."""
    if not re.fullmatch(KEY_ID_PATTERN, key_id):
        raise DecisionKeyError(f"{key_id!r} can't name a key; use letters, digits, '_', '.' and '-'")
    return f"{key_id}:{_encode(os.urandom(KEY_BYTES))}"


def _refused(why: str) -> ProofVerdict:
    return ProofVerdict(valid=False, why=why)


def _statement(
    kind: DecisionKind, workflow_id: str, said: JsonObject, key_id: str, issued_at: int, expires_at: int
) -> bytes:
    return rfc8785.dumps(
        {
            "context": _CONTEXT,
            "kind": kind,
            "workflow_id": workflow_id,
            "said": said,
            "key": key_id,
            "issued_at": issued_at,
            "expires_at": expires_at,
        }
    )


def _parse(text: str, what: str) -> tuple[str, bytes]:
    key_id, separator, encoded = text.strip().partition(":")
    if not separator or not re.match(KEY_ID_PATTERN, key_id):
        raise DecisionKeyError(f"a {what} is written <id>:<base64 of 32 bytes>; {_HOW_TO_MAKE_KEYS}")
    try:
        value = _decode(encoded)
    except (binascii.Error, ValueError):
        raise DecisionKeyError(f"the {what} {key_id!r} is not base64; {_HOW_TO_MAKE_KEYS}") from None
    if len(value) != KEY_BYTES:
        raise DecisionKeyError(f"the {what} {key_id!r} doesn't have 32 bytes; {_HOW_TO_MAKE_KEYS}")
    return key_id, value


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _decode(text: str) -> bytes:
    standard = text.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
