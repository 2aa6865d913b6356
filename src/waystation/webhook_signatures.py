"""The headers of Standard Webhooks: a receiver checks them with any library of https://www.standardwebhooks.com."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how every secret begins
SECRET_BYTES: Final = 32


def new_webhook_secret() -> str:
    """Returns a new secret, ``whsec_`` and base64."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signed_headers(
    message_id: str, timestamp_seconds: int, body: bytes, signing_secrets: Sequence[str]
) -> dict[str, str]:
    """Returns the headers of one message, signed with each secret."""
    signed = f"{message_id}.{timestamp_seconds}.".encode() + body
    signatures = (f"v1,{_signature(secret, signed)}" for secret in signing_secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_seconds),
        "webhook-signature": " ".join(signatures),
    }


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
