"""What is asked of APIs that want to be paid, by whoever pays."""

import random
from typing import Any, Final

from waystation.protocols.http402.eip3009 import USDC_BASE_SEPOLIA

USD_CENTS: Final = 80
"""More than the paid API asks for anything."""
USDC_UNITS: Final = 700_000


def paid_wish(chance: random.Random, seller: str, id_: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Returns what is asked for, the request, and its limit, which is sometimes too low."""
    usd = {"amount": chance.choice([USD_CENTS] * 6 + [40]), "currency": "usd"}
    usdc = {"amount": chance.choice([USDC_UNITS] * 6 + [500]), "currency": USDC_BASE_SEPOLIA.currency}
    topic = "".join(letter for letter in id_ if letter.isalnum())
    kinds = (
        (f"reports/{topic}", "GET", f"/v1/reports/{topic}", usd),
        (f"quotes/{topic}", "GET", f"/v1/quotes/{topic}", usdc),
        ("facts/7", "GET", "/v1/facts/7", chance.choice([usd, usdc])),
        ("words/60", "GET", "/v1/words?count=60", usd),
        ("free", "GET", "/v1/free", usd),
        ("", "GET", "/v1/none", usd),
    )
    ((subject, method, where, limit),) = chance.choices(kinds, [4, 4, 3, 3, 1, 1])
    return subject, {"url": seller + where, "method": method}, limit
