"""How what a seller says of an order at different times becomes one order. Pure.

Webhooks arrive late, twice and out of order, and a redelivered one is signed anew, so neither their arrival
nor their signature's time says which is the newest. Therefore an order only ever moves forward: whatever the
order of arrival, the result is the same, and a status that ends something is kept.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from waystation.models.base import Frozen
from waystation.models.purchases import OrderAdjustment, OrderFacts, OrderFulfillment

_ORDER: Final[Mapping[str, int]] = {
    "created": 0,
    "confirmed": 1,
    "manual_review": 1,
    "processing": 1,
    "shipped": 2,
    "delivered": 3,
    "completed": 4,
    "partially_refunded": 5,
    "refunded": 6,
    "canceled": 7,
}
"""How far an order is: the statuses of ACP, and those that sellers add. Of equals, the later word counts."""
_FULFILLMENT: Final[Mapping[str, int]] = {
    "pending": 0,
    "processing": 1,
    "shipped": 2,
    "in_transit": 3,
    "out_for_delivery": 4,
    "ready_for_pickup": 4,
    "delivered": 5,
    "failed": 5,
    "canceled": 5,
}
_ADJUSTMENT: Final[Mapping[str, int]] = {"pending": 0, "completed": 1, "failed": 1}
_ENDS: Final = frozenset({"completed", "partially_refunded", "refunded", "canceled", "delivered", "failed"})
"""Statuses after which an unknown one changes nothing."""

Part = TypeVar("Part", OrderAdjustment, OrderFulfillment)
Facts = TypeVar("Facts", bound=Frozen)


def merged(known: OrderFacts | None, said: OrderFacts, *, is_later: bool) -> OrderFacts:
    """Returns the order after one more statement about it.

    ``is_later`` says whether the statement is known or believed to be newer, where nothing else decides.
    """
    if known is None or known == said:
        return said
    older, newer = (known, said) if is_later else (said, known)
    return OrderFacts.model_validate(
        {
            **_filled(older, newer),
            "status": _further(_ORDER, known.status, said.status, is_later=is_later),
            "fulfillments": _parts(known.fulfillments, said.fulfillments, _fulfillment, is_later=is_later),
            "adjustments": _parts(known.adjustments, said.adjustments, _adjustment, is_later=is_later),
        }
    )


def _further(ranks: Mapping[str, int], known: str | None, said: str | None, *, is_later: bool) -> str | None:
    if known is None or said is None:
        return said if known is None else known
    if known in ranks and said in ranks and ranks[known] != ranks[said]:
        return known if ranks[known] > ranks[said] else said
    if (known in _ENDS) != (said in _ENDS):
        return known if known in _ENDS else said
    if known in _ENDS:
        return known
    return said if is_later else known


def _parts(
    known: Sequence[Part], said: Sequence[Part], merge: Callable[[Part, Part, bool], Part], *, is_later: bool
) -> tuple[Part, ...]:
    """Returns the parts of both, each once by its id and type. What was there is never taken away."""
    found = {(one.id, one.type): one for one in known}
    for one in said:
        before = found.get((one.id, one.type))
        found[one.id, one.type] = one if before is None else merge(before, one, is_later)
    return tuple(sorted(found.values(), key=lambda one: (one.id, one.type or "")))


def _fulfillment(known: OrderFulfillment, said: OrderFulfillment, is_later: bool) -> OrderFulfillment:
    older, newer = (known, said) if is_later else (said, known)
    status = _further(_FULFILLMENT, known.status, said.status, is_later=is_later)
    return OrderFulfillment.model_validate({**_filled(older, newer), "status": status})


def _adjustment(known: OrderAdjustment, said: OrderAdjustment, is_later: bool) -> OrderAdjustment:
    """Returns the one that is further, whole: its amount belongs to its status. What went back stays back."""
    if known.status != said.status:
        further = _further(_ADJUSTMENT, known.status, said.status, is_later=is_later)
        return known if known.status == further else said
    if known.amount != said.amount and known.amount is not None and said.amount is not None:
        return known if known.amount > said.amount else said
    return said if is_later else known


def _filled(older: Facts, newer: Facts) -> dict[str, object]:
    """Returns the newer statement, with what only the older one says."""
    said = {name: value for name, value in dict(newer).items() if value is not None}
    return {**dict(older), **said}
