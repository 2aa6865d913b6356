"""What holds of purchases: one charge, an order for it or a named case, and what a person agreed to."""

from typing import Final

from tests.torture.evidence import Evidence
from tests.torture.oracle.books import Books
from tests.torture.oracle.promises import Judged, promise

OPEN_CHARGES: Final = frozenset({"awaited", "nothing", "unknown"})
"""Of ``charge.status``: named cases in which order and charge may differ."""
HONEST_SHOP: Final = "shop-1"
"""Whose webhooks nobody forges with its own secret; see ``actors.clerks``."""
CHARGED_WITHOUT_ORDER: Final = "charged_without_order"


@promise("At most one charge for each purchase.", "docs/purchases.md#guarantees")
def a_purchase_is_charged_once(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    for id_ in books.purchases:
        charges = books.charges.get(id_, [])
        staked = bool(charges) and books.at_stake(id_)
        judged.holds(len(charges) <= 1, f"{id_}: charged {charges}", staked=staked)


@promise(
    "A purchase is charged if and only if there is an order, or a refund, or a named open case.",
    "docs/purchases.md#what-was-charged",
)
def charges_have_orders(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    for id_, view in books.purchases.items():
        if not view["final"]:
            continue
        status, sale, charge = view["status"], books.sale(view), view["charge"] or {}
        rule = (view["refusal"] or {}).get("rule")
        captured, refunded = books.captured(id_), books.refunds.get(id_, 0)
        what = f"{id_} is {status} ({rule}): {captured} charged, {refunded} refunded, sale {sale}, {charge}"
        staked = books.at_stake(id_)
        if captured > refunded:
            judged.holds(sale is not None or rule == CHARGED_WITHOUT_ORDER, what, staked=staked)
            judged.holds(status == "completed" or rule == CHARGED_WITHOUT_ORDER, what, staked=staked)
        if sale is not None:
            paid = captured > 0 or charge.get("status") in OPEN_CHARGES
            judged.holds(paid, what, staked=staked)
        if status == "completed":
            judged.holds(sale is not None, what, staked=staked)


@promise("Money that moved is never hidden: a purchase that says otherwise was not charged.",
         "docs/purchases.md#what-was-charged")  # fmt: skip
def charges_are_shown(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    for id_, view in books.purchases.items():
        if view["final"]:
            captured = books.captured(id_)
            moved = captured > 0
            judged.holds(
                view["money_moved"] == moved or (view["charge"] or {}).get("status") == "unknown",
                f"{id_} is {view['status']}, money_moved {view['money_moved']}, charged {captured}",
                staked=bool(books.tokens_of(id_)) and books.at_stake(id_),
            )


@promise("What is booked is what the processor captured.", "docs/purchases.md#what-was-charged")
def booked_is_captured(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    for id_, view in books.purchases.items():
        if not view["final"]:
            continue
        captured, booked, charge = books.captured(id_), books.booked(id_), view["charge"] or {}
        what = f"{id_} is {view['status']}: captured {captured}, booked {booked}, charge {charge}"
        if charge.get("status") in ("awaited", "unknown"):
            judged.holds(captured <= booked + books.reserved(id_), what, staked=True)
        else:
            staked = bool(books.tokens_of(id_)) and books.at_stake(id_)
            judged.holds(captured == booked and books.reserved(id_) == 0, what, staked=staked)
            judged.holds(charge.get("amount") in (None, captured), what)
        receipt = view["receipt"]
        judged.holds(receipt is None or receipt["amount"] == captured, f"{what}, receipt {receipt}")


@promise("Nothing left behind: each payment token is used up or revoked.", "docs/purchases.md#guarantees")
def tokens_end(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    for id_, view in books.purchases.items():
        if view["final"] and (view["charge"] or {}).get("status") not in ("awaited", "unknown"):
            for token in books.tokens_of(id_):
                ended = token["deactivated_at"] is not None
                what = f"{id_} is {view['status']}, and its token {token['status']}"
                judged.holds(ended, what, staked=books.at_stake(id_))


@promise("Every purchase ends, or waits for a person, and says for what.", "docs/purchases.md#buy")
def purchases_end(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    for id_, why in books.unreadable.items():
        judged.holds(False, f"{id_} can't be read: {why}")
    for id_, view in books.purchases.items():
        # After money has moved, its order is asked for during a day.
        asks_for_order = view["status"] == "confirming" and view["money_moved"]
        what = f"{id_} is {view['status']} at the end"
        judged.holds(view["final"] or asks_for_order, what, staked=books.at_stake(id_))


@promise("An approval is of the cart that was shown, by somebody who may.", "docs/purchases.md#approve")
def approvals_are_of_what_was_shown(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    decided = [line for line in evidence.noted("decided") if line["verdict"] == "approve"]
    for id_, view in books.purchases.items():
        captured = books.captured(id_)
        if not captured:
            continue
        terms = books.mandates[view["request"]["mandate_id"]]["terms"]
        record = view["approval"]
        judged.holds(record is not None, f"{id_}: charged {captured} without an approval")
        if record is None:
            continue
        if record["auto"]:
            staked = books.at_stake(id_)
            fine = captured <= terms["approval_threshold"]
            judged.holds(fine, f"{id_}: {captured} by itself: {terms}", staked=staked)
            continue
        mine = [
            line for line in decided
            if line["id"] == id_ and line["who"] == record["approver"] and line["digest"] == record["digest"]
            if line["status"] == 200 or not line["definite"]
        ]  # fmt: skip
        several = len([line for line in decided if line["id"] == id_]) > 1
        staked = several or books.at_stake(id_)
        what = f"{id_}: nobody called {record['approver']} approved {record['digest']}"
        judged.holds(bool(mine), what, staked=staked)
        allowed = not terms["approvers"] or record["approver"] in terms["approvers"]
        judged.holds(allowed, f"{id_}: approved by {record['approver']}, not one of {terms['approvers']}")
        for line in mine:
            judged.holds(captured <= line["total"], f"{id_}: {captured} charged, {line['total']} shown")


@promise("Every decision that counts is in the trail, with who made it.", "docs/purchases.md#approve")
def decisions_are_in_the_trail(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    made: dict[tuple[str, str, str], list[bool]] = {}
    for line in evidence.noted("decided"):
        if line["kind"] == "purchases" and (line["status"] == 200 or not line["definite"]):
            key = (line["id"], line["who"], line["verdict"])
            made.setdefault(key, []).append(line["status"] == 200)
    for (id_, who, verdict), certain in made.items():
        if id_ not in books.trails:
            continue
        action = {"approve": "approval.received", "reject": "rejection.received"}[verdict]
        noted = [entry for entry in books.actions(id_, action) if entry["actor"] == who]
        fine = sum(certain) <= len(noted) <= len(certain)
        what = f"{id_}: {who} {verdict} {certain}, in the trail {len(noted)} times"
        judged.holds(fine, what, staked=not all(certain) or len(certain) > 1 or books.at_stake(id_))
    for id_ in books.purchases:
        for entry in books.actions(id_, "approval.received", "rejection.received"):
            verdict = "approve" if entry["action"].startswith("approval") else "reject"
            judged.holds((id_, entry["actor"], verdict) in made, f"{id_}: {entry} was never said")


@promise("What is delivered is what was asked for, where the mandate allows it.",
         "docs/purchases.md#what-sellers-may-state")  # fmt: skip
def deliveries_are_what_was_asked(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    for id_, view in books.purchases.items():
        sale = books.sale(view)
        if sale is None:
            continue
        checkout = books.checkouts[sale["checkout"]]
        got = sorted((line["item"]["id"], line["quantity"]) for line in checkout["line_items"])
        wanted = sorted((item["id"], item["quantity"]) for item in view["request"]["items"])
        staked = books.at_stake(id_)
        judged.holds(got == wanted, f"{id_}: {wanted} asked for, {got} sold", staked=staked)
        constraints = books.mandates[view["request"]["mandate_id"]]["terms"]["constraints"]
        for constraint in constraints:
            if constraint["type"] == "allowed_items":
                allowed = {item for item, _ in got} <= set(constraint["item_ids"])
                judged.holds(allowed, f"{id_}: {got} sold, {constraint} allowed")
            if constraint["type"] == "allowed_protocols":
                judged.holds("acp" in constraint["protocols"], f"{id_}: bought, {constraint} allowed")
            if constraint["type"] == "ship_to_countries":
                details = checkout.get("fulfillment_details") or {}
                country = (details.get("address") or {}).get("country")
                fine = country is None or country in constraint["countries"]
                judged.holds(fine, f"{id_}: sent to {country}, {constraint} allowed")


@promise("A refund gives room once each, and never more than the purchase had spent.",
         "docs/purchases.md#grant-a-mandate")  # fmt: skip
def refunds_count_once(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    for name, mandate in books.mandates.items():
        for one in mandate["reservations"]:
            if one["refunded"]:
                judged.holds(one["refunded"] <= one["spent"], f"{name}: {one}", staked=True)
    for id_, view in books.purchases.items():
        sale = books.sale(view)
        if sale is None or books.seller_of(id_) != HONEST_SHOP:
            continue
        counted = sum(one["refunded"] for one in books.reservations.get(id_, []))
        returned = books.refunds.get(id_, 0)
        what = (
            f"{id_}: {counted} counted as refunded, {returned} in the ledger: {books.reservations.get(id_)}"
        )
        judged.holds(counted <= returned, what, staked=bool(returned) or books.at_stake(id_))


@promise("A seller's refund reaches its mandate, whatever died on the way.",
         "docs/purchases.md#grant-a-mandate")  # fmt: skip
def refunds_arrive(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    by_checkout = {
        (view["cart"] or {}).get("checkout_id"): id_ for id_, view in books.purchases.items() if view["order"]
    }
    for line in evidence.noted("refunded"):
        id_ = by_checkout.get(line["checkout"])
        if id_ is None:
            continue  # its purchase has no order: a case of its own, which others look at
        mandate = books.mandates[books.purchases[id_]["request"]["mandate_id"]]
        counted = sum(one["refunded"] for one in books.reservations.get(id_, []))
        ended = bool(books.actions(id_, "mandate.refund_without_effect"))
        what = (
            f"{id_}: {line}, {counted} refunded in {mandate['mandate_id']}, {books.refunds.get(id_)} in all"
        )
        judged.holds(line["seen"], what, staked=books.at_stake(id_))
        if line["shop"] == HONEST_SHOP and not ended:
            fine = counted == min(books.refunds.get(id_, 0), books.booked(id_))
            judged.holds(fine, what, staked=books.at_stake(id_))
