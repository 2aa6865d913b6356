"""The sandbox processor's ledger, in SQLite, with Stripe's rules.

Everything is synchronous on purpose: an operation runs in one SQLite transaction and can't interleave with
another, so the ledger stays consistent if the process is killed at any time. An operation's effect, its
events and the response stored for its idempotency key are one commit.

Objects are kept as the JSON that Stripe would show. Money moves only in ``entries``, which is append-only.
"""

import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from waystation.models.money import MAX_AMOUNT_MINOR_UNITS
from waystation.sandbox.cards import TEST_CARDS, TestCard
from waystation.stripe_http import STRIPE_API_VERSION
from waystation.whole_numbers import whole_number

MAX_TOKEN_LIFETIME_SECONDS: Final = 90 * 24 * 3600
DEFAULT_TOKEN_LIFETIME_SECONDS: Final = 24 * 3600
MAX_METADATA_KEYS: Final = 50
MINIMUM_CHARGE_MINOR_UNITS: Final = 1

ZERO_DECIMAL: Final = frozenset(
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"]
)
"""Currencies whose minor unit is the unit itself."""
MINIMUM_CHARGES: Final[dict[str, int]] = {
    "usd": 50, "aed": 200, "aud": 50, "bgn": 100, "brl": 50, "cad": 50, "chf": 50, "czk": 1_500, "dkk": 250,
    "eur": 50, "gbp": 30, "hkd": 400, "huf": 17_500, "inr": 50, "jpy": 50, "mxn": 1_000, "myr": 200,
    "nok": 300, "nzd": 50, "pln": 200, "ron": 200, "sek": 300, "sgd": 50, "thb": 1_000,
}  # fmt: skip
"""The least that Stripe charges, in minor units."""
CHARGE_STEPS: Final[dict[str, int]] = {
    **dict.fromkeys(("isk", "ugx"), 100),
    **dict.fromkeys(("bhd", "jod", "kwd", "omr", "tnd"), 10),
}
"""Currencies that are written with more decimals than they are charged with: the last digits must be 0."""

OVER_LIMIT: Final = (
    "The requested amount is greater than the remaining amount capturable with this shared payment "
    "granted token."
)
DEACTIVATED: Final = (
    "The shared payment granted token cannot be used because it is already in a deactivated state."
)

_SHARED_FIELDS: Final = (
    "id",
    "created",
    "deactivated_at",
    "deactivated_reason",
    "livemode",
    "risk_details",
    "shared_metadata",
    "usage_details",
    "usage_limits",
)
"""The fields of a token that both issuer and seller see."""

Json = dict[str, Any]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, kind TEXT NOT NULL, account TEXT NOT NULL,
  data TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS objects_by_kind ON objects (kind, account, seq);
CREATE TABLE IF NOT EXISTS entries (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, created INTEGER NOT NULL, kind TEXT NOT NULL, account TEXT NOT NULL,
  amount INTEGER NOT NULL, currency TEXT NOT NULL, payment_intent TEXT NOT NULL, source TEXT NOT NULL,
  token TEXT, idempotency_key TEXT);
CREATE TABLE IF NOT EXISTS idempotency (
  account TEXT NOT NULL, key TEXT NOT NULL, path TEXT NOT NULL, params TEXT NOT NULL, status INTEGER NOT NULL,
  body TEXT NOT NULL, PRIMARY KEY (account, key));
