"""Whether the amounts of a checkout or a cart add up."""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Final

from waystation.protocols.acp.shapes.lines import LineItem, Total, TotalType
from waystation.protocols.acp.shapes.sessions import Cart, CheckoutSession

_ADDED: Final = (TotalType.FULFILLMENT, TotalType.FEE, TotalType.GIFT_WRAP, TotalType.TIP)


def _sums(totals: Iterable[Total]) -> dict[TotalType, int]:
    sums: dict[TotalType, int] = {}
    for total in totals:
        sums[total.type] = sums.get(total.type, 0) + total.amount
    return sums


def _adds_up(totals: Iterable[Total], *, tax_included: bool = False) -> bool:
    """Returns whether one list of totals is consistent.

    ``subtotal = items_base_amount`` and ``total = subtotal + fulfillment + tax + fee + gift_wrap + tip -
    store_credit``, where each of ``items_discount`` and ``discount`` is taken off once: before the subtotal
    or after it, because the specification's own examples do both. Sellers write discounts with either sign.
    ``amount_refunded`` comes later and does not count. Where prices include the tax, it is not added.
    """
    sums = _sums(totals)
    if TotalType.TOTAL not in sums:
        return True
    base, subtotal = sums.get(TotalType.ITEMS_BASE_AMOUNT), sums.get(TotalType.SUBTOTAL)
    tax = 0 if tax_included else sums.get(TotalType.TAX, 0)
    added = tax + sum(sums.get(kind, 0) for kind in _ADDED) - abs(sums.get(TotalType.STORE_CREDIT, 0))
    discounts = [abs(sums.get(kind, 0)) for kind in (TotalType.ITEMS_DISCOUNT, TotalType.DISCOUNT)]
    if subtotal is None:
        return base is None or sums[TotalType.TOTAL] == base - sum(discounts) + added
    for before in product(*((0, discount) for discount in discounts)):
        after = sum(discounts) - sum(before)
        if sums[TotalType.TOTAL] == subtotal - after + added and base in (None, subtotal + sum(before)):
            return True
    return False


def _prices_may_include_tax(lines: Sequence[LineItem]) -> bool:
    """Returns whether the lines allow the reading that their prices include the tax.

    They do if none of them states a tax, or some state one that is in their total already and none adds one.
    """
    stated = [line.totals for line in lines if TotalType.TAX in _sums(line.totals)]
    taxed = [totals for totals in stated if _sums(totals)[TotalType.TAX]]
    includes = [not _adds_up(totals) and _adds_up(totals, tax_included=True) for totals in taxed]
    return not stated or (bool(includes) and all(includes))


def problems_of_totals(session: CheckoutSession | Cart) -> tuple[tuple[str, str], ...]:
    """Returns every place where amounts contradict each other, as (JSONPath, rule); empty if none."""
    problems: list[tuple[str, str]] = []
    stated = [total for total in session.totals if total.type is TotalType.TOTAL]
    if len(stated) != 1:
        problems.append(("$.totals", "must state exactly one total"))
    if any(total.amount < 0 for total in stated):
        problems.append(("$.totals", "the total must not be negative"))
    if not _adds_up(session.totals) and not (
        _prices_may_include_tax(session.line_items) and _adds_up(session.totals, tax_included=True)
    ):
        problems.append(("$.totals", "do not add up to the total"))
    bases: list[tuple[int | None, bool]] = []
    for index, line in enumerate(session.line_items):
        base = _sums(line.totals).get(TotalType.ITEMS_BASE_AMOUNT)
        bases.append((base, line.parent_id is None))
        where = f"$.line_items[{index}].totals"
        if not _adds_up(line.totals) and not _adds_up(line.totals, tax_included=True):
            problems.append((where, "do not add up to the total"))
        unit = line.unit_amount
        if base is not None and unit is not None and base != unit * line.quantity:
            problems.append(
                (f"$.line_items[{index}].totals", "items_base_amount is not unit_amount times quantity")
            )
    whole = _sums(session.totals).get(TotalType.ITEMS_BASE_AMOUNT)
    known = [(base, alone) for base, alone in bases if base is not None]
    # The parts of a bundle may be priced for information only, within the price of the bundle.
    sums = (sum(base for base, _ in known), sum(base for base, alone in known if alone))
    if whole is not None and known and len(known) == len(bases) and whole not in sums:
        problems.append(("$.totals", "items_base_amount is not the sum of the line items'"))
    return tuple(problems)
