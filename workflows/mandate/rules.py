"""The arithmetic of a mandate, pure: spent + reserved never exceeds the cap.

Every function takes a ledger and returns a new one, or raises ``MandateRefusal`` and changes nothing. No
clock, no I/O: the time is an argument.
"""

from datetime import datetime, timedelta
from typing import Final

from pydantic import Field

from waystation.models.base import Frozen, replaced
from waystation.models.mandates import (
    AllowedItems,
    AllowedProtocols,
    CommitRequest,
    Constraint,
    MandateStatus,
    MandateTerms,
    MandateView,
    MaxPayments,
    RefundRequest,
    ReleaseRequest,
    Reservation,
    ReserveAnswer,
    ReserveRequest,
    RevokeRequest,
    ShipToCountries,
)
from waystation.models.money import Money

MAX_OPEN_RESERVATIONS: Final = 1_000
MAX_SETTLED_KEPT: Final = 2_000
"""Settled reservations kept so that a repeated request is recognised; the oldest go first."""

SETTLED_KEPT_AT_LEAST_SECONDS: Final = 3_600
"""No retry of a reserve, commit or release arrives later than this."""


class MandateRefusal(Exception):
    """A request that the mandate does not allow. ``rule`` is stable, the message says what to do."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class MandateLedger(Frozen):
    """All there is to know about a mandate. ``spent`` outlives the reservations it came from."""

    mandate_id: str
    terms: MandateTerms
    reservations: dict[str, Reservation] = Field(default_factory=dict)
    spent: int = 0
    refunded: int = 0
    payments: int = 0
    revoked: RevokeRequest | None = None

    @property
    def reserved(self) -> int:
        """What is set aside now, in minor units."""
        return sum(r.amount for r in self.reservations.values() if r.state == "held")

    @property
    def left(self) -> int:
        """What may still be reserved, in minor units."""
        return self.terms.cap.amount - self.spent - self.reserved

    @property
    def open_keys(self) -> tuple[str, ...]:
        """Keys of the reservations that are neither committed nor released."""
        return tuple(key for key, r in self.reservations.items() if r.state == "held")


def status_at(ledger: MandateLedger, now: datetime) -> MandateStatus:
    """Returns where the mandate stands at ``now``."""
    if ledger.revoked is not None:
        return "revoked"
    if now >= ledger.terms.valid_until:
        return "expired"
    if ledger.terms.valid_from is not None and now < ledger.terms.valid_from:
        return "pending"
    return "active"


def reserve(
    ledger: MandateLedger, request: ReserveRequest, now: datetime
) -> tuple[MandateLedger, ReserveAnswer]:
    """Sets an amount aside, or confirms that the same reservation still stands.

    Raises:
        MandateRefusal: A rule of the mandate forbids it; names the rule.
    """
    _check_active(ledger, now)
    held_until = now + timedelta(seconds=request.hold_seconds)
    known = ledger.reservations.get(request.key)
    if known is not None:
        _check_same(known, request, ledger.terms)
        _check_terms(ledger.terms, request)
        reservation = replaced(known, held_until=max(known.held_until, held_until))
        return _put(ledger, reservation), _answer(ledger, reservation)
    _check_terms(ledger.terms, request)
    _check_room(ledger, request)
    reservation = Reservation(
        key=request.key,
        amount=request.amount.amount,
        seller=request.seller,
        state="held",
        holder=request.holder,
        held_until=held_until,
    )
    return _prune(_put(ledger, reservation), now), _answer(ledger, reservation)


def commit(ledger: MandateLedger, request: CommitRequest, now: datetime) -> tuple[MandateLedger, Reservation]:
    """Records that the payment was made. Allowed after expiry and revocation too: the money has moved.

    Raises:
        MandateRefusal: The key is unknown or released, or the amount differs or exceeds the reservation.
    """
    known = ledger.reservations.get(request.key)
    if known is None:
        raise MandateRefusal(
            "unknown_reservation", f"no reservation {request.key!r}; reserve before committing"
        )
    amount = known.amount if request.amount is None else request.amount
    if known.state == "committed":
        if known.spent != amount:
            raise MandateRefusal(
                "already_committed",
                f"reservation {request.key!r} was committed with {known.spent}, not {amount}",
            )
        return ledger, known
    if known.state == "released":
        raise MandateRefusal("already_released", f"reservation {request.key!r} was released; reserve anew")
    if amount > known.amount:
        raise MandateRefusal(
            "commit_exceeds_reservation", f"{amount} cannot be committed: only {known.amount} was reserved"
        )
    settled = replaced(known, state="committed", spent=amount, settled_at=now)
    spent, payments = ledger.spent + amount, ledger.payments + 1
    return _put(ledger, settled, spent=spent, payments=payments), settled


def refund(ledger: MandateLedger, request: RefundRequest) -> tuple[MandateLedger, Reservation]:
    """Records what came back of a payment, at most what was paid; the room is free again if the terms say so.

    The amount is the sum so far, so the same refund again, or an older one that comes late, changes nothing.

    Raises:
        MandateRefusal: No payment was made under this key, or it is no longer known.
    """
    known = ledger.reservations.get(request.key)
    if known is None or known.state != "committed":
        raise MandateRefusal(
            "no_such_payment", f"no payment was made under {request.key!r}; there is nothing to refund"
        )
    back = min(request.amount, known.spent) - known.refunded
    if back <= 0:
        return ledger, known
    settled = replaced(known, refunded=known.refunded + back)
    room = back if ledger.terms.refunds_give_room else 0
    refunded, spent = ledger.refunded + back, ledger.spent - room
    return _put(ledger, settled, spent=spent, refunded=refunded), settled


def release(
    ledger: MandateLedger, request: ReleaseRequest, now: datetime
) -> tuple[MandateLedger, Reservation]:
    """Releases the room. An unknown key is noted as released, so that a reserve overtaken by it is refused.

    Raises:
        MandateRefusal: The reservation was committed.
    """
    known = ledger.reservations.get(request.key)
    if known is None:
        known = Reservation(
            key=request.key, amount=0, seller="(none)", state="released", held_until=now, settled_at=now
        )
        return _prune(_put(ledger, known), now), known
    if known.state == "committed":
        raise MandateRefusal(
            "already_committed", f"reservation {request.key!r} is spent and cannot be released"
        )
    if known.state == "released":
        return ledger, known
    settled = replaced(known, state="released", settled_at=now)
    return _put(ledger, settled), settled


def revoke(ledger: MandateLedger, request: RevokeRequest) -> MandateLedger:
    """Revokes the mandate; the first revocation stands."""
    return ledger if ledger.revoked is not None else replaced(ledger, revoked=request)


def extend_hold(ledger: MandateLedger, key: str, until: datetime) -> MandateLedger:
    """Keeps a hold whose holder is still at work."""
    known = ledger.reservations.get(key)
    if known is None or known.state != "held":
        return ledger
    return _put(ledger, replaced(known, held_until=max(known.held_until, until)))


def view(ledger: MandateLedger, now: datetime, *, with_reservations: bool = True) -> MandateView:
    """Returns the mandate as people and programs see it."""
    reservations = ledger.reservations.values() if with_reservations else ()
    currency = ledger.terms.cap.currency
    return MandateView(
        mandate_id=ledger.mandate_id,
        status=status_at(ledger, now),
        terms=ledger.terms,
        spent=Money(amount=ledger.spent, currency=currency),
        reserved=Money(amount=ledger.reserved, currency=currency),
        left=Money(amount=ledger.left, currency=currency),
        refunded=Money(amount=ledger.refunded, currency=currency),
        payments=ledger.payments,
        reservations=tuple(r for r in reservations if r.amount > 0),
        revoked_by=ledger.revoked.by if ledger.revoked else None,
        revoked_because=(ledger.revoked.reason or None) if ledger.revoked else None,
    )


def _put(
    ledger: MandateLedger,
    reservation: Reservation,
    *,
    spent: int | None = None,
    refunded: int | None = None,
    payments: int | None = None,
) -> MandateLedger:
    """Returns the ledger with a reservation as it is now; the only way in which its sums change."""
    changed = MandateLedger(
        mandate_id=ledger.mandate_id,
        terms=ledger.terms,
        reservations={**ledger.reservations, reservation.key: reservation},
        spent=ledger.spent if spent is None else spent,
        refunded=ledger.refunded if refunded is None else refunded,
        payments=ledger.payments if payments is None else payments,
        revoked=ledger.revoked,
    )
    assert changed.spent >= 0, "no more comes back than was spent"
    assert changed.spent + changed.reserved <= ledger.terms.cap.amount, (
        "spent + reserved never exceeds the cap"
    )
    return changed


def _answer(ledger: MandateLedger, reservation: Reservation) -> ReserveAnswer:
    terms = ledger.terms
    return ReserveAnswer(
        reservation=reservation,
        approval_required=reservation.amount > terms.approval_threshold,
        approvers=terms.approvers,
        owner=terms.owner,
        payment_methods=terms.payment_methods,
        valid_until=terms.valid_until,
    )


def _check_active(ledger: MandateLedger, now: datetime) -> None:
    match status_at(ledger, now):
        case "revoked":
            by = ledger.revoked.by if ledger.revoked else "its owner"
            why = f" ({ledger.revoked.reason})" if ledger.revoked and ledger.revoked.reason else ""
            raise MandateRefusal(
                "mandate_revoked", f"the mandate was revoked by {by}{why}; ask for a new one"
            )
        case "expired":
            until = ledger.terms.valid_until.isoformat()
            raise MandateRefusal("mandate_expired", f"the mandate was valid until {until}; ask for a new one")
        case "pending":
            start = ledger.terms.valid_from
            raise MandateRefusal(
                "mandate_not_yet_valid", f"the mandate is valid from {start}; try again then"
            )
        case "active":
            return


def _check_same(known: Reservation, request: ReserveRequest, terms: MandateTerms) -> None:
    if known.state != "held":
        raise MandateRefusal(
            f"already_{known.state}",
            f"reservation {request.key!r} is {known.state}; use a new key for a new payment",
        )
    wanted = (request.amount.amount, request.amount.currency, request.seller)
    if (known.amount, terms.cap.currency, known.seller) != wanted:
        raise MandateRefusal(
            "reservation_conflict",
            f"reservation {request.key!r} exists with another amount or seller; use a new key",
        )


def _check_terms(terms: MandateTerms, request: ReserveRequest) -> None:
    """Holds a request to what the owner allowed, whatever else is held; at every confirmation too."""
    amount = request.amount.amount
    if amount <= 0:
        raise MandateRefusal("amount_not_positive", "a reservation needs an amount above 0 minor units")
    if request.amount.currency != terms.cap.currency:
        raise MandateRefusal(
            "wrong_currency",
            f"the mandate is in {terms.cap.currency}, not {request.amount.currency}; nothing is converted",
        )
    if request.agent != terms.agent:
        raise MandateRefusal(
            "wrong_agent", f"the mandate was given to {terms.agent!r}, not to {request.agent!r}"
        )
    if not terms.allows_any_seller and request.seller not in terms.sellers:
        raise MandateRefusal("seller_not_allowed", f"{request.seller} is not among the mandate's sellers")
    if terms.per_payment_cap is not None and amount > terms.per_payment_cap:
        raise MandateRefusal(
            "per_payment_cap",
            f"{amount} is above the {terms.per_payment_cap} {terms.cap.currency} allowed for one payment",
        )
    for constraint in terms.constraints:
        _check_constraint(constraint, request)


def _check_room(ledger: MandateLedger, request: ReserveRequest) -> None:
    """Sees whether one more payment, and its amount, fit beside all that is spent and held."""
    terms, amount = ledger.terms, request.amount.amount
    for constraint in terms.constraints:
        if (
            isinstance(constraint, MaxPayments)
            and ledger.payments + len(ledger.open_keys) >= constraint.count
        ):
            raise MandateRefusal(
                "max_payments", f"the mandate allows {constraint.count} payments, all made or under way"
            )
    if len(ledger.open_keys) >= MAX_OPEN_RESERVATIONS:
        raise MandateRefusal(
            "too_many_reservations", "too many payments are under way; wait for some to finish"
        )
    if amount > ledger.left:
        raise MandateRefusal(
            "cap_exceeded",
            f"{amount} {terms.cap.currency} does not fit: of {terms.cap.amount}, {ledger.spent} is spent and "
            f"{ledger.reserved} reserved, {ledger.left} left",
        )


def _check_constraint(constraint: Constraint, request: ReserveRequest) -> None:
    match constraint:
        case MaxPayments():
            if request.many_payments:
                raise MandateRefusal(
                    "max_payments", "the mandate limits the number of payments, so they are made one by one"
                )
        case AllowedItems(item_ids=allowed):
            wrong = sorted(set(request.item_ids) - set(allowed))
            if wrong or not request.item_ids:
                raise MandateRefusal(
                    "item_not_allowed", f"the mandate does not cover these items: {wrong or 'none named'}"
                )
        case AllowedProtocols(protocols=protocols):
            wrong = sorted({request.protocol, *request.other_protocols} - set(protocols))
            if wrong:
                raise MandateRefusal(
                    "protocol_not_allowed",
                    f"the mandate allows {', '.join(protocols)} only, not {', '.join(wrong)}",
                )
        case ShipToCountries(countries=countries):
            country, named = request.ship_to_country, ", ".join(countries)
            if country is None and request.is_sent:
                raise MandateRefusal(
                    "country_not_allowed",
                    f"the mandate allows delivery to {named} only, and the seller's cart doesn't say where "
                    "this goes; give an address, and buy where the cart states it",
                )
            if country is not None and country.upper() not in countries:
                raise MandateRefusal("country_not_allowed", f"the mandate allows delivery to {named} only")


def _prune(ledger: MandateLedger, now: datetime) -> MandateLedger:
    settled = [r for r in ledger.reservations.values() if r.settled_at is not None]
    excess = len(settled) - MAX_SETTLED_KEPT
    if excess <= 0:
        return ledger
    horizon = now - timedelta(seconds=SETTLED_KEPT_AT_LEAST_SECONDS)
    oldest = sorted(settled, key=lambda r: (r.settled_at or now, r.key))[:excess]
    gone = {r.key for r in oldest if r.settled_at is not None and r.settled_at < horizon}
    kept = {key: r for key, r in ledger.reservations.items() if key not in gone}
    return replaced(ledger, reservations=kept)
