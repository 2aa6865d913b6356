"""PaymentIntents and refunds of the sandbox processor, on top of its ledger.

Statuses, transitions and messages are Stripe's. Every function runs inside a ledger transaction.
"""

import re
from typing import Final

from waystation.sandbox.cards import TEST_CARDS, TestCard
from waystation.sandbox.forms import values
from waystation.sandbox.ledger import (
    DEACTIVATED,
    OVER_LIMIT,
    Json,
    Ledger,
    StripeRefusal,
    card_shown,
    charge_amount,
    count,
    currency_of,
    invalid,
    metadata_of,
    missing,
    nested,
    new_id,
    no_such,
    shown,
    whole,
)

CONFIRMABLE: Final = ("requires_payment_method", "requires_confirmation", "requires_action")
MAX_PAGE_ITEMS: Final = 100
_SEARCH_TERM = re.compile(
    r"""(?:metadata\[['"](?P<key>[^'"]+)['"]\]|(?P<field>status))\s*:\s*['"](?P<value>[^'"]*)['"]"""
)


def create_intent(ledger: Ledger, account: str, params: Json, key: str | None) -> Json:
    """Handles ``POST /v1/payment_intents``."""
    if params.get("capture_method", "automatic") not in ("automatic", "automatic_async"):
        raise invalid("capture_method", "The sandbox captures automatically only.")
    currency = currency_of(params)
    amount = charge_amount(params, currency)
    intent: Json = {
        "id": new_id("pi"),
        "object": "payment_intent",
        "allowed_payment_method_types": values(params.get("allowed_payment_method_types")) or None,
        "amount": amount,
        "amount_received": 0,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic",
        "client_secret": None,
        "confirmation_method": "automatic",
        "created": ledger.now(),
        "currency": currency,
        "description": params.get("description"),
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": metadata_of(params),
        "next_action": None,
        "payment_method": None,
        "payment_method_types": ["card"],
        "status": "requires_payment_method",
    }
    if params.get("confirm") == "true":
        return _confirm(ledger, account, intent, params, key)
    return ledger.save(account, intent)


def find_intent(ledger: Ledger, account: str, wanted: str) -> Json:
    found = ledger.find("payment_intent", wanted, account)
    if found is None:
        raise no_such("payment_intent", wanted, "intent")
    return found


def confirm_intent(ledger: Ledger, account: str, wanted: str, params: Json, key: str | None) -> Json:
    """Handles ``POST /v1/payment_intents/{id}/confirm``."""
    return _confirm(ledger, account, find_intent(ledger, account, wanted), params, key)


def update_intent(ledger: Ledger, account: str, wanted: str, params: Json) -> Json:
    """Handles ``POST /v1/payment_intents/{id}``: amount, metadata, description."""
    intent = find_intent(ledger, account, wanted)
    if "amount" in params:
        _expect(intent, CONFIRMABLE, "update")
        intent["amount"] = charge_amount(params, intent["currency"])
    intent["metadata"] = {**intent["metadata"], **metadata_of(params)}
    intent["description"] = params.get("description", intent["description"])
    return ledger.save(account, intent)


def cancel_intent(ledger: Ledger, account: str, wanted: str, params: Json) -> Json:
    """Handles ``POST /v1/payment_intents/{id}/cancel``: never after money has moved."""
    intent = find_intent(ledger, account, wanted)
    _expect(intent, CONFIRMABLE, "cancel")
    intent.update(
        status="canceled",
        canceled_at=ledger.now(),
        cancellation_reason=params.get("cancellation_reason"),
        next_action=None,
    )
    ledger.emit(account, "payment_intent.canceled", intent)
    return ledger.save(account, intent)


def _expect(intent: Json, allowed: tuple[str, ...], action: str) -> None:
    if intent["status"] not in allowed:
        raise StripeRefusal(
            400,
            code="payment_intent_unexpected_state",
            message=f"You cannot {action} this PaymentIntent because it has a status of {intent['status']}.",
            payment_intent=shown(intent),
        )


