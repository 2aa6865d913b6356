"""Whether a cart's lines are what was asked for: gifts and bundles may add lines, never costs. Pure."""

from collections import Counter

from waystation.models.purchases import Cart, CartLine, PurchaseRequest


def problem_of_lines(request: PurchaseRequest, cart: Cart) -> tuple[str, str] | None:
    """Returns the rule that the cart's lines break, and how; ``None`` if they are what was asked for.

    Everything asked for must be there, and nothing else may cost anything: gifts, and the parts of a bundle
    that was asked for, may be there in addition.
    """
    wanted = {item.id: item.quantity for item in request.items}
    charged: Counter[str] = Counter()
    stated: Counter[str] = Counter()
    for line in whole_lines(request, cart):
        stated[line.item_id] += line.quantity
        charged[line.item_id] += 0 if line.price == 0 else line.quantity
    extra = sorted(item for item in stated if item not in wanted and charged[item])
    if extra:
        return "items_added", f"the seller's cart holds items that were not asked for: {extra}"
    missing = sorted(wanted.keys() - stated.keys())
    if missing:
        return "items_missing", f"the seller's cart lacks items that were asked for: {missing}"
    wrong = {
        item: (quantity, stated[item])
        for item, quantity in wanted.items()
        if quantity not in (stated[item], charged[item])
    }
    if wrong:
        return "quantity_changed", f"the seller's cart has other quantities (asked, stated): {wrong}"
    return None


def whole_lines(request: PurchaseRequest, cart: Cart) -> list[CartLine]:
    """Returns the lines without the parts of bundles that were asked for, which cost nothing of their own."""
    asked = {item.id for item in request.items}
    bundles = {line.line_id for line in cart.lines if line.parent_id is None and line.item_id in asked}
    included = _parts_are_included(cart)

    def is_part(line: CartLine) -> bool:
        return line.parent_id in bundles and (included or line.price == 0)

    return [line for line in cart.lines if not is_part(line)]


def _parts_are_included(cart: Cart) -> bool:
    """Whether the goods cost what the lines outside of bundles cost: the parts' prices are not added."""
    stated = [total.amount for total in cart.totals if total.type == "items_base_amount"]
    bases = [_base(line) for line in cart.lines if line.parent_id is None]
    known = [base for base in bases if base is not None]
    return len(stated) == 1 and len(known) == len(bases) and stated[0] == sum(known)


def _base(line: CartLine) -> int | None:
    stated = [total.amount for total in line.totals if total.type == "items_base_amount"]
    return stated[0] if len(stated) == 1 else None
