"""Purchases: what is asked for, the cart as the seller states it, and what is shown of both.

No price comes from whoever asks. A request names items and quantities; every amount in a ``Cart`` is what the
seller stated in structured form, in integer minor units.
"""

import hashlib
import operator
from datetime import datetime
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    StrictInt,
    StringConstraints,
    field_validator,
    model_validator,
)

from waystation.models.base import Frozen, WorkflowStart
from waystation.models.carts import (
    NO_HINDRANCE,
    Cart,
    CartFulfillment,
    CartLine,
    CartTotal,
    CheckoutAnswer,
    CheckoutMessage,
    FulfillmentGroupFact,
    OrderAdjustment,
    OrderFacts,
    OrderFulfillment,
    OrderPlaced,
    PayableCart,
)
from waystation.models.commerce import (
    Address,
    AuthenticationOutcome,
    AuthenticationResult,
    Buyer,
    FulfillmentDetails,
)
from waystation.models.decisions import ApprovalRecord, Digest, Refusal
from waystation.models.digests import Digested
from waystation.models.events import SessionId
from waystation.models.mandates import MAX_KEY_LENGTH_CHARS, Name, PaymentMethodId
from waystation.models.money import MinorUnits, Money
from waystation.models.proofs import FORGOTTEN, Proof, Sealed
from waystation.models.times import Instant
from waystation.models.urls import Origin

__all__ = [
    "MAX_APPROVAL_TIMEOUT_SECONDS",
    "MAX_DISCOUNT_CODES",
    "MAX_ITEMS",
    "MAX_ITEM_QUANTITY",
    "MAX_PURCHASE_ID_LENGTH_CHARS",
    "MAX_REVISION_TIMEOUT_SECONDS",
    "NO_HINDRANCE",
    "WAITS_FOR_A_PERSON",
    "AgentRef",
    "AuthenticationDone",
    "BuyStart",
    "Cart",
    "CartFulfillment",
    "CartLine",
    "CartTotal",
    "Charge",
    "CheckoutAnswer",
    "CheckoutCurrency",
    "CheckoutMessage",
    "DiscountCodes",
    "FinalStatus",
    "FulfillmentGroupFact",
    "ItemWanted",
    "NextAction",
    "OrderAdjustment",
    "OrderBinding",
    "OrderEventReceived",
    "OrderEventsStart",
    "OrderFacts",
    "OrderFulfillment",
    "OrderPlaced",
    "OutcomeWanted",
    "PayableCart",
    "PaymentToken",
    "PurchaseRequest",
    "PurchaseStatus",
    "PurchaseView",
    "Receipt",
    "RetryPayment",
    "Revise",
    "Revision",
    "TokenStatus",
]

MAX_ITEMS: Final = 100
MAX_ITEM_QUANTITY: Final = 10_000
MAX_DISCOUNT_CODES: Final = 20
MAX_APPROVAL_TIMEOUT_SECONDS: Final = 30 * 24 * 3600
MAX_REVISION_TIMEOUT_SECONDS: Final = 30 * 24 * 3600
MAX_PURCHASE_ID_LENGTH_CHARS: Final = 200
"""Leaves room for the step in an idempotency key of at most 255 characters."""

CheckoutCurrency = Annotated[str, StringConstraints(pattern=r"^[a-z]{3}$")]

PurchaseStatus = Literal[
    "creating",
    "preparing",
    "needs_revision",
    "awaiting_approval",
    "escalated",
    "paying",
    "authentication_required",
    "payment_declined",
    "confirming",
    "undoing",
    "completed",
    "canceled",
    "rejected",
    "refused",
    "expired",
    "failed",
]
"""Where a purchase stands; the last six are final.

``completed``: paid and ordered. ``canceled``: somebody asked for it. ``rejected``: by an approver.
``refused``: one of our rules, the mandate's or the seller's ruled it out. ``expired``: nobody decided in
time. ``failed``: the seller or the processor failed.
"""

WAITS_FOR_A_PERSON: Final[frozenset[PurchaseStatus]] = frozenset(
    {"awaiting_approval", "escalated", "authentication_required", "needs_revision", "payment_declined"}
)
"""Statuses in which nothing happens until somebody does something."""

FinalStatus = Literal["completed", "canceled", "rejected", "refused", "expired", "failed"]


