"""Web Push: how a message to a browser is encrypted (RFC 8291, RFC 8188) and signed for (VAPID, RFC 8292).

Pure: no I/O. Keys and ciphertexts are those of the standards, in base64url without padding.
"""

import base64
import json
import os
import struct
import time
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MAX_MESSAGE_BYTES: Final = 3_993
"""What every push service takes (RFC 8030, 7.2): 4,096 bytes with all that encryption adds."""
TOKEN_SECONDS: Final = 12 * 3_600
"""For how long a push service may take a signature; 24 hours at most (RFC 8292, 2)."""
_RECORD_BYTES: Final = 4_096
_POINT_BYTES: Final = 65
_SCALAR_BYTES: Final = 32
_LAST_RECORD: Final = b"\x02"


def new_vapid_keys() -> tuple[str, str]:
    """Returns a new private key, for workers, and its public key, for the API."""
    private = ec.generate_private_key(ec.SECP256R1())
    scalar = private.private_numbers().private_value.to_bytes(_SCALAR_BYTES, "big")
    return to_base64(scalar), to_base64(_point(private.public_key()))


class VapidSigner:
    """Says to push services who sends, in the name of whoever runs this.

    Args:
        private_key: 32 bytes in base64url.
        subject: where a push service finds that person: ``mailto:…`` or ``https://…``.

    Raises:
        ValueError: The key is none.
    """

    def __init__(self, private_key: str, subject: str) -> None:
        self._key, self._subject = _private(from_base64(private_key)), subject
        self.public_key = to_base64(_point(self._key.public_key()))

    def authorization(self, endpoint: str) -> str:
        """Returns the header ``Authorization`` for a request to this endpoint."""
        url = urlsplit(endpoint)
        claims = {
            "aud": f"{url.scheme}://{url.netloc}",
            "exp": int(time.time()) + TOKEN_SECONDS,
            "sub": self._subject,
        }
        signed = ".".join(to_base64(json.dumps(part).encode()) for part in (_HEADER, claims))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        signature = to_base64(r.to_bytes(_SCALAR_BYTES, "big") + s.to_bytes(_SCALAR_BYTES, "big"))
        return f"vapid t={signed}.{signature}, k={self.public_key}"


_HEADER: Final = {"typ": "JWT", "alg": "ES256"}


def check_browser_key(p256dh: str) -> None:
    """Raises ``ValueError`` unless this is a point of the curve, and so can be a browser's public key."""
    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), from_base64(p256dh))


def encrypted(
    message: bytes,
    p256dh: str,
    auth: str,
    *,
    salt: bytes | None = None,
    once: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """Returns a message that only the browser with these keys can read, as one record of ``aes128gcm``.

    ``salt`` and ``once``, the sender's key, are new for each message; examples of the standard give them.

    Raises:
        ValueError: The message is too large, or a key is none.
    """
    if len(message) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of more than {MAX_MESSAGE_BYTES} bytes can't be pushed")
    theirs = from_base64(p256dh)
    browser = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), theirs)
    salt, once = salt or os.urandom(16), once or ec.generate_private_key(ec.SECP256R1())
    ours = _point(once.public_key())
    shared = once.exchange(ec.ECDH(), browser)
    secret = _derived(shared, from_base64(auth), b"WebPush: info\x00" + theirs + ours, 32)
    key = _derived(secret, salt, b"Content-Encoding: aes128gcm\x00", 16)
    nonce = _derived(secret, salt, b"Content-Encoding: nonce\x00", 12)
    record = AESGCM(key).encrypt(nonce, message + _LAST_RECORD, None)
    return salt + struct.pack("!IB", _RECORD_BYTES, len(ours)) + ours + record


def to_base64(value: bytes) -> str:
    """Returns base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def from_base64(text: str) -> bytes:
    """Returns what is written in base64url, with padding or without.

    Raises:
        ValueError: It is something else.
    """
    text = text.rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _derived(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _private(scalar: bytes) -> ec.EllipticCurvePrivateKey:
    if len(scalar) != _SCALAR_BYTES:
        raise ValueError(f"a private key has {_SCALAR_BYTES} bytes")
    return ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP256R1())
