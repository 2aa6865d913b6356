"""What a request costs, and what else than the price may tell two requests apart."""

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import rfc8785
from fastapi import Request

from waystation.models.money import Money

Price = Money | Sequence[Money] | None
"""One amount, the same price in several currencies, or None (or 0) for free."""
PriceFunction = Callable[[Request], Price | Awaitable[Price]]
Pricing = Money | Sequence[Money] | PriceFunction

# Headers that change from one hop or attempt to the next without changing what is asked for.
_PASSING_HEADERS: Final = frozenset(
    {
        "age",
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "te",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "via",
        "x-request-id",
    }
)


async def prices_of(pricing: Pricing, request: Request) -> tuple[Money, ...]:
    """Returns what a request costs now, in each currency; nothing for a free one."""
    if callable(pricing):
        found = pricing(request)
        price: Price = await found if inspect.isawaitable(found) else found
    else:
        price = pricing
    if price is None:
        return ()
    prices = (price,) if isinstance(price, Money) else tuple(price)
    # Nobody can pay 0: no card is charged for it and no token moves. A fraction of a cent, rounded down, is
    # no reason to give away what can be paid for in another currency.
    return tuple(one for one in prices if one.amount > 0)


def headers_digest(request: Request) -> str:
    """Returns one hash over the headers that a price may depend on.

    A challenge isn't bound to them: clients may add some when they pay. But a payment that has begun is
    continued only for the same headers, or for a request of the same price.
    """
    kept = sorted((name, value) for name, value in request.headers.items() if name not in _PASSING_HEADERS)
    return hashlib.sha256(rfc8785.dumps([list(pair) for pair in kept])).hexdigest()