class ItemWanted(Frozen):
    """One item by the seller's id, and how many. There is no field for a price."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    quantity: Annotated[StrictInt, Field(ge=1, le=MAX_ITEM_QUANTITY)] = 1


class AgentRef(Frozen):
    """The agent that wants to buy."""

    id: Name
    name: str | None = None


def _distinct(items: tuple[ItemWanted, ...]) -> tuple[ItemWanted, ...]:
    if len({item.id for item in items}) != len(items):
        raise ValueError("an item is named twice; name it once with the whole quantity")
    return items


DiscountCodes = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1, max_length=100)], ...],
    Field(max_length=MAX_DISCOUNT_CODES),
]


class PurchaseRequest(Digested):
    """What starts a Purchase workflow, whose workflow id is the purchase's id.

    Without a ``fulfillment_option`` the cheapest one offered is taken. ``approval_timeout_seconds``
    bounds every wait for a person; ``revision_timeout_seconds`` is how long an unbuyable cart
    (out of stock, address missing) waits for ``revise``: 0 refuses it immediately.
    """

    mandate_id: Name
    seller: Origin
    currency: CheckoutCurrency
    items: tuple[ItemWanted, ...] = Field(min_length=1, max_length=MAX_ITEMS)
    agent: AgentRef
    buyer: Buyer | None = None
    fulfillment_details: FulfillmentDetails | None = None
    fulfillment_option: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None
    discount_codes: DiscountCodes = ()
    billing_address: Address | None = None
    order_notes: Annotated[str, StringConstraints(max_length=2000)] | None = None
    session_id: Name | None = None
    turn_id: str | None = None
    approval_timeout_seconds: Annotated[StrictInt, Field(ge=1, le=MAX_APPROVAL_TIMEOUT_SECONDS)] = 24 * 3600
    revision_timeout_seconds: Annotated[StrictInt, Field(ge=0, le=MAX_REVISION_TIMEOUT_SECONDS)] = 1800

    _items_distinct = field_validator("items")(_distinct)

    def earlier_digest(self) -> str:
        """Returns the digest of every field, those that are as by default among them."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


# Signals


class Revision(Frozen):
    """What to change of a purchase; what is left out stays."""

    items: tuple[ItemWanted, ...] | None = Field(default=None, min_length=1, max_length=MAX_ITEMS)
    buyer: Buyer | None = None
    fulfillment_details: FulfillmentDetails | None = None
    fulfillment_option: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None
    discount_codes: DiscountCodes | None = None

    @field_validator("items")
    @classmethod
    def _items_distinct(cls, items: tuple[ItemWanted, ...] | None) -> tuple[ItemWanted, ...] | None:
        return None if items is None else _distinct(items)


class Revise(Revision):
    """Signal ``revise``: change what is wanted. Any approval is void."""

    by: Name


