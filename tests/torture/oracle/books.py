"""What a run with money has left, arranged by purchase and payment: the processor's word first."""

from collections import defaultdict
from typing import Any, Final

from tests.torture.evidence import Evidence

Json = dict[str, Any]
LIES: Final = frozenset(
    {
        "totals_do_not_add_up", "items_added", "items_missing", "quantity_changed", "wrong_currency",
        "no_payment_handler", "quote_expired", "fulfillment_option_not_offered", "charged_without_order",
        "verification-failed", "seller_answer_invalid", "price_too_high",
    }
)  # fmt: skip
"""Rules by which somebody was refused whose word was wrong."""
LIMITS: Final = frozenset(
    {
        "cap_exceeded", "per_payment_cap", "max_payments", "item_not_allowed", "country_not_allowed",
        "protocol_not_allowed", "seller_not_allowed", "mandate_revoked", "wrong_currency",
    }
)  # fmt: skip
"""Rules of a mandate by which more was refused than it allows."""
LOST: Final = ("_failed", ".unreadable", ".unclear", ".unanswered", ".found", "server.silent", ".voided")
"""Ends of what a trail calls a call whose answer was lost or wrong."""


class Books:
    """Everything that ``reading_money`` has read; empty for a run without money."""

    def __init__(self, evidence: Evidence) -> None:
        read = evidence.final.more.get("money", {})
        self._struck = evidence.struck
        self.purchases: dict[str, Json] = read.get("purchases", {})
        self.payments: dict[str, Json] = read.get("payments", {})
        self.allowances: dict[str, Json] = read.get("allowances", {})
        self.mandates: dict[str, Json] = read.get("mandates", {})
        self.trails: dict[str, list[Json]] = read.get("trails", {})
        self.checkouts: dict[str, Json] = read.get("checkouts", {})
        self.transfers: list[Json] = read.get("transfers", [])
        self.unreadable: dict[str, str] = read.get("unreadable", {})
        ledger = read.get("ledger", {"entries": [], "tokens": [], "payment_intents": []})
        self.tokens: list[Json] = ledger["tokens"]
        owner = {token["id"]: token["shared_metadata"].get("purchase_id", "") for token in self.tokens}
        self.charges: dict[str, list[int]] = defaultdict(list)
        """Amounts charged, by the purchase or payment that the token was issued for."""
        self.refunds: dict[str, int] = defaultdict(int)
        charged_by_intent: dict[str, str] = {}
        for entry in ledger["entries"]:
            whose = owner.get(entry["token"], charged_by_intent.get(entry["payment_intent"], ""))
            if entry["kind"] == "charge":
                charged_by_intent[entry["payment_intent"]] = whose
                self.charges[whose].append(entry["amount"])
            elif entry["kind"] == "refund":
                self.refunds[whose] += abs(entry["amount"])
        self.sales: dict[str, Json] = {
            sale["checkout"]: sale for sales in read.get("sales", {}).values() for sale in sales
        }
        """What the shops have sold, by checkout."""
        self._seller = {
            sale["checkout"]: name for name, sales in read.get("sales", {}).items() for sale in sales
        }
        self.reservations: dict[str, list[Json]] = defaultdict(list)
        """What mandates hold and have booked, by who holds it."""
        for mandate in self.mandates.values():
            for reservation in mandate["reservations"]:
                self.reservations[reservation["holder"] or reservation["key"]].append(reservation)

    def captured(self, whose: str) -> int:
        """Returns what was taken for a purchase or payment, before refunds."""
        return sum(self.charges.get(whose, []))

    def booked(self, whose: str) -> int:
        """Returns what its mandate says was spent for it."""
        return sum(reservation["spent"] for reservation in self.reservations.get(whose, []))

    def reserved(self, whose: str) -> int:
        """Returns what its mandate still holds for it."""
        held = [one for one in self.reservations.get(whose, []) if one["state"] == "held"]
        return sum(reservation["amount"] for reservation in held)

    def tokens_of(self, whose: str) -> list[Json]:
        return [token for token in self.tokens if token["shared_metadata"].get("purchase_id") == whose]

    def sale(self, purchase: Json) -> Json | None:
        """Returns what a shop has sold for a purchase."""
        checkout = (purchase["cart"] or {}).get("checkout_id")
        return self.sales.get(checkout) if checkout else None

    def seller_of(self, whose: str) -> str | None:
        """Returns which shop has sold what a purchase is for."""
        return self._seller.get((self.purchases[whose]["cart"] or {}).get("checkout_id"))

    def actions(self, whose: str, *actions: str) -> list[Json]:
        """Returns the entries of its trail of these kinds."""
        return [entry for entry in self.trails.get(whose, []) if entry["action"] in actions]

    def rule(self, whose: str) -> str | None:
        """Returns by which rule a purchase or payment was refused."""
        view = self.purchases.get(whose) or self.payments.get(whose) or {}
        rule: str | None = (view.get("refusal") or {}).get("rule")
        return rule

    def at_stake(self, whose: str) -> bool:
        """Returns whether a fault or a liar has met a purchase, a payment or an allowance on its way."""
        lost = any(entry["action"].endswith(LOST) for entry in self.trails.get(whose, []))
        return lost or self._struck[whose] > 0 or self.rule(whose) in LIES

    def was_left(self, whose: str) -> bool:
        """Returns whether a process that paid from an allowance has died before it was settled."""
        entries = self.actions(whose, "holder.leased", "holder.done", "settle.received")
        leases = {one["detail"].get("lease") for one in entries if one["action"] == "holder.leased"}
        done = {one["detail"].get("lease") for one in entries if one["action"] == "holder.done"}
        settled = any(one["action"] == "settle.received" for one in entries)
        return not settled or len(leases) > 1 or leases != done

    def limit_at_stake(self, mandate: str) -> bool:
        """Returns whether more was asked of a mandate than it allows, or a fault met what it allowed."""
        asked = [id_ for id_, view in self.purchases.items() if view["request"]["mandate_id"] == mandate]
        held = [one["holder"] for one in self.mandates.get(mandate, {}).get("reservations", [])]
        return self._struck[mandate] > 0 or any(
            self.rule(id_) in LIMITS or self.at_stake(id_) for id_ in (*asked, *filter(None, held))
        )
