"""Purchases: what is asked for, the cart as the seller states it, and what is shown of both.

No price comes from whoever asks. A request names items and quantities; every amount in a ``Cart`` is what the
seller stated in structured form, in integer minor units.
"""

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
from waystation.models.commerce import (
    Address,
    AuthenticationOutcome,
    AuthenticationResult,
    Buyer,
    CheckoutStatus,
    FulfillmentDetails,
    FulfillmentType,
)
from waystation.models.decisions import ApprovalRecord, Digest, Refusal
from waystation.models.events import SessionId
from waystation.models.mandates import MAX_KEY_LENGTH_CHARS, Name, PaymentMethodId
from waystation.models.money import MinorUnits, Money
from waystation.models.proofs import FORGOTTEN, Proof, Sealed
from waystation.models.times import Instant
from waystation.models.urls import Origin

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


class PurchaseRequest(Frozen):
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


# The cart


class CartLine(Frozen):
    """One line as the seller states it."""

    line_id: str
    item_id: str
    name: str | None = None
    quantity: StrictInt
    unit_amount: StrictInt | None = None
    totals: tuple["CartTotal", ...] = ()
    parent_id: str | None = None
    """The line of the bundle that this is a part of."""

    @property
    def price(self) -> int | None:
        """What the line costs as stated, in minor units; ``None`` if it doesn't say."""
        stated = {total.type: total.amount for total in self.totals}
        for kind in ("total", "subtotal", "items_base_amount"):
            if kind in stated:
                return stated[kind]
        return None if self.unit_amount is None else self.unit_amount * self.quantity


class CartTotal(Frozen):
    """One amount of a sum, in minor units; discounts may carry either sign."""

    type: str
    label: str
    amount: StrictInt


class CartFulfillment(Frozen):
    """A way of getting the goods, selected or offered."""

    type: FulfillmentType
    id: str
    title: str
    amount: StrictInt | None
    """``None``: selected, but not among the options that the seller offers, so nobody states its price."""
    item_ids: tuple[str, ...] = ()


class FulfillmentGroupFact(Frozen):
    """Items that must travel by one type of fulfillment."""

    type: FulfillmentType
    item_ids: tuple[str, ...]


class Cart(Frozen):
    """Exactly what a person approves: who is paid, for what, sent where, and every amount.

    ``payee`` is the seller's account with the payment processor; a payment token works for that account only.
    """

    checkout_id: str
    seller: Origin
    payee: str | None
    currency: str
    lines: tuple[CartLine, ...]
    totals: tuple[CartTotal, ...]
    total: StrictInt | None
    """Minor units; ``None`` if the seller did not state exactly one total."""

    fulfillment: tuple[CartFulfillment, ...] = ()
    ship_to: FulfillmentDetails | None = None
    discount_codes: tuple[str, ...] = ()


class PayableCart(Frozen):
    """A cart that passed every rule: what may be reserved, charged and shown as paid. See ``check_cart``."""

    checkout_id: str
    digest: Digest
    total: Money
    payee: Annotated[str, StringConstraints(min_length=1)]
    """The seller's account with the payment processor."""
    handler: Annotated[str, StringConstraints(min_length=1)]
    """The id of the seller's payment handler that takes the token."""
    item_ids: tuple[str, ...] = ()
    ship_to_country: str | None = None
    """Where the seller's cart says that it is sent. What was only asked for proves nothing."""
    is_sent: bool = False
    """Something of it is sent to an address, or the cart doesn't say how it is delivered."""

    def buys_as(self, other: "PayableCart") -> bool:
        """Whether one token serves both: the same total, payee and checkout."""
        return (self.total, self.payee, self.checkout_id) == (other.total, other.payee, other.checkout_id)


class CheckoutMessage(Frozen):
    """A seller's message. Its text is shown to people and decides nothing."""

    type: Literal["info", "warning", "error"]
    code: str | None = None
    param: str | None = None
    text: str
    resolution: str | None = None


class OrderFulfillment(Frozen):
    """A delivery of an order."""

    id: str
    type: str | None = None
    status: str | None = None
    carrier: str | None = None
    tracking_number: str | None = None
    tracking_url: str | None = None
    access_url: str | None = Field(default=None, repr=False)
    license_key: str | None = Field(default=None, repr=False)


class OrderAdjustment(Frozen):
    """A refund, credit, return, … after the fact."""

    id: str
    type: str
    status: str
    amount: StrictInt | None = None
    currency: str | None = None
    occurred_at: str | None = None


class OrderFacts(Frozen):
    """An order as the seller last described it. What it didn't state, or can't be read, is ``None``."""

    id: str
    checkout_id: str
    permalink_url: str | None = None
    number: str | None = None
    status: str | None = None
    fulfillments: tuple[OrderFulfillment, ...] = ()
    adjustments: tuple[OrderAdjustment, ...] = ()
    total: StrictInt | None = None


NO_HINDRANCE: Final = frozenset(
    {
        "payment_declined",
        "requires_3ds",
        "low_stock",
        "coupon_invalid",
        "coupon_expired",
        "discount_code_expired",
        "discount_code_invalid",
        "discount_code_already_applied",
        "discount_code_combination_disallowed",
        "discount_code_minimum_not_met",
        "discount_code_user_not_logged_in",
        "discount_code_user_ineligible",
        "discount_code_usage_limit_reached",
    }
)
"""Codes of error messages that a checkout may carry and be paid all the same."""


class CheckoutAnswer(Frozen):
    """One answer of the seller, read strictly and reduced to what decides."""

    status: CheckoutStatus
    cart: Cart
    options: tuple[CartFulfillment, ...] = ()
    groups: tuple[FulfillmentGroupFact, ...] = ()
    messages: tuple[CheckoutMessage, ...] = ()
    problems: tuple[str, ...] = ()
    """Amounts that contradict each other, as ``<JSONPath> <rule>``."""

    handler_id: str | None = None
    handlers_offered: tuple[str, ...] = ()
    """The ways to pay that the seller offers, as people are told them."""
    continue_url: str | None = None
    authentication: dict[str, JsonValue] | None = None
    order: OrderFacts | None = None
    expires_at: Instant | None = None
    api_base_url: str
    request_id: str | None = None
    replayed: bool = False

    def error_codes(self) -> frozenset[str]:
        """Codes of the error messages."""
        return frozenset(m.code for m in self.messages if m.type == "error" and m.code)

    def hindrances(self) -> frozenset[str]:
        """Codes of the error messages that stand against paying, whatever the status says.

        Not those about an earlier payment, an authentication that comes with the payment, or a discount that
        the amounts leave out.
        """
        return self.error_codes() - NO_HINDRANCE


class OrderPlaced(Frozen):
    """An answer of which only this can be read: the checkout is completed, and this is its order.

    After paying, nothing else in an answer decides.
    """

    checkout_id: str
    order: OrderFacts
    request_id: str | None = None
    replayed: bool = False


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
    """A short one-way name of the token, for the audit trail."""

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