CREATE TABLE IF NOT EXISTS deliveries (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, endpoint TEXT NOT NULL, event TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, due INTEGER NOT NULL, state TEXT NOT NULL DEFAULT 'pending');
"""


class StripeRefusal(Exception):
    """An error answer: HTTP status and the ``error`` object.

    ``kept`` says whether the response is stored for the idempotency key. As with Stripe, invalid parameters
    are not stored; refusals that come from the operation itself are.
    """

    def __init__(self, status: int, *, kept: bool = True, **error: object) -> None:
        super().__init__(error.get("message", ""))
        self.status = status
        self.kept = kept
        self.body: Json = {"error": {"type": "invalid_request_error", **error}}


def missing(param: str) -> StripeRefusal:
    return StripeRefusal(
        400,
        kept=False,
        code="parameter_missing",
        param=param,
        message=f"Missing required param: {param}.",
    )


def invalid(param: str, message: str) -> StripeRefusal:
    return StripeRefusal(400, kept=False, param=param, message=message)


def no_such(what: str, wanted: str, param: str = "id") -> StripeRefusal:
    return StripeRefusal(404, code="resource_missing", param=param, message=f"No such {what}: '{wanted}'")


def whole(params: Json, param: str, *, label: str | None = None) -> int:
    """Returns a positive integer parameter from Stripe's form encoding."""
    name = label or param
    raw = params.get(param)
    if raw is None or raw == "":
        raise missing(name)
    if not isinstance(raw, str) or (value := whole_number(raw.removeprefix("-"))) is None:
        raise invalid(name, f"Invalid integer: {raw if isinstance(raw, str) else 'object'}")
    if raw.startswith("-") or value < MINIMUM_CHARGE_MINOR_UNITS or value > MAX_AMOUNT_MINOR_UNITS:
        raise invalid(name, "This value must be greater than or equal to 1.")
    return value


def charge_amount(params: Json, currency: str) -> int:
    """Returns the amount of a charge, held to what Stripe charges in a currency."""
    amount = whole(params, "amount")
    minimum = MINIMUM_CHARGES.get(currency)
    if minimum is not None and amount < minimum:
        raise StripeRefusal(
            400,
            kept=False,
            code="amount_too_small",
            param="amount",
            message=f"Amount must be at least {_shown_amount(minimum, currency)}.",
        )
    step = CHARGE_STEPS.get(currency, 1)
    if amount % step:
        raise StripeRefusal(
            400,
            kept=False,
            code="invalid_charge_amount",
            param="amount",
            message=f"Amounts in {currency} must be a multiple of {step}: it has fewer decimals than it is "
            "written with.",
        )
    return amount


def _shown_amount(amount: int, currency: str) -> str:
    if currency in ZERO_DECIMAL:
        return f"{amount} {currency}"
    return f"{amount // 100}.{amount % 100:02} {currency}"


def count(params: Json, param: str, default: int) -> int:
    """Returns an optional number from a query."""
    raw = params.get(param, str(default))
    if not isinstance(raw, str) or (value := whole_number(raw)) is None:
        raise invalid(param, "Invalid integer")
    return value


def currency_of(params: Json, param: str = "currency", *, label: str | None = None) -> str:
    raw = params.get(param)
    if not raw:
        raise missing(label or param)
    if not isinstance(raw, str) or len(raw) != 3 or not raw.isascii() or not raw.isalpha():
        raise invalid(label or param, f"Invalid currency: {raw}.")
    return raw.lower()


def nested(params: Json, param: str) -> Json:
    found = params.get(param)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise invalid(param, "Invalid object")
    return found


def metadata_of(params: Json, param: str = "metadata") -> Json:
    found = nested(params, param)
    if len(found) > MAX_METADATA_KEYS or any(not isinstance(value, str) for value in found.values()):
        raise invalid(param, f"{param} must have at most {MAX_METADATA_KEYS} string values.")
    return found


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


