"""Hands a secret from a worker to one reader through a history that others can read (HPKE, RFC 9180).

The payload keys open histories in every process, agents' included. The reader makes a pair of keys for one
request, keeps the private half in memory, and sends the public one along; what comes back opens with nothing
else.
"""

import base64
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from waystation.errors import WaystationError

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_INFO: Final = b"waystation webhook secret"


class NotForUsError(WaystationError):
    """It was meant for somebody else, or was changed on the way."""


class OneReader:
    """Whoever is to read one secret."""

    def __init__(self) -> None:
        self._key = X25519PrivateKey.generate()

    @property
    def recipient(self) -> str:
        """What the secret is to be made out to."""
        return _encoded(self._key.public_key().public_bytes_raw())

    def open(self, box: str) -> str:
        """Returns the secret.

        Raises:
            NotForUsError: It can't be opened.
        """
        try:
            return _SUITE.decrypt(_decoded(box), self._key, _INFO).decode()
        except (InvalidTag, ValueError):
            raise NotForUsError("the secret was made out to somebody else") from None


def make_out_to(recipient: str, secret: str) -> str:
    """Returns the secret as only the recipient can read it.

    Raises:
        ValueError: ``recipient`` is no public key.
    """
    key = X25519PublicKey.from_public_bytes(_decoded(recipient))
    return _encoded(_SUITE.encrypt(secret.encode(), key, _INFO))


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, altchars=b"-_", validate=True)
