"""Signatures of order webhooks (openapi.agentic_checkout_webhook.yaml, parameter ``Merchant-Signature``)."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final

from waystation.protocols.acp.shapes.base import HEADER_MERCHANT_SIGNATURE

WEBHOOK_TOLERANCE_SECONDS: Final = 300


class InvalidSignatureError(ValueError):
    """A webhook's ``Merchant-Signature`` is missing, malformed, stale or wrong: 401 ``invalid_signature``."""


_SIGNATURE = re.compile(r"t=([0-9]{1,15}),v1=([0-9a-fA-F]{64})")


def sign_webhook(secret: str, body: bytes, timestamp: int) -> str:
    """Returns the ``Merchant-Signature`` of a body: HMAC-SHA256 over ``<unix seconds>.<raw body>``.

    (openapi.agentic_checkout_webhook.yaml, parameter ``Merchant-Signature``.)
    """
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def verify_webhook(secrets: str | Sequence[str], body: bytes, header: str | None, now: int) -> int:
    """Returns the signature's time, if one of the secrets made it within 300 s of ``now``.

    Raises ``InvalidSignatureError``. Several secrets are for rotation. The caller still has to refuse
    what it has already received.
    """
    if not header:
        raise InvalidSignatureError(f"Missing {HEADER_MERCHANT_SIGNATURE} header.")
    match = _SIGNATURE.fullmatch(header)
    if match is None:
        raise InvalidSignatureError(
            f"{HEADER_MERCHANT_SIGNATURE} must be t=<unix seconds>,v1=<64 hex digits>."
        )
    timestamp = int(match[1])
    if abs(now - timestamp) > WEBHOOK_TOLERANCE_SECONDS:
        raise InvalidSignatureError("Timestamp outside allowed window.")
    candidates = [secrets] if isinstance(secrets, str) else list(secrets)
    signed = f"{match[1]}.".encode() + body
    digests = (
        hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in candidates if secret
    )
    if not any(hmac.compare_digest(digest, match[2].lower()) for digest in digests):
        raise InvalidSignatureError("Webhook signature verification failed.")
    return timestamp