class Ledger:
    """The ledger and its operations. ``now`` (Unix seconds) can be replaced in tests."""

    def __init__(self, path: Path, now: Callable[[], int] = lambda: int(time.time())) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.now = now
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # Idempotency

    def once(
        self, account: str, key: str | None, path: str, params: Json, work: Callable[[], Json]
    ) -> tuple[int, Json, bool]:
        """Runs ``work`` once for each idempotency key of an account. Returns ``(status, body, replayed)``."""
        parameters_hash = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()
        kept = self._db.execute(
            "SELECT path, params, status, body FROM idempotency WHERE account = ? AND key = ?", (account, key)
        ).fetchone()
        if kept is not None:
            _same_request(kept["path"] == path, kept["params"] == parameters_hash, str(key))
            return kept["status"], json.loads(kept["body"]), True
        with self.transaction():
            try:
                status, body = 200, work()
            except StripeRefusal as refused:
                if not refused.kept:
                    raise
                # What a refusal leaves behind (a declined PaymentIntent) is stored with its response.
                status, body = refused.status, refused.body
            if key is not None:
                self._db.execute(
                    "INSERT INTO idempotency VALUES (?, ?, ?, ?, ?, ?)",
                    (account, key, path, parameters_hash, status, json.dumps(body)),
                )
        return status, body, False

    # Objects

    def save(self, account: str, data: Json) -> Json:
        self._db.execute(
            "INSERT INTO objects (id, kind, account, data) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET data = excluded.data",
            (data["id"], data["object"], account, json.dumps(data)),
        )
        return data

    def find(self, kind: str, wanted: str, account: str | None) -> Json | None:
        row = self._db.execute(
            "SELECT account, data FROM objects WHERE id = ? AND kind = ?", (wanted, kind)
        ).fetchone()
        if row is None or (account is not None and row["account"] != account):
            return None
        found: Json = json.loads(row["data"])
        return found

    def listed(self, kind: str, account: str | None) -> list[Json]:
        """Returns all objects of a kind, newest first."""
        rows = self._db.execute(
            "SELECT data FROM objects WHERE kind = ? AND (? IS NULL OR account = ?) ORDER BY seq DESC",
            (kind, account, account),
        )
        return [json.loads(row["data"]) for row in rows]

    def owner(self, wanted: str) -> str:
        row = self._db.execute("SELECT account FROM objects WHERE id = ?", (wanted,)).fetchone()
        return str(row["account"])

    # Payment methods

    def create_payment_method(self, account: str, params: Json) -> Json:
        """Creates a payment method from one of Stripe's test cards. Card numbers are refused."""
        if params.get("type") != "card":
            raise invalid("type", "The sandbox supports payment methods of type card only.")
        card = nested(params, "card")
        if "number" in card:
            raise StripeRefusal(
                402,
                type="card_error",
                message="Sending credit card numbers directly to the Stripe API is generally unsafe. "
                "Use a test token such as tok_visa.",
            )
        named = str(card.get("token", "")).removeprefix("tok_")
        if f"pm_card_{named}" not in TEST_CARDS:
            raise no_such("token", str(card.get("token")), "card[token]")
        return self.copy_payment_method(account, f"pm_card_{named}")

    def copy_payment_method(self, account: str, test_card: str, granted_token: str | None = None) -> Json:
        """Makes a payment method for a test card; ``granted_token`` is the token that it was shared with."""
        data: Json = {
            "id": new_id("pm"),
            "object": "payment_method",
            "type": "card",
            "card": card_shown(TEST_CARDS[test_card]),
            "created": self.now(),
            "livemode": False,
            "metadata": {},
            "shared_payment_granted_token": granted_token,
            "sandbox_test_card": test_card,
        }
        return self.save(account, data)

    def card_of(self, payment_method: str, account: str | None) -> str:
        """Returns the name of the test card behind a payment method."""
        if payment_method in TEST_CARDS:
            return payment_method
        found = self.find("payment_method", payment_method, account)
        if found is None:
            raise no_such("PaymentMethod", payment_method, "payment_method")
        return str(found["sandbox_test_card"])

    # Shared payment tokens

    def issue_token(self, account: str, seller_profile: str, params: Json) -> Json:
        """Issues a token for one seller. The caller has checked who that is."""
        payment_method = params.get("payment_method")
        if not payment_method:
            raise missing("payment_method")
        card = TEST_CARDS[self.card_of(str(payment_method), account)]
        limits = nested(params, "usage_limits")
        if not limits:
            raise missing("usage_limits")
        currency = currency_of(limits, label="usage_limits[currency]")
        max_amount = whole(limits, "max_amount", label="usage_limits[max_amount]")
        expires_at = self.now() + DEFAULT_TOKEN_LIFETIME_SECONDS
        if limits.get("expires_at"):
            expires_at = whole(limits, "expires_at", label="usage_limits[expires_at]")
        if not self.now() < expires_at <= self.now() + MAX_TOKEN_LIFETIME_SECONDS:
            raise invalid(
                "usage_limits[expires_at]", "The expiry must be in the future and at most 90 days ahead."
            )
        status = "requires_action" if card.requires_3ds_first else "active"
        token = self.save(
            account,
            {
                "id": new_id("spt"),
                "object": "shared_payment.issued_token",
                "created": self.now(),
                "deactivated_at": None,
                "deactivated_reason": None,
                "livemode": False,
                "next_action": next_action(params) if card.requires_3ds_first else None,
                "payment_method": payment_method,
                "return_url": params.get("return_url"),
                "risk_details": {"insights": insights(card)},
                "seller_details": {
                    "network_business_profile": seller_profile,
                    "external_id": nested(params, "seller_details").get("external_id"),
                },
                "setup_future_usage": params.get("setup_future_usage"),
                "shared_metadata": metadata_of(params, "shared_metadata"),
                "status": status,
                "usage_details": {"amount_captured": {"value": 0, "currency": currency}},
                "usage_limits": {"currency": currency, "max_amount": max_amount, "expires_at": expires_at},
                "use_stripe_sdk": _wants_stripe_sdk(params),
            },
        )
        self.emit(account, f"shared_payment.issued_token.{status}", token)
        return token

    def authenticate(self, action: str) -> bool:
        """Completes the ``next_action`` of a token. Returns false if no token waits for it."""
        for token in self.listed("shared_payment.issued_token", None):
            if token["next_action"] and action_id(token["next_action"]) == action:
                account = self.owner(token["id"])
                ready = self.save(account, {**token, "status": "active", "next_action": None})
                self.emit(account, "shared_payment.issued_token.active", ready)
                return True
        return False

    def token(self, wanted: str) -> Json | None:
        """Returns the issued token as it is now, and deactivates it if it has expired."""
        found = self.find("shared_payment.issued_token", wanted, None)
        if found and found["status"] != "deactivated" and found["usage_limits"]["expires_at"] <= self.now():
            return self.deactivate(found, "expired")
        return found

    def deactivate(self, token: Json, reason: str) -> Json:
        if token["status"] == "deactivated":
            raise StripeRefusal(
                400, message=f"This token is already deactivated ({token['deactivated_reason']})."
            )
        token = {**token, "status": "deactivated", "deactivated_at": self.now(), "deactivated_reason": reason}
        issuer = self.owner(token["id"])
        self.save(issuer, token)
        self.emit(issuer, "shared_payment.issued_token.deactivated", token)
        seller = account_of_profile(token["seller_details"]["network_business_profile"])
        self.emit(seller, "shared_payment.granted_token.deactivated", self.granted(token))
        return token

    def granted(self, token: Json) -> Json:
        """Returns the seller's view of a token, without its status and the issuer's fields."""
        card = TEST_CARDS[self.card_of(token["payment_method"], None)]
        return {
            **{name: token[name] for name in _SHARED_FIELDS},
            "object": "shared_payment.granted_token",
            "agent_details": {"network_business_profile": profile_of_account(self.owner(token["id"]))},
            "payment_method_details": {"type": "card", "card": card_shown(card)},
        }

    def granted_to(self, account: str, wanted: str) -> Json:
        """Returns a token for the seller who may use it. For everyone else it doesn't exist."""
        token = self.token(wanted)
        profile = profile_of_account(account)
        if token is None or token["seller_details"]["network_business_profile"] != profile:
            raise no_such("shared_payment_granted_token", redacted(wanted), "shared_payment_granted_token")
        return token

    # Entries, events

    def enter(self, account: str, kind: str, amount: int, intent: Json, source: str, key: str | None) -> None:
        self._db.execute(
            "INSERT INTO entries (created, kind, account, amount, currency, payment_intent, source, token, "
            "idempotency_key) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.now(),
                kind,
                account,
                amount,
                intent["currency"],
                intent["id"],
                source,
                intent.get("sandbox_token"),
                key,
            ),
        )

    def entries(self) -> list[Json]:
        return [dict(row) for row in self._db.execute("SELECT * FROM entries ORDER BY seq")]

    def emit(self, account: str, kind: str, data: Json) -> None:
        """Records an event, and its deliveries to the account's webhook endpoints."""
        event: Json = {
            "id": new_id("evt"),
            "object": "event",
            "api_version": STRIPE_API_VERSION,
            "created": self.now(),
            "type": kind,
            "data": {"object": shown(data)},
            "livemode": False,
            "pending_webhooks": 0,
            "request": {"id": None, "idempotency_key": None},
        }
        self.save(account, event)
        for endpoint in self.listed("webhook_endpoint", account):
            if kind in endpoint["enabled_events"] or "*" in endpoint["enabled_events"]:
                self._db.execute(
                    "INSERT INTO deliveries (endpoint, event, due) VALUES (?, ?, ?)",
                    (endpoint["id"], event["id"], self.now()),
                )

    def due_deliveries(self) -> list[Json]:
        rows = self._db.execute(
            "SELECT * FROM deliveries WHERE state = 'pending' AND due <= ? ORDER BY seq LIMIT 50",
            (self.now(),),
        )
        return [dict(row) for row in rows]

    def delivered(self, seq: int, *, ok: bool, attempts: int, due: int, give_up: bool) -> None:
        state = "delivered" if ok else "failed" if give_up else "pending"
        self._db.execute(
            "UPDATE deliveries SET state = ?, attempts = ?, due = ? WHERE seq = ?",
            (state, attempts, due, seq),
        )