def _confirm(ledger: Ledger, account: str, intent: Json, params: Json, key: str | None) -> Json:
    _expect(intent, CONFIRMABLE, "confirm")
    token = _token_for(ledger, account, intent, params)
    if token is not None:
        intent["sandbox_token"] = token["id"]
        card_name = ledger.card_of(token["payment_method"], None)
    elif params.get("payment_method"):
        card_name = ledger.card_of(str(params["payment_method"]), account)
    elif intent.get("sandbox_card"):
        card_name = intent["sandbox_card"]
    else:
        raise StripeRefusal(
            400,
            code="payment_intent_unexpected_state",
            message="You cannot confirm this PaymentIntent because it's missing a payment method.",
        )
    intent["sandbox_card"] = card_name
    card = TEST_CARDS[card_name]
    intent["payment_method"] = ledger.copy_payment_method(account, card_name, token["id"] if token else None)[
        "id"
    ]
    if card.decline_code is not None:
        raise _declined(ledger, account, intent, card)
    if card.requires_3ds and not _authenticated(params):
        secret = {"type": "three_d_secure_redirect"}
        intent.update(
            status="requires_action", next_action={"type": "use_stripe_sdk", "use_stripe_sdk": secret}
        )
        ledger.emit(account, "payment_intent.requires_action", intent)
        return ledger.save(account, intent)
    return _succeed(ledger, account, intent, card, token, key)


def _token_for(ledger: Ledger, account: str, intent: Json, params: Json) -> Json | None:
    """Returns the token to charge, after checking its limits; ``None`` if another method is given."""
    named = nested(params, "payment_method_data").get("shared_payment_granted_token")
    # Stripe's own client sends it in the first place only; MPP's server still uses the second.
    wanted = named or params.get("shared_payment_granted_token")
    if wanted is None and not params.get("payment_method"):
        wanted = intent.get("sandbox_token")
    if wanted is None:
        return None
    token = ledger.granted_to(account, str(wanted))
    if token["status"] != "active":
        raise StripeRefusal(400, message=DEACTIVATED)
    limits = token["usage_limits"]
    if limits["currency"] != intent["currency"]:
        raise StripeRefusal(
            400,
            param="currency",
            message="The currency of the PaymentIntent must match the currency of the shared payment granted "
            f"token ({limits['currency']}).",
        )
    if intent["amount"] > limits["max_amount"] - token["usage_details"]["amount_captured"]["value"]:
        raise StripeRefusal(400, message=OVER_LIMIT)
    return token


def _authenticated(params: Json) -> bool:
    """Returns whether the results of a 3DS authentication done elsewhere come with the confirmation."""
    proof = nested(nested(nested(params, "payment_method_options"), "card"), "three_d_secure")
    if not proof:
        return False
    for name in ("cryptogram", "transaction_id", "version"):
        if not proof.get(name):
            raise missing(f"payment_method_options[card][three_d_secure][{name}]")
    return True


def _declined(ledger: Ledger, account: str, intent: Json, card: TestCard) -> StripeRefusal:
    charge = _charge(ledger, account, intent, card, "failed")
    error: Json = {
        "type": "card_error",
        "code": card.error_code,
        "decline_code": card.decline_code,
        "message": card.decline_message,
        "charge": charge["id"],
    }
    intent.update(
        status="requires_payment_method",
        last_payment_error=error,
        latest_charge=charge["id"],
        payment_method=None,
        next_action=None,
    )
    # A declined token stays usable, but the next confirmation has to name it again.
    intent.pop("sandbox_token", None)
    intent.pop("sandbox_card", None)
    ledger.save(account, intent)
    ledger.emit(account, "payment_intent.payment_failed", intent)
    return StripeRefusal(402, **error, payment_intent=shown(intent))


def _succeed(
    ledger: Ledger, account: str, intent: Json, card: TestCard, token: Json | None, key: str | None
) -> Json:
    charge = _charge(ledger, account, intent, card, "succeeded")
    intent.update(
        status="succeeded",
        amount_received=intent["amount"],
        latest_charge=charge["id"],
        next_action=None,
        last_payment_error=None,
    )
    ledger.save(account, intent)
    ledger.enter(account, "charge", intent["amount"], intent, charge["id"], key)
    ledger.emit(account, "charge.succeeded", charge)
    ledger.emit(account, "payment_intent.succeeded", intent)
    if token is not None:
        token["usage_details"]["amount_captured"]["value"] += intent["amount"]
        issuer = ledger.owner(token["id"])
        ledger.emit(issuer, "shared_payment.issued_token.used", token)
        ledger.emit(account, "shared_payment.granted_token.used", ledger.granted(token))
        ledger.deactivate(token, "consumed")
    return intent


