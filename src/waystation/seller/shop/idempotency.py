"""The protocol's idempotency: one execution for each identity, endpoint and key.

Same key and same JSON meaning: the stored response, ``Idempotent-Replayed: true``. Other body: 422
``idempotency_conflict``. Still being worked on: 409 ``idempotency_in_flight`` with ``Retry-After``. Answers
of 5xx are never kept, nor are those that only say "not now" (409, 429).
"""

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Final

from waystation.protocols.acp import HEADER_RETRY_AFTER, MAX_IDEMPOTENCY_KEY_CHARS, ErrorCode
from waystation.seller.shop.errors import AcpError
from waystation.seller.shop.store import Store

NOT_KEPT: Final = frozenset({409, 429})

Answer = tuple[int, bytes]


def checked_key(given: str | None) -> str:
    """Returns the key of a request, or refuses a request without one."""
    if not given:
        raise AcpError(400, ErrorCode.IDEMPOTENCY_KEY_REQUIRED, "Idempotency-Key header is required")
    if len(given) > MAX_IDEMPOTENCY_KEY_CHARS:
        raise AcpError(
            400, "invalid", f"Idempotency-Key must have at most {MAX_IDEMPOTENCY_KEY_CHARS} characters"
        )
    return given


def body_digest(body: object) -> str:
    """Returns the same digest for bodies that mean the same JSON, whatever their spacing and key order."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()


async def run_once(
    store: Store, scope: str, key: str, body: object, work: Callable[[], Awaitable[Answer]]
) -> tuple[Answer, bool]:
    """Returns ``((status, body), replayed)``. A response that is not stored releases the key."""
    claim = await store.claim(scope, key, body_digest(body))
    if claim.outcome == "replay":
        return (claim.status, claim.body), True
    if claim.outcome == "conflict":
        raise AcpError(
            422,
            ErrorCode.IDEMPOTENCY_CONFLICT,
            "Idempotency-Key has already been used with a different request body",
        )
    if claim.outcome == "in_flight":
        raise AcpError(
            409,
            ErrorCode.IDEMPOTENCY_IN_FLIGHT,
            "A request with this Idempotency-Key is currently being processed",
            headers={HEADER_RETRY_AFTER: "1"},
        )
    try:
        status, answer = await work()
    except BaseException:
        await store.give_up_claim(scope, key)
        raise
    if status >= 500 or status in NOT_KEPT:
        await store.give_up_claim(scope, key)
    else:
        await store.keep_answer(scope, key, status, answer)
    return (status, answer), False
