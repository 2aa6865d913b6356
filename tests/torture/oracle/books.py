"""What a run with money has left, arranged by purchase and payment: the processor's word first."""

from collections import defaultdict
from typing import Any

from tests.torture.evidence import Evidence

Json = dict[str, Any]


class Books:
    """Everything that ``reading_money`` has read; empty for a run without money."""

    def __init__(self, evidence: Evidence) -> None:
        read = evidence.final.more.get("money", {})
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

    def actions(self, whose: str, *actions: str) -> list[Json]:
        """Returns the entries of its trail of these kinds."""
        return [entry for entry in self.trails.get(whose, []) if entry["action"] in actions]
