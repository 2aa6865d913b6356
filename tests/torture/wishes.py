"""What is asked of APIs that want to be paid, by whoever pays."""

import json
import random
from typing import Any, Final

from waystation.protocols.http402.eip3009 import USDC_BASE_SEPOLIA

USDC: Final = USDC_BASE_SEPOLIA.currency
LIMITS: Final = {"usd": 80, USDC: 700_000}
"""By currency: more than the paid API asks for anything."""
LOW_LIMITS: Final = {"usd": 40, USDC: 500}
OTHER: Final = {"usd": USDC, USDC: "usd"}


def paid_wish(
    chance: random.Random, seller: str, id_: str, currency: str
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Returns what is asked for, the request, and its limit: sometimes too low, or in another currency."""
    if chance.random() < 0.06:
        currency = OTHER[currency]
    limits = LOW_LIMITS if chance.random() < 0.08 else LIMITS
    topic = "".join(letter for letter in id_ if letter.isalnum())
    kinds: list[tuple[str, str, int]] = [
        ("facts/7", "/v1/facts/7", 3),
        ("free", "/v1/free", 1),
        ("", "/v1/none", 1),
    ]
    if currency == "usd":
        kinds += [(f"reports/{topic}", f"/v1/reports/{topic}", 6), ("words/60", "/v1/words?count=60", 2)]
    else:
        kinds += [(f"quotes/{topic}", f"/v1/quotes/{topic}", 8)]
    ((subject, where, _),) = chance.choices(kinds, [weight for _, _, weight in kinds])
    limit = {"amount": limits[currency], "currency": currency}
    return subject, {"url": seller + where, "method": "GET"}, limit


def budget(chance: random.Random, currency: str) -> dict[str, Any]:
    """Returns a budget for some payments; seldom one that is smaller than a single one may be."""
    times = chance.choice([2, 3, 6, 6]) if chance.random() < 0.95 else 0
    return {"amount": max(LIMITS[currency] * times, 1), "currency": currency}


def read_answer(status: int, body: bytes) -> dict[str, Any]:
    """Returns what a paid answer says, if it can be read: it may have been garbled on its way."""
    try:
        said = json.loads(body) if status == 200 else None
    except (ValueError, RecursionError):
        said = None
    return said if isinstance(said, dict) else {}