def _same_request(same_path: bool, same_params: bool, key: str) -> None:
    """Refuses an idempotency key that was used for another path or other parameters, as Stripe does."""
    if same_path and same_params:
        return
    what = "with the same parameters they were first used with"
    if not same_path:
        what = "for the same endpoint they were first used for"
    raise StripeRefusal(
        400,
        type="idempotency_error",
        message=f"Keys for idempotent requests can only be used {what}. "
        f"Try using a key other than '{key}' if you meant to execute a different request.",
    )


# An account is named by its test key, sk_test_<name>: acct_<name>, profile_test_<name>.


def account_of_key(key: str) -> str | None:
    name = key.removeprefix("sk_test_")
    return f"acct_{name}" if name and name != key and name.replace("_", "").isalnum() else None


def profile_of_account(account: str) -> str:
    return f"profile_test_{account.removeprefix('acct_')}"


def account_of_profile(profile: str) -> str:
    return f"acct_{profile.removeprefix('profile_test_')}"


def redacted(token: str) -> str:
    """Returns a token's id for error texts: enough to find it, too little to use it."""
    return f"{token[:8]}…" if len(token) > 8 else token


def card_shown(card: TestCard) -> Json:
    return {
        "brand": card.brand,
        "display_brand": card.brand,
        "last4": card.last4,
        "funding": card.funding,
        "country": card.country,
        "exp_month": card.exp_month,
        "exp_year": card.exp_year,
        "fingerprint": hashlib.sha256(card.last4.encode()).hexdigest()[:16],
        "networks": {"available": [card.brand], "preferred": None},
        "wallet": None,
    }


