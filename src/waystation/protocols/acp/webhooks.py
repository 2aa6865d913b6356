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


_TIME = re.compile(r"[0-9]{1,15}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


def sign_webhook(secret: str, body: bytes, timestamp: int) -> str:
    """Returns the ``Merchant-Signature`` of a body: HMAC-SHA256 over ``<unix seconds>.<raw body>``.

    (openapi.agentic_checkout_webhook.yaml, parameter ``Merchant-Signature``.)
    """
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def verify_webhook(secrets: str | Sequence[str], body: bytes, header: str | None, now: int) -> int:
    """Returns the signature's time, if one of the secrets made it within 300 s of ``now``.

    The header may hold several signatures (``v1=``), as while a seller rotates its secret, and parts of other
    names: one that fits suffices. Several secrets are for rotation too. Repeats are the caller's affair.

    Raises:
        InvalidSignatureError: No signature fits, the header has none or not exactly one time, or is too old.
    """
    if not header:
        raise InvalidSignatureError(f"Missing {HEADER_MERCHANT_SIGNATURE} header.")
    parts = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    signatures = [value for name, _, value in parts if name == "v1" and _DIGEST.fullmatch(value)]
    if len(times) != 1 or not _TIME.fullmatch(times[0]) or not signatures:
        raise InvalidSignatureError(
            f"{HEADER_MERCHANT_SIGNATURE} must be t=<unix seconds>,v1=<64 hex digits>."
        )
    timestamp = int(times[0])
    if abs(now - timestamp) > WEBHOOK_TOLERANCE_SECONDS:
        raise InvalidSignatureError("Timestamp outside allowed window.")
    candidates = [secrets] if isinstance(secrets, str) else list(secrets)
    signed = f"{times[0]}.".encode() + body
    digests = [
        hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in candidates if secret
    ]
    if not any(hmac.compare_digest(digest, one.lower()) for digest in digests for one in signatures):
        raise InvalidSignatureError("Webhook signature verification failed.")
    return timestamp
