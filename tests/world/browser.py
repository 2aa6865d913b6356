"""A browser with a push subscription: it reads with the reference library, and checks who sends."""

import base64
import json
import time
from typing import Any

import http_ece
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.world.keys import VAPID
from tests.world.receiver import Heard, Receiver

AUTH = b"sixteen bytes, 1"


def base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


class Browser:
    """Its push service is a path of the receiver."""

    def __init__(self, receiver: Receiver, name: str) -> None:
        self._receiver, self.name = receiver, name
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def subscription(self) -> dict[str, Any]:
        """What ``PushSubscription.toJSON()`` says."""
        point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return {
            "endpoint": f"{self._receiver.url}/{self.name}",
            "expirationTime": None,
            "keys": {"p256dh": base64url(point), "auth": base64url(AUTH)},
        }

    @property
    def pushed(self) -> list[dict[str, Any]]:
        """All that it was pushed, also what was refused."""
        return [self.read(one) for one in self._receiver.heard[self.name]]

    async def hears(self, count: int) -> list[dict[str, Any]]:
        """Waits until it was pushed so many."""
        await self._receiver.hears(self.name, count)
        return self.pushed

    def read(self, heard: Heard) -> dict[str, Any]:
        assert heard.headers["content-encoding"] == "aes128gcm"
        said = dict(part.split("=", 1) for part in heard.headers["authorization"][6:].split(", "))
        assert heard.headers["authorization"].startswith("vapid ")
        point = base64.urlsafe_b64decode(said["k"] + "=")
        assert said["k"] == VAPID.public_key
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        claims = jwt.decode(said["t"], public, algorithms=["ES256"], audience=self._receiver.url)
        assert claims["sub"].startswith("mailto:")
        assert claims["exp"] - time.time() < 24 * 3600
        text = http_ece.decrypt(heard.body, private_key=self._key, auth_secret=AUTH, version="aes128gcm")
        read: dict[str, Any] = json.loads(text)
        return read
