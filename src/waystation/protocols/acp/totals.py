"""Whether the amounts of a checkout or a cart add up."""

from collections.abc import Iterable
from itertools import product
from typing import Final

from waystation.protocols.acp.shapes.lines import Total, TotalType
from waystation.protocols.acp.shapes.sessions import Cart, CheckoutSession

_ADDED: Final = (TotalType.FULFILLMENT, TotalType.TAX, TotalType.FEE, TotalType.GIFT_WRAP, TotalType.TIP)


def _sums(totals: Iterable[Total]) -> dict[TotalType, int]:
    sums: dict[TotalType, int] = {}
    for total in totals:
        sums[total.type] = sums.get(total.type, 0) + total.amount
    return sums


def _adds_up(totals: Iterable[Total]) -> bool:
    """Returns whether one list of totals is consistent.

    ``subtotal = items_base_amount`` and ``total = subtotal + fulfillment + tax + fee + gift_wrap + tip -
    store_credit``, where each of ``items_discount`` and ``discount`` is taken off once: before the subtotal
    or after it, because the specification's own examples do both. Sellers write discounts with either sign.
    ``amount_refunded`` comes later and does not count.
    """
    sums = _sums(totals)
    if TotalType.TOTAL not in sums:
        return True
    base, subtotal = sums.get(TotalType.ITEMS_BASE_AMOUNT), sums.get(TotalType.SUBTOTAL)
    added = sum(sums.get(kind, 0) for kind in _ADDED) - abs(sums.get(TotalType.STORE_CREDIT, 0))
    discounts = [abs(sums.get(kind, 0)) for kind in (TotalType.ITEMS_DISCOUNT, TotalType.DISCOUNT)]
    if subtotal is None:
        return base is None or sums[TotalType.TOTAL] == base - sum(discounts) + added
    for before in product(*((0, discount) for discount in discounts)):
        after = sum(discounts) - sum(before)
        if sums[TotalType.TOTAL] == subtotal - after + added and base in (None, subtotal + sum(before)):
            return True
    return False


def problems_of_totals(session: CheckoutSession | Cart) -> tuple[tuple[str, str], ...]:
    """Returns every place where amounts contradict each other, as (JSONPath, rule); empty if none."""
    problems: list[tuple[str, str]] = []
    stated = [total for total in session.totals if total.type is TotalType.TOTAL]
    if len(stated) != 1:
        problems.append(("$.totals", "must state exactly one total"))
    if any(total.amount < 0 for total in stated):
        problems.append(("$.totals", "the total must not be negative"))
    if not _adds_up(session.totals):
        problems.append(("$.totals", "do not add up to the total"))
    bases = []
    for index, line in enumerate(session.line_items):
        base = _sums(line.totals).get(TotalType.ITEMS_BASE_AMOUNT)
        bases.append(base)
        where = f"$.line_items[{index}].totals"
        if not _adds_up(line.totals):
            problems.append((where, "do not add up to the total"))
        unit = line.unit_amount
        if base is not None and unit is not None and base != unit * line.quantity:
            problems.append(
                (f"$.line_items[{index}].totals", "items_base_amount is not unit_amount times quantity")
            )
    whole = _sums(session.totals).get(TotalType.ITEMS_BASE_AMOUNT)
    known = [base for base in bases if base is not None]
    if whole is not None and known and len(known) == len(bases) and whole != sum(known):
        problems.append(("$.totals", "items_base_amount is not the sum of the line items'"))
    return tuple(problems)