class AuthenticationDone(Frozen):
    """Signal ``authentication_result``: the outcome of the issuer's 3-D Secure authentication.

    ``outcome_details`` as in ACP (cryptogram, indicator, transaction id, version); required
    with outcomes that allow the payment.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    outcome: AuthenticationOutcome
    outcome_details: dict[str, str] | None = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _as_the_protocol_wants(self) -> Self:
        AuthenticationResult.model_validate(
            {"outcome": self.outcome, "outcome_details": self.outcome_details}
        )
        return self


class RetryPayment(Frozen):
    """Signal ``retry_payment``: after a decline, try again, perhaps with another method of the mandate."""

    by: Name
    payment_method: PaymentMethodId | None = None
    proof: Proof | None = None


class OrderEventReceived(Frozen):
    """Signal ``order_event``: a webhook whose signature was checked.

    ``event_id`` names the delivery; ``sent_at`` is the unix time of its signature.
    """

    event_id: Annotated[str, StringConstraints(min_length=1, max_length=MAX_KEY_LENGTH_CHARS)]
    sent_at: StrictInt
    type: str
    order: OrderFacts


class OrderBinding(Frozen):
    """Signal ``bind``: this purchase owns the checkout."""

    purchase_id: Annotated[str, StringConstraints(min_length=1, max_length=MAX_PURCHASE_ID_LENGTH_CHARS)]


class OrderEventsStart(WorkflowStart):
    """What starts an OrderEvents workflow, and what carries over into a new run."""

    CARRIED: ClassVar[frozenset[str]] = frozenset({"waiting"})

    purchase_id: str | None = None
    waiting: tuple[OrderEventReceived, ...] = ()


class BuyStart(WorkflowStart):
    """What starts a Buy workflow: the purchase to be made, and the id that it gets.

    The id is new for each purchase: it is the Purchase's workflow id, and the root of its idempotency keys.
    """

    purchase_id: SessionId
    request: PurchaseRequest


class OutcomeWanted(Frozen):
    """Update ``outcome``: wait for the end, or also for the next thing that a person has to do."""

    or_for_a_person: bool = False


# What is kept and shown


class Charge(Frozen):
    """What the processor says was charged for a purchase.

    ``captured``: this ``amount``. ``awaited``: an order, but not (all of) its payment yet; the seller can
    still charge, and the amount stays reserved. ``nothing``: the seller can't charge any more and has not;
    nothing is spent. ``unknown``: the processor doesn't say; the amount stays reserved while it is asked,
    and counts as spent if it never does.
    """

    status: Literal["captured", "awaited", "nothing", "unknown"]
    amount: MinorUnits | None = None
    """Minor units; ``None`` if the processor states no amount."""


class Receipt(Frozen):
    """What was paid, to whom, for which order. ``amount`` is the processor's word, never the seller's."""

    order: OrderFacts
    amount: MinorUnits
    currency: str
    payee: str | None
    approved_by: str | None
    paid_at: datetime


class PurchaseView(Frozen):
    """A purchase at one moment."""

    purchase_id: str
    status: PurchaseStatus
    final: bool
    request: PurchaseRequest
    cart: Cart | None = None
    digest: Digest | None = None
    approval: ApprovalRecord | None = None
    approval_deadline: datetime | None = None
    approvers: tuple[str, ...] = Field(default=(), exclude_if=operator.not_)
    """Who alone may approve, as the mandate says; of the others, anybody with the role may."""
    messages: tuple[CheckoutMessage, ...] = ()
    continue_url: str | None = None
    authentication: dict[str, JsonValue] | None = None
    """What the seller says about the authentication it wants."""
    next_action: "NextAction | None" = None
    """What the processor wants a person to do before it lets the token be charged."""
    options: tuple[CartFulfillment, ...] = ()
    receipt: Receipt | None = None
    order: OrderFacts | None = None
    refusal: Refusal | None = None
    money_moved: bool = False
    charge: Charge | None = None
    """What was charged, once the seller had a token to charge."""
    payment_tries: int = 0
    waits_for_a_person: bool = False
    """Whether nothing happens until somebody does something."""
    turns_of_people: int = 0
    """How often it has come to wait for a person."""
    updated_at: datetime


# Payment tokens

TokenStatus = Literal["active", "requires_action", "deactivated", "unknown"]
"""``unknown``: the processor doesn't say. Such a token is not sent, and not taken for worthless."""


class IssueToken(Frozen):
    """A token to issue for exactly one total, payee and currency, valid until a given moment."""

    payment_method: str
    payee: str
    max_amount: Money
    expires_at: datetime
    purchase_id: str
    checkout_id: str
    idempotency_key: str


class NextAction(Frozen):
    """What a person has to do before a token can be charged (3-D Secure), as the processor states it.

    ``redirect_to_url`` has a ``url`` to open; ``use_stripe_sdk`` a ``value`` for Stripe.js
    (``stripe.handleNextAction({hashedValue})``).
    """

    type: str
    url: str | None = None
    value: str | None = None


class PaymentToken(Frozen):
    """A shared payment token. Its id *is* the secret: histories have it sealed, and only workers open it."""

    model_config = ConfigDict(hide_input_in_errors=True)

    sealed: Sealed = Field(repr=False)
    fingerprint: str
    """How logs and the audit trail name the token; see ``waystation.redaction``."""

    status: TokenStatus
    deactivated_reason: str | None = None
    expires_at: Instant | None = None
    next_action: NextAction | None = None
    captured: MinorUnits | None = None
    """What was charged to it so far, if the processor says so."""

    request_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _forgets_what_is_in_clear(cls, given: object) -> object:
        """Reads histories of earlier releases, without the token that they give away."""
        if isinstance(given, dict) and "id" in given:
            return {**{name: value for name, value in given.items() if name != "id"}, "sealed": FORGOTTEN}
        return given

    @property
    def is_spent(self) -> bool:
        """Whether money was charged to it."""
        return self.deactivated_reason == "consumed" or bool(self.captured)