def next_action(params: Json) -> Json:
    """Returns what Stripe hands to a browser before a token becomes active. It must not reveal the token.

    A page to open where the issuer gave a ``return_url``, else a value for Stripe.js, as with PaymentIntents.
    """
    action = new_id("action")
    if _wants_stripe_sdk(params) or not params.get("return_url"):
        return {"type": "use_stripe_sdk", "redirect_to_url": None, "use_stripe_sdk": {"value": action}}
    page = {"url": f"https://hooks.stripe.com/sandbox/{action}", "return_url": params["return_url"]}
    return {"type": "redirect_to_url", "redirect_to_url": page, "use_stripe_sdk": None}


def action_id(action: Json) -> str:
    """Returns the id under which ``/sandbox/next_actions/{action}`` completes a ``next_action``."""
    if action["use_stripe_sdk"] is not None:
        return str(action["use_stripe_sdk"]["value"])
    return str(action["redirect_to_url"]["url"]).rpartition("/")[2]


def _wants_stripe_sdk(params: Json) -> bool:
    wanted = params.get("use_stripe_sdk", "false")
    if wanted not in ("true", "false"):
        raise invalid("use_stripe_sdk", f"Invalid boolean: {wanted if isinstance(wanted, str) else 'object'}")
    return bool(wanted == "true")


def insights(card: TestCard) -> Json:
    action = "block" if card.risk_score >= 75 else "review" if card.risk_score >= 65 else "continue"
    # As in Stripe's own shapes, these three scores may be fractions and the other two are whole.
    low = {"recommended_action": "continue", "score": 1.5}
    return {
        "bot": low,
        "card_issuer_decline": low,
        "card_testing": low,
        "fraudulent_dispute": {"recommended_action": action, "score": card.risk_score},
        "stolen_card": {"recommended_action": action, "score": card.risk_score},
    }


def shown(data: Json) -> Json:
    """Returns an object without the sandbox's own fields."""
    return {name: value for name, value in data.items() if not name.startswith("sandbox_")}