def _charge(ledger: Ledger, account: str, intent: Json, card: TestCard, status: str) -> Json:
    failed = status == "failed"
    return ledger.save(
        account,
        {
            "id": new_id("ch"),
            "object": "charge",
            "amount": intent["amount"],
            "amount_captured": 0 if failed else intent["amount"],
            "amount_refunded": 0,
            "captured": not failed,
            "created": ledger.now(),
            "currency": intent["currency"],
            "failure_code": card.error_code if failed else None,
            "failure_message": card.decline_message if failed else None,
            "livemode": False,
            "metadata": intent["metadata"],
            "outcome": {
                "network_status": "declined_by_network" if failed else "approved_by_network",
                "reason": card.decline_code,
                "type": "issuer_declined" if failed else "authorized",
            },
            "paid": not failed,
            "payment_intent": intent["id"],
            "payment_method": intent["payment_method"],
            "payment_method_details": {"type": "card", "card": card_shown(card)},
            "refunded": False,
            "status": status,
        },
    )


# Refunds


def create_refund(ledger: Ledger, account: str, params: Json, key: str | None) -> Json:
    """Handles ``POST /v1/refunds``, by PaymentIntent or charge, never more than was charged."""
    charge = _charge_to_refund(ledger, account, params)
    intent = find_intent(ledger, account, charge["payment_intent"])
    left = charge["amount_captured"] - charge["amount_refunded"]
    if left == 0:
        raise StripeRefusal(
            400, code="charge_already_refunded", message=f"Charge {charge['id']} has already been refunded."
        )
    amount = whole(params, "amount") if "amount" in params else left
    if amount > left:
        raise StripeRefusal(
            400,
            param="amount",
            message=f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left}).",
        )
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]
    ledger.save(account, charge)
    refund: Json = {
        "id": new_id("re"),
        "object": "refund",
        "amount": amount,
        "charge": charge["id"],
        "created": ledger.now(),
        "currency": charge["currency"],
        "metadata": metadata_of(params),
        "payment_intent": intent["id"],
        "reason": params.get("reason"),
        "status": "succeeded",
    }
    ledger.enter(account, "refund", amount, intent, refund["id"], key)
    ledger.emit(account, "charge.refunded", charge)
    return ledger.save(account, refund)


def _charge_to_refund(ledger: Ledger, account: str, params: Json) -> Json:
    if params.get("payment_intent"):
        intent = find_intent(ledger, account, str(params["payment_intent"]))
        if intent["status"] != "succeeded":
            raise StripeRefusal(
                400,
                code="payment_intent_unexpected_state",
                message=f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.",
            )
        wanted = intent["latest_charge"]
    elif params.get("charge"):
        wanted = params["charge"]
    else:
        raise missing("payment_intent")
    charge = ledger.find("charge", str(wanted), account)
    if charge is None or not charge["captured"]:
        raise no_such("charge", str(wanted), "charge")
    return charge


# Reading


def page(found: list[Json], params: Json, url: str) -> Json:
    """Returns a Stripe list, newest first.

    Filters: ``starting_after``, ``created[gte|lte]``, ``payment_intent``.
    """
    limit = count(params, "limit", 10)
    if not 1 <= limit <= MAX_PAGE_ITEMS:
        raise invalid("limit", f"limit must be between 1 and {MAX_PAGE_ITEMS}.")
    created = params.get("created")
    bounds = created if isinstance(created, dict) else {}
    earliest, latest = count(bounds, "gte", 0), count(bounds, "lte", 10**17)
    found = [
        one
        for one in found
        if earliest <= one["created"] <= latest
        and params.get("payment_intent") in (None, one.get("payment_intent"))
    ]
    if params.get("starting_after"):
        ids = [one["id"] for one in found]
        after = str(params["starting_after"])
        found = found[ids.index(after) + 1 :] if after in ids else []
    shown_page = [shown(one) for one in found[:limit]]
    return {"object": "list", "url": url, "has_more": len(found) > limit, "data": shown_page}


def search(found: list[Json], params: Json, url: str) -> Json:
    """Handles ``GET /v1/payment_intents/search``.

    Understands ``metadata['key']:'value'`` and ``status:'…'``, joined by AND.

    Unlike Stripe's, whose index may be a minute behind, this search sees everything immediately.
    """
    query = str(params.get("query") or "")
    if not query:
        raise missing("query")
    terms = []
    for part in re.split(r"\s+AND\s+", query):
        match = _SEARCH_TERM.fullmatch(part.strip())
        if match is None:
            raise invalid(
                "query", "The sandbox understands metadata['key']:'value' and status:'…', joined by AND."
            )
        terms.append(match)

    def fits(one: Json, term: re.Match[str]) -> bool:
        actual: object = one["status"] if term["field"] else one["metadata"].get(term["key"])
        return bool(actual == term["value"])

    hits = [shown(one) for one in found if all(fits(one, term) for term in terms)]
    limit = count(params, "limit", 10)
    return {
        "object": "search_result",
        "url": url,
        "has_more": len(hits) > limit,
        "next_page": None,
        "data": hits[:limit],
    }
