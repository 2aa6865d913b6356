"""Agentic Commerce Protocol, version 2026-04-17: shapes, statuses, headers, errors.

Pure, and shared by the seller (who writes these shapes) and the buyer (who reads them). Beside it:
``acp_dialects`` (reading agents' requests), ``acp_totals`` (do amounts add up), ``acp_webhooks``.

*Writing is strict*: every model refuses unknown fields and is dumped with :meth:`AcpModel.wire`, whose
result validates against the specification's JSON Schemas. *Reading* ignores unknown fields but holds every
known one to its type, its enumeration and its limits, and raises :class:`ProtocolViolationError`, whose text
names places and rules, never values.

Amounts are whole minor units. The few fractional numbers of the protocol (weights, tax rates, exchange
rates) are carried as they came and never calculated with.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from numbers import Real
from typing import Annotated, ClassVar, Final, Literal, NoReturn, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    SerializationInfo,
    StrictBool,
    StrictInt,
    StringConstraints,
    ValidationError,
    field_serializer,
    model_serializer,
)

from waystation.models.base import Frozen, JsonObject
from waystation.models.commerce import (
    MAX_LIST_ITEMS,
    Address,
    AuthenticationResult,
    Buyer,
    CheckoutStatus,
    DateTime,
    Email,
    FulfillmentDetails,
    FulfillmentType,
    Many,
    Text,
    masked_secret,
)
from waystation.models.money import MAX_AMOUNT_MINOR_UNITS

API_VERSION: Final = "2026-04-17"
SUPPORTED_VERSIONS: Final = (API_VERSION,)

# Header names (openapi.agentic_checkout.yaml, components/parameters).
HEADER_AUTHORIZATION: Final = "Authorization"
HEADER_API_VERSION: Final = "API-Version"
HEADER_IDEMPOTENCY_KEY: Final = "Idempotency-Key"
HEADER_IDEMPOTENT_REPLAYED: Final = "Idempotent-Replayed"
HEADER_REQUEST_ID: Final = "Request-Id"
HEADER_RETRY_AFTER: Final = "Retry-After"
HEADER_TIMESTAMP: Final = "Timestamp"
HEADER_MERCHANT_SIGNATURE: Final = "Merchant-Signature"

DISCOVERY_PATH: Final = "/.well-known/acp.json"
WEBHOOK_PATH: Final = "/agentic_checkout/webhooks/order_events"

MAX_BODY_BYTES: Final = 1_048_576
MAX_IDEMPOTENCY_KEY_CHARS: Final = 255
MAX_ID_CHARS: Final = 255
MAX_URL_CHARS: Final = 2_048
MAX_QUANTITY: Final = 1_000_000
MAX_ORDER_NOTES_CHARS: Final = 5_000
MAX_PROBLEMS_SHOWN: Final = 8


class ProtocolViolationError(ValueError):
    """A document does not follow the protocol.

    ``problems`` holds pairs of a JSONPath (``$.line_items[0].quantity``) and the rule that it breaks.
    """

    def __init__(self, what: str, problems: Sequence[tuple[str, str]]) -> None:
        self.what = what
        self.problems = tuple(problems)
        shown = "; ".join(f"{path}: {rule}" for path, rule in self.problems[:MAX_PROBLEMS_SHOWN])
        more = len(self.problems) - MAX_PROBLEMS_SHOWN
        super().__init__(
            f"{what} does not follow ACP {API_VERSION}: {shown}" + (f"; and {more} more" if more > 0 else "")
        )


# --- scalars -------------------------------------------------------------------------------------------


def _web_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\x00-\x1f]", value):
        raise ValueError("must be an absolute http(s) URL")
    return value


def _number(value: JsonValue) -> JsonValue:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_CHARS)]
WebUrl = Annotated[str, StringConstraints(max_length=MAX_URL_CHARS), AfterValidator(_web_url)]
Date = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Currency = Annotated[str, StringConstraints(pattern=r"^[a-z]{3}$")]
"""ISO 4217 in lower case, as checkout writes it (feeds write it in upper case)."""

Amount = Annotated[StrictInt, Field(ge=-MAX_AMOUNT_MINOR_UNITS, le=MAX_AMOUNT_MINOR_UNITS)]
"""Minor units. The schema allows negative ones, which some sellers use for discounts."""

Quantity = Annotated[StrictInt, Field(ge=1, le=MAX_QUANTITY)]
Count = Annotated[StrictInt, Field(ge=0, le=MAX_QUANTITY)]
Number = Annotated[JsonValue, AfterValidator(_number)]
"""A JSON number that is not money: kept as it came, never calculated with."""


class AcpModel(Frozen):
    """A shape of the protocol."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    def wire(self) -> JsonObject:
        """The JSON object to send: absent fields left out, credentials in clear."""
        return self.model_dump(mode="json", exclude_none=True, context={"reveal_credentials": True})


# --- statuses ------------------------------------------------------------------------------------------


_OPEN = frozenset(
    {CheckoutStatus.INCOMPLETE, CheckoutStatus.NOT_READY_FOR_PAYMENT, CheckoutStatus.READY_FOR_PAYMENT}
)
_COMPLETING = frozenset({CheckoutStatus.COMPLETE_IN_PROGRESS, CheckoutStatus.IN_PROGRESS})
_ALWAYS = frozenset({CheckoutStatus.REQUIRES_ESCALATION, CheckoutStatus.CANCELED, CheckoutStatus.EXPIRED})
_PAYING = _COMPLETING | {
    CheckoutStatus.AUTHENTICATION_REQUIRED,
    CheckoutStatus.PENDING_APPROVAL,
    CheckoutStatus.COMPLETED,
}

TRANSITIONS: Final[Mapping[CheckoutStatus, frozenset[CheckoutStatus]]] = {
    CheckoutStatus.INCOMPLETE: _OPEN | _ALWAYS,
    CheckoutStatus.NOT_READY_FOR_PAYMENT: _OPEN | _ALWAYS,
    CheckoutStatus.READY_FOR_PAYMENT: _OPEN | _PAYING | _ALWAYS,
    # An edit of the cart, or a failed authentication, leads back to an open status.
    CheckoutStatus.AUTHENTICATION_REQUIRED: _OPEN | _PAYING | _ALWAYS,
    CheckoutStatus.PENDING_APPROVAL: _OPEN | _PAYING | _ALWAYS,
    CheckoutStatus.REQUIRES_ESCALATION: _OPEN | _PAYING | _ALWAYS,
    # A decline leads back to ready_for_payment; sellers do cancel while completing.
    CheckoutStatus.COMPLETE_IN_PROGRESS: _PAYING | {CheckoutStatus.READY_FOR_PAYMENT} | _ALWAYS,
    CheckoutStatus.IN_PROGRESS: _PAYING | {CheckoutStatus.READY_FOR_PAYMENT} | _ALWAYS,
    CheckoutStatus.COMPLETED: frozenset(),
    CheckoutStatus.CANCELED: frozenset(),
    CheckoutStatus.EXPIRED: frozenset(),
}
"""Which status may come directly after which. The specification publishes no table; this is the sensible one.

Staying in a status is always allowed. Someone who only polls may miss steps: see :func:`may_be_seen_after`.
"""


def may_be_seen_after(before: CheckoutStatus, after: CheckoutStatus) -> bool:
    """Whether a reader who saw ``before`` may see ``after`` next, having missed steps in between."""
    seen, frontier = {before}, [before]
    while frontier:
        for following in TRANSITIONS[frontier.pop()] - seen:
            seen.add(following)
            frontier.append(following)
    return after in seen


# --- people, places, payment ---------------------------------------------------------------------------


class InterventionCapabilities(AcpModel):
    """What a buyer can be asked to do in between."""

    supported: Many[Literal["3ds", "biometric", "address_verification"]] | None = None
    required: Many[Literal["3ds", "biometric"]] | None = None
    enforcement: Literal["always", "conditional", "optional"] | None = None
    display_context: Literal["native", "webview", "modal", "redirect"] | None = None
    redirect_context: Literal["in_app", "external_browser", "none"] | None = None
    max_redirects: Annotated[StrictInt, Field(ge=0)] | None = None
    max_interaction_depth: Annotated[StrictInt, Field(ge=1)] | None = None


_SIMPLE_NAME = r"[a-z][a-z0-9_-]*"
_DOTTED_NAME = r"[a-z][a-z0-9]*(\.[a-z][a-z0-9_-]*)+"
_EXTENSION = StringConstraints(pattern=rf"^({_SIMPLE_NAME}|{_DOTTED_NAME})(@\d{{4}}-\d{{2}}-\d{{2}})?$")
_SCHEMA_PATH = StringConstraints(pattern=r"^\$\.[A-Za-z][A-Za-z0-9]*(\.[A-Za-z][A-Za-z0-9_]*)*$")


class ExtensionDeclaration(AcpModel):
    """An extension that is active in a session."""

    name: Annotated[
        str, StringConstraints(pattern=rf"^({_SIMPLE_NAME}|{_DOTTED_NAME})(@\d{{4}}-\d{{2}}-\d{{2}})?$")
    ]
    extends: Many[Annotated[str, _SCHEMA_PATH]] | None = None
    schema_: WebUrl | None = Field(default=None, alias="schema")
    spec: WebUrl | None = None


class PaymentHandler(AcpModel):
    """One way in which the seller can be paid."""

    id: Id
    name: Text
    display_name: Text | None = None
    version: Date
    spec: WebUrl
    requires_delegate_payment: StrictBool
    requires_pci_compliance: StrictBool
    psp: Text
    config_schema: WebUrl
    instrument_schemas: Many[WebUrl]
    config: JsonObject
    display_order: StrictInt | None = None

    @property
    def merchant_id(self) -> str | None:
        """The seller's account with the processor: what a payment token is scoped to."""
        found = self.config.get("merchant_id")
        return found if isinstance(found, str) and 0 < len(found) <= MAX_ID_CHARS else None


class Payment(AcpModel):
    """The seller's payment handlers."""

    handlers: Many[PaymentHandler]


class Capabilities(AcpModel):
    """What one side can do; ``payment`` is the seller's word, plain extension names are the agent's."""

    payment: Payment | None = None
    interventions: InterventionCapabilities | None = None
    extensions: Many[Text | ExtensionDeclaration] | None = None


# --- the cart ------------------------------------------------------------------------------------------


class TotalType(StrEnum):
    """The kinds of amount in ``totals``."""

    ITEMS_BASE_AMOUNT = "items_base_amount"
    ITEMS_DISCOUNT = "items_discount"
    SUBTOTAL = "subtotal"
    DISCOUNT = "discount"
    FULFILLMENT = "fulfillment"
    TAX = "tax"
    FEE = "fee"
    GIFT_WRAP = "gift_wrap"
    TIP = "tip"
    STORE_CREDIT = "store_credit"
    TOTAL = "total"
    AMOUNT_REFUNDED = "amount_refunded"


class TaxBreakdownItem(AcpModel):
    """One jurisdiction's share of a tax."""

    jurisdiction: Text
    rate: Number
    amount: Amount


class Total(AcpModel):
    """One line of a sum, in minor units of the session's currency."""

    type: TotalType
    display_text: Text
    amount: Amount
    presentment_amount: Amount | None = None
    description: Text | None = None
    breakdown: Many[TaxBreakdownItem] | None = None


class Item(AcpModel):
    """A product as the seller names it."""

    id: Id
    name: Text | None = None
    unit_amount: Amount | None = None


class Disclosure(AcpModel):
    """Something the buyer has to be told about an item."""

    type: Literal["disclaimer"]
    content_type: Literal["plain", "markdown"]
    content: Text


class CustomAttribute(AcpModel):
    """A property to show."""

    display_name: Text
    value: Text


class NamedSeller(AcpModel):
    """The seller behind a marketplace's item (``MarketplaceSellerDetails``)."""

    name: Text


class VariantOption(AcpModel):
    """A chosen characteristic, such as size."""

    name: Text
    value: Text


class Weight(AcpModel):
    """``WeightInfo``."""

    value: Number
    unit: Literal["g", "kg", "oz", "lb"]


class Dimensions(AcpModel):
    """``DimensionsInfo``."""

    length: Number
    width: Number
    height: Number
    unit: Literal["cm", "in"]


class DiscountDetail(AcpModel):
    """A discount on one item."""

    code: Text | None = None
    type: Literal["percentage", "fixed", "bogo", "volume"]
    amount: Amount
    description: Text | None = None
    source: Literal["coupon", "automatic", "loyalty"] | None = None


AvailabilityStatus = Literal["in_stock", "low_stock", "out_of_stock", "backorder", "pre_order"]


class LineItem(AcpModel):
    """A position of the cart."""

    id: Id
    item: Item
    quantity: Quantity
    name: Text | None = None
    description: Text | None = None
    images: Many[WebUrl] | None = None
    unit_amount: Amount | None = None
    disclosures: Many[Disclosure] | None = None
    custom_attributes: Many[CustomAttribute] | None = None
    marketplace_seller_details: NamedSeller | None = None
    product_id: Text | None = None
    sku: Text | None = None
    variant_id: Text | None = None
    category: Text | None = None
    tags: Many[Text] | None = None
    weight: Weight | None = None
    dimensions: Dimensions | None = None
    availability_status: Literal["in_stock", "low_stock", "out_of_stock", "backorder", "pre_order"] | None = (
        None
    )
    available_quantity: Count | None = None
    max_quantity_per_order: Quantity | None = None
    fulfillable_on: DateTime | None = None
    variant_options: Many[VariantOption] | None = None
    discount_details: Many[DiscountDetail] | None = None
    tax_exempt: StrictBool | None = None
    tax_exemption_reason: Text | None = None
    parent_id: Text | None = None
    totals: Many[Total]


class ShippingOption(AcpModel):
    """``FulfillmentOptionShipping``."""

    type: Literal["shipping"] = "shipping"
    id: Id
    title: Text
    description: Text | None = None
    carrier: Text | None = None
    earliest_delivery_time: DateTime | None = None
    latest_delivery_time: DateTime | None = None
    totals: Many[Total]


class DigitalOption(AcpModel):
    """``FulfillmentOptionDigital``."""

    type: Literal["digital"] = "digital"
    id: Id
    title: Text
    description: Text | None = None
    totals: Many[Total]


class PickupLocation(AcpModel):
    """Where to pick up."""

    name: Text
    address: Address
    phone: Text | None = None
    instructions: Text | None = None


class PickupOption(AcpModel):
    """``FulfillmentOptionPickup``."""

    type: Literal["pickup"] = "pickup"
    id: Id
    title: Text
    description: Text | None = None
    location: PickupLocation
    pickup_type: Literal["in_store", "curbside", "locker"] | None = None
    ready_by: DateTime | None = None
    pickup_by: DateTime | None = None
    totals: Many[Total]


class DeliveryWindow(AcpModel):
    """When a local delivery comes."""

    start: DateTime
    end: DateTime


class ServiceArea(AcpModel):
    """Where a local delivery goes."""

    radius_miles: Number | None = None
    center_postal_code: Text | None = None


class LocalDeliveryOption(AcpModel):
    """``FulfillmentOptionLocalDelivery``."""

    type: Literal["local_delivery"] = "local_delivery"
    id: Id
    title: Text
    description: Text | None = None
    delivery_window: DeliveryWindow | None = None
    service_area: ServiceArea | None = None
    totals: Many[Total]


FulfillmentOption = Annotated[
    ShippingOption | DigitalOption | PickupOption | LocalDeliveryOption, Field(discriminator="type")
]


class SelectedFulfillmentOption(AcpModel):
    """Which items go by which option. ``item_ids`` are ids of items or of line items."""

    type: FulfillmentType
    option_id: Id
    item_ids: Many[Id]


class FulfillmentGroup(AcpModel):
    """Items that travel together."""

    id: Id
    item_ids: Many[Id]
    destination_type: FulfillmentType
    fulfillment_details: FulfillmentDetails | None = None
    location_id: Text | None = None
    instructions: Text | None = None


class MessageErrorCode(StrEnum):
    """``MessageError.code``."""

    MISSING = "missing"
    INVALID = "invalid"
    OUT_OF_STOCK = "out_of_stock"
    PAYMENT_DECLINED = "payment_declined"
    REQUIRES_SIGN_IN = "requires_sign_in"
    REQUIRES_3DS = "requires_3ds"
    LOW_STOCK = "low_stock"
    QUANTITY_EXCEEDED = "quantity_exceeded"
    COUPON_INVALID = "coupon_invalid"
    COUPON_EXPIRED = "coupon_expired"
    MINIMUM_NOT_MET = "minimum_not_met"
    MAXIMUM_EXCEEDED = "maximum_exceeded"
    REGION_RESTRICTED = "region_restricted"
    AGE_VERIFICATION_REQUIRED = "age_verification_required"
    APPROVAL_REQUIRED = "approval_required"
    UNSUPPORTED = "unsupported"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    RATE_LIMITED = "rate_limited"
    EXPIRED = "expired"
    INTERVENTION_REQUIRED = "intervention_required"


class DiscountErrorCode(StrEnum):
    """Why a discount code was refused; also codes of warnings."""

    EXPIRED = "discount_code_expired"
    INVALID = "discount_code_invalid"
    ALREADY_APPLIED = "discount_code_already_applied"
    COMBINATION_DISALLOWED = "discount_code_combination_disallowed"
    MINIMUM_NOT_MET = "discount_code_minimum_not_met"
    USER_NOT_LOGGED_IN = "discount_code_user_not_logged_in"
    USER_INELIGIBLE = "discount_code_user_ineligible"
    USAGE_LIMIT_REACHED = "discount_code_usage_limit_reached"


class MessageWarningCode(StrEnum):
    """``MessageWarning.code``, beside those of :class:`DiscountErrorCode`."""

    LOW_STOCK = "low_stock"
    HIGH_DEMAND = "high_demand"
    SHIPPING_DELAY = "shipping_delay"
    PRICE_CHANGE = "price_change"
    EXPIRING_PROMOTION = "expiring_promotion"
    LIMITED_AVAILABILITY = "limited_availability"


Severity = Literal["info", "low", "medium", "high", "critical"]
Resolution = Literal["recoverable", "requires_buyer_input", "requires_buyer_review"]


class MessageInfo(AcpModel):
    """Something to know."""

    type: Literal["info"] = "info"
    severity: Severity | None = None
    resolution: Resolution | None = None
    param: Text | None = None
    content_type: Literal["plain", "markdown"] = "plain"
    content: Text


class MessageWarning(AcpModel):
    """Something to heed."""

    type: Literal["warning"] = "warning"
    code: MessageWarningCode | DiscountErrorCode
    severity: Severity | None = None
    resolution: Resolution | None = None
    param: Text | None = None
    content_type: Literal["plain", "markdown"] = "plain"
    content: Text


class MessageError(AcpModel):
    """Something that keeps the checkout from going on; ``param`` is a JSONPath into the session."""

    type: Literal["error"] = "error"
    code: MessageErrorCode
    severity: Severity | None = None
    resolution: Resolution | None = None
    param: Text | None = None
    content_type: Literal["plain", "markdown"] = "plain"
    content: Text


Message = Annotated[MessageInfo | MessageWarning | MessageError, Field(discriminator="type")]


class Link(AcpModel):
    """A page of the seller's."""

    type: Literal[
        "terms_of_use",
        "privacy_policy",
        "return_policy",
        "shipping_policy",
        "contact_us",
        "about_us",
        "faq",
        "support",
    ]
    title: Text | None = None
    url: WebUrl


class Coupon(AcpModel):
    """The terms of a discount."""

    id: Id
    name: Text
    percent_off: Number | None = None
    amount_off: Annotated[Amount, Field(ge=0)] | None = None
    currency: Currency | None = None
    duration: Literal["once", "repeating", "forever"] | None = None
    duration_in_months: Annotated[StrictInt, Field(ge=1)] | None = None
    max_redemptions: Annotated[StrictInt, Field(ge=1)] | None = None
    times_redeemed: Annotated[StrictInt, Field(ge=0)] | None = None
    metadata: dict[str, str] | None = None


class DiscountAllocation(AcpModel):
    """Where a part of a discount went; ``path`` is a JSONPath."""

    path: Text
    amount: Annotated[Amount, Field(ge=0)]


class AppliedDiscount(AcpModel):
    """A discount in force."""

    id: Id
    code: Text | None = None
    coupon: Coupon
    amount: Annotated[Amount, Field(ge=0)]
    automatic: StrictBool | None = None
    start: DateTime | None = None
    end: DateTime | None = None
    method: Literal["each", "across"] | None = None
    priority: Annotated[StrictInt, Field(ge=1)] | None = None
    allocations: Many[DiscountAllocation] | None = None


class RejectedDiscount(AcpModel):
    """A discount code that did not apply."""

    code: Text
    reason: DiscountErrorCode
    message: Text | None = None


class DiscountsResponse(AcpModel):
    """What became of the codes."""

    codes: Many[Text] | None = None
    applied: Many[AppliedDiscount] | None = None
    rejected: Many[RejectedDiscount] | None = None


# --- orders --------------------------------------------------------------------------------------------


class EstimatedDelivery(AcpModel):
    """When goods are expected."""

    earliest: DateTime
    latest: DateTime


class OrderConfirmation(AcpModel):
    """The seller's confirmation."""

    confirmation_number: Text | None = None
    confirmation_email_sent: StrictBool | None = None
    receipt_url: WebUrl | None = None
    invoice_number: Text | None = None
    order_notes: Text | None = None


class Support(AcpModel):
    """``SupportInfo``."""

    email: Email | None = None
    phone: Text | None = None
    hours: Text | None = None
    help_center_url: WebUrl | None = None


class OrderQuantity(AcpModel):
    """``OrderLineItemQuantity``: what was ordered, what still counts, what has been handed over."""

    ordered: Quantity
    current: Count
    fulfilled: Count | None = None


class OrderLineItem(AcpModel):
    """A position of an order."""

    id: Id
    title: Text
    product_id: Text | None = None
    description: Text | None = None
    image_url: WebUrl | None = None
    url: WebUrl | None = None
    quantity: OrderQuantity
    unit_price: Amount | None = None
    subtotal: Amount | None = None
    totals: Many[Total] | None = None
    status: Text | None = None


class LineItemReference(AcpModel):
    """Some of a position."""

    id: Id
    quantity: Quantity


class FulfillmentEvent(AcpModel):
    """A step of a delivery."""

    id: Id
    type: Text
    occurred_at: DateTime
    description: Text | None = None
    location: Text | None = None


class DigitalDelivery(AcpModel):
    """Access to digital goods. The license key is shown to the buyer only."""

    access_url: WebUrl | None = None
    license_key: Text | None = None
    expires_at: DateTime | None = None


class Fulfillment(AcpModel):
    """A delivery."""

    id: Id
    type: Literal["shipping", "pickup", "digital"]
    status: Text | None = None
    line_items: Many[LineItemReference] | None = None
    carrier: Text | None = None
    tracking_number: Text | None = None
    tracking_url: WebUrl | None = None
    destination: Address | None = None
    estimated_delivery: EstimatedDelivery | None = None
    digital_delivery: DigitalDelivery | None = None
    description: Text | None = None
    events: Many[FulfillmentEvent] | None = None


class Adjustment(AcpModel):
    """A change of an order after the fact, such as a refund."""

    id: Id
    type: Text
    occurred_at: DateTime
    status: Text
    line_items: Many[LineItemReference] | None = None
    amount: Amount | None = None
    currency: Currency | None = None
    description: Text | None = None
    reason: Text | None = None


class Order(AcpModel):
    """What a completed checkout became."""

    type: Literal["order"] | None = None
    id: Id
    checkout_session_id: Id
    order_number: Text | None = None
    client_reference_id: Text | None = None
    permalink_url: WebUrl
    status: Text | None = None
    estimated_delivery: EstimatedDelivery | None = None
    confirmation: OrderConfirmation | None = None
    support: Support | None = None
    line_items: Many[OrderLineItem] | None = None
    fulfillments: Many[Fulfillment] | None = None
    adjustments: Many[Adjustment] | None = None
    totals: Many[Total] | None = None


class OrderEvent(AcpModel):
    """A webhook's body. Unknown types are to be accepted gracefully."""

    type: Text
    data: Order

    ORDER_CREATE: ClassVar[str] = "order_create"
    ORDER_UPDATE: ClassVar[str] = "order_update"


# --- authentication ------------------------------------------------------------------------------------


class AcquirerDetails(AcpModel):
    """The acquirer of a 3DS authentication."""

    acquirer_bin: Annotated[str, StringConstraints(max_length=11)]
    acquirer_country: Annotated[str, StringConstraints(min_length=2, max_length=2)]
    acquirer_merchant_id: Annotated[str, StringConstraints(max_length=35)]
    merchant_name: Annotated[str, StringConstraints(max_length=40)]
    requestor_id: Annotated[str, StringConstraints(max_length=35)] | None = None


class ChallengePreference(AcpModel):
    """How much a challenge is wanted."""

    type: Literal["mandated", "preferred"] | None = None


class FrictionlessPreference(AcpModel):
    """Why none is wanted."""

    type: Literal["low_risk"] | None = None


class FlowPreference(AcpModel):
    """The seller's wish for a 3DS flow; the issuer decides."""

    type: Literal["challenge", "frictionless"]
    challenge: ChallengePreference | None = None
    frictionless: FrictionlessPreference | None = None


class AuthenticationMetadata(AcpModel):
    """What the agent's side needs for a 3DS authentication; open to further fields by the schema."""

    model_config = ConfigDict(extra="allow")

    acquirer_details: AcquirerDetails
    directory_server: Literal["american_express", "mastercard", "visa"]
    flow_preference: FlowPreference | None = None


# --- sessions, carts, discovery, feeds -----------------------------------------------------------------


class ProtocolVersion(AcpModel):
    """The version that an answer follows."""

    version: Date = API_VERSION


class MarketingConsentOption(AcpModel):
    """A consent that the seller would like."""

    channel: Text
    display_text: Text
    privacy_policy_url: WebUrl
    is_subscribed: StrictBool | None = None


class CheckoutSession(AcpModel):
    """The seller's authoritative state of a checkout (``CheckoutSessionBase``)."""

    id: Id
    protocol: ProtocolVersion | None = None
    capabilities: Capabilities
    buyer: Buyer | None = None
    status: CheckoutStatus
    currency: Currency
    presentment_currency: Text | None = None
    exchange_rate: Number | None = None
    exchange_rate_timestamp: DateTime | None = None
    locale: Text | None = None
    timezone: Text | None = None
    line_items: Many[LineItem]
    fulfillment_details: FulfillmentDetails | None = None
    fulfillment_options: Many[FulfillmentOption]
    selected_fulfillment_options: Many[SelectedFulfillmentOption] | None = None
    fulfillment_groups: Many[FulfillmentGroup] | None = None
    totals: Many[Total]
    messages: Many[Message]
    links: Many[Link]
    authentication_metadata: AuthenticationMetadata | None = None
    created_at: DateTime | None = None
    updated_at: DateTime | None = None
    expires_at: DateTime | None = None
    continue_url: WebUrl | None = None
    metadata: JsonObject | None = None
    quote_id: Text | None = None
    quote_expires_at: DateTime | None = None
    discounts: DiscountsResponse | None = None
    marketing_consent_options: Many[MarketingConsentOption] | None = None
    order: Order | None = None

    def total(self) -> int | None:
        """What is to be paid, in minor units; ``None`` unless exactly one ``total`` is stated."""
        found = [total.amount for total in self.totals if total.type is TotalType.TOTAL]
        return found[0] if len(found) == 1 else None

    def errors(self) -> tuple[MessageError, ...]:
        return tuple(message for message in self.messages if isinstance(message, MessageError))


class Cart(AcpModel):
    """A cart before checkout; its totals are estimates."""

    id: Id
    line_items: Many[LineItem]
    buyer: Buyer | None = None
    currency: Currency
    totals: Many[Total]
    messages: Many[Message] | None = None
    continue_url: WebUrl | None = None
    expires_at: DateTime | None = None


class DiscoveryProtocol(AcpModel):
    """Versions served."""

    name: Literal["acp"] = "acp"
    version: Date = API_VERSION
    supported_versions: Many[Date] = SUPPORTED_VERSIONS
    documentation_url: WebUrl | None = None


class DiscoveryExtension(AcpModel):
    """An extension served."""

    name: Text
    spec: WebUrl | None = None
    schema_: WebUrl | None = Field(default=None, alias="schema")


class DiscoveryCapabilities(AcpModel):
    """What is served."""

    services: Many[Literal["checkout", "orders", "delegate_payment", "carts"]]
    extensions: Many[DiscoveryExtension] | None = None
    intervention_types: Many[Literal["3ds", "biometric", "address_verification"]] | None = None
    supported_currencies: Many[Currency] | None = None
    supported_locales: Many[Text] | None = None


class Discovery(AcpModel):
    """``/.well-known/acp.json``."""

    protocol: DiscoveryProtocol
    api_base_url: WebUrl
    transports: Many[Literal["rest", "mcp"]]
    capabilities: DiscoveryCapabilities


class FeedDescription(AcpModel):
    """Text in one or more formats."""

    plain: Text | None = None
    html: Text | None = None
    markdown: Text | None = None


class FeedPrice(AcpModel):
    """A price in a feed: minor units, ISO 4217 in *upper* case. For showing only."""

    amount: Annotated[Amount, Field(ge=0)]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class FeedAvailability(AcpModel):
    """Whether a variant can be bought."""

    available: StrictBool | None = None
    status: Text | None = None


class FeedBarcode(AcpModel):
    """A GTIN, UPC or the like."""

    type: Text
    value: Text


class FeedMedia(AcpModel):
    """An image or video."""

    type: Text
    url: WebUrl
    alt_text: Text | None = None
    width: StrictInt | None = None
    height: StrictInt | None = None


class FeedCategory(AcpModel):
    """A category in a taxonomy."""

    value: Text
    taxonomy: Text | None = None


class FeedLink(AcpModel):
    """A page of a feed's seller."""

    type: Text
    title: Text | None = None
    url: WebUrl


class FeedSeller(AcpModel):
    """Who sells."""

    name: Text | None = None
    links: Many[FeedLink] | None = None


class FeedMeasure(AcpModel):
    """An amount of goods."""

    value: Number
    unit: Text


class FeedUnitPrice(AcpModel):
    """A price for a reference amount, such as 100 g."""

    amount: Annotated[Amount, Field(ge=0)]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    measure: FeedMeasure
    reference: FeedMeasure


class FeedVariant(AcpModel):
    """Something that can be bought: its ``id`` is the item id of a checkout."""

    id: Id
    title: Text
    description: FeedDescription | None = None
    url: WebUrl | None = None
    barcodes: Many[FeedBarcode] | None = None
    price: FeedPrice | None = None
    list_price: FeedPrice | None = None
    unit_price: FeedUnitPrice | None = None
    availability: FeedAvailability | None = None
    categories: Many[FeedCategory] | None = None
    condition: Many[Text] | None = None
    variant_options: Many[VariantOption] | None = None
    media: Many[FeedMedia] | None = None
    seller: FeedSeller | None = None
    marketplace: FeedSeller | None = None


class FeedProduct(AcpModel):
    """A product and its variants."""

    id: Id
    title: Text | None = None
    description: FeedDescription | None = None
    url: WebUrl | None = None
    media: Many[FeedMedia] | None = None
    variants: Many[FeedVariant]


class FeedMetadata(AcpModel):
    """A feed."""

    id: Id
    target_country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")] | None = None
    updated_at: DateTime | None = None


class FeedProducts(AcpModel):
    """``ProductsResponse``, and the body of a push (``UpsertProductsRequest``)."""

    products: Annotated[tuple[FeedProduct, ...], Field(max_length=10_000)]


class ErrorType(StrEnum):
    """``Error.type``. The checkout schema knows the first three."""

    INVALID_REQUEST = "invalid_request"
    PROCESSING_ERROR = "processing_error"
    SERVICE_UNAVAILABLE = "service_unavailable"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"


class ErrorCode(StrEnum):
    """Codes of HTTP errors that the specification names; sellers may have others."""

    MISSING_API_VERSION = "missing_api_version"
    UNSUPPORTED_API_VERSION = "unsupported_api_version"
    IDEMPOTENCY_KEY_REQUIRED = "idempotency_key_required"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    IDEMPOTENCY_IN_FLIGHT = "idempotency_in_flight"
    INVALID_SIGNATURE = "invalid_signature"
    REQUIRES_3DS = "requires_3ds"
    INVALID_ITEM_ID = "invalid_item_id"
    NOT_FOUND = "not_found"


class ErrorBody(AcpModel):
    """An HTTP error's body: there is no valid session to answer with."""

    type: ErrorType
    code: Text
    message: Text
    param: Text | None = None
    supported_versions: Many[Date] | None = None


# --- requests ------------------------------------------------------------------------------------------


class RequestedItem(AcpModel):
    """What an agent asks for. The published schema has no place for a quantity; every client sends one."""

    id: Id
    quantity: Quantity = 1

    @model_serializer
    def _dumped(self) -> JsonObject:
        """``quantity`` only where it is not 1, so that the common case also fits the published schema."""
        return {"id": self.id} if self.quantity == 1 else {"id": self.id, "quantity": self.quantity}


DiscountCode = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class DiscountsRequest(AcpModel):
    """Discount codes; replaces those sent before."""

    codes: (
        Annotated[tuple[Annotated[str, StringConstraints(max_length=100)], ...], Field(max_length=20)] | None
    ) = None


RequestedItems = Annotated[tuple[RequestedItem, ...], Field(min_length=1, max_length=MAX_LIST_ITEMS)]
OrderNotes = Annotated[str, StringConstraints(max_length=MAX_ORDER_NOTES_CHARS)]


class AffiliateAttribution(AcpModel):
    """Who brought the buyer; write-only, open to further fields by the schema. The token is a secret."""

    model_config = ConfigDict(extra="allow")

    provider: Text
    token: SecretStr | None = None
    publisher_id: Text | None = None
    touchpoint: Literal["first", "last"] | None = None

    @field_serializer("token")
    def _token(self, value: SecretStr | None, info: SerializationInfo) -> str | None:
        return None if value is None else masked_secret(value, info)


class CheckoutCreateRequest(AcpModel):
    """``POST /checkout_sessions``. A reader fills a missing ``currency`` with the seller's own."""

    line_items: RequestedItems
    currency: Currency | None = None
    capabilities: Capabilities = Capabilities()
    buyer: Buyer | None = None
    fulfillment_details: FulfillmentDetails | None = None
    fulfillment_groups: Many[FulfillmentGroup] | None = None
    discounts: DiscountsRequest | None = None
    affiliate_attribution: AffiliateAttribution | None = None
    locale: Text | None = None
    timezone: Text | None = None
    quote_id: Text | None = None
    metadata: JsonObject | None = None
    order_notes: OrderNotes | None = None


class CheckoutUpdateRequest(AcpModel):
    """``POST /checkout_sessions/{id}``: absent fields stay as they are; lists replace what was there."""

    line_items: (
        Annotated[tuple[RequestedItem, ...], Field(min_length=1, max_length=MAX_LIST_ITEMS)] | None
    ) = None
    buyer: Buyer | None = None
    fulfillment_details: FulfillmentDetails | None = None
    fulfillment_groups: Many[FulfillmentGroup] | None = None
    selected_fulfillment_options: Many[SelectedFulfillmentOption] | None = None
    discounts: DiscountsRequest | None = None
    order_notes: OrderNotes | None = None


class PaymentCredential(AcpModel):
    """What pays: ``spt`` (shared payment token) and the token, a secret."""

    type: Text = "spt"
    token: SecretStr

    @field_serializer("token")
    def _token(self, value: SecretStr, info: SerializationInfo) -> str:
        return masked_secret(value, info)


class PaymentInstrument(AcpModel):
    """A credential and its kind (``card``)."""

    type: Text = "card"
    credential: PaymentCredential


class PaymentData(AcpModel):
    """How a checkout is paid."""

    handler_id: Text | None = None
    instrument: PaymentInstrument | None = None
    billing_address: Address | None = None
    purchase_order_number: Text | None = None
    payment_terms: Literal["immediate", "net_15", "net_30", "net_60", "net_90"] | None = None
    due_date: DateTime | None = None
    approval_required: StrictBool | None = None


class RiskSignals(AcpModel):
    """What the agent's side knows of the buyer's device."""

    ip_address: Text | None = None
    user_agent: Text | None = None
    accept_language: Text | None = None
    session_id: Text | None = None
    device_fingerprint: Text | None = None


class MarketingConsent(AcpModel):
    """A buyer's consent."""

    channel: Text
    opted_in: StrictBool


class CheckoutCompleteRequest(AcpModel):
    """``POST /checkout_sessions/{id}/complete``."""

    payment_data: PaymentData
    buyer: Buyer | None = None
    authentication_result: AuthenticationResult | None = None
    risk_signals: RiskSignals | None = None
    affiliate_attribution: AffiliateAttribution | None = None
    marketing_consents: Many[MarketingConsent] | None = None
    order_notes: OrderNotes | None = None


class IntentTrace(AcpModel):
    """Why a checkout was given up."""

    reason_code: Literal[
        "price_sensitivity",
        "shipping_cost",
        "shipping_speed",
        "product_fit",
        "trust_security",
        "returns_policy",
        "payment_options",
        "comparison",
        "timing_deferred",
        "other",
    ]
    trace_summary: Annotated[str, StringConstraints(max_length=500)] | None = None
    metadata: JsonObject | None = None


class CheckoutCancelRequest(AcpModel):
    """``POST /checkout_sessions/{id}/cancel``; the body may be absent."""

    intent_trace: IntentTrace | None = None


class CartRequest(AcpModel):
    """``POST /carts`` and ``PUT /carts/{id}`` (full replacement)."""

    line_items: RequestedItems
    buyer: Buyer | None = None
    locale: Text | None = None


# --- reading -------------------------------------------------------------------------------------------

M = TypeVar("M", bound=AcpModel)


def decode_json(raw: bytes | str, what: str) -> JsonValue:
    """A JSON document as Python values, or :class:`ProtocolViolationError`; NaN is refused."""
    if len(raw) > MAX_BODY_BYTES:
        raise ProtocolViolationError(what, [("$", f"larger than {MAX_BODY_BYTES} bytes")])

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        decoded: JsonValue = json.loads(raw, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise ProtocolViolationError(what, [("$", "not a JSON document")]) from None
    return decoded


def _problems(error: ValidationError) -> list[tuple[str, str]]:
    """Places and rules; never the offending values, which may be credentials or personal data."""
    found = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        path = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in one["loc"])
        found.append((path, one["msg"]))
    return found


def validate(model: type[M], value: object, what: str) -> M:
    """A shape from decoded JSON: unknown fields ignored, known ones held to the protocol."""
    try:
        return model.model_validate(value, extra="ignore")
    except ValidationError as error:
        raise ProtocolViolationError(what, _problems(error)) from None


def read(model: type[M], raw: bytes | str, what: str) -> M:
    """A shape of this module from JSON: unknown fields ignored, known ones held to the protocol."""
    return validate(model, decode_json(raw, what), what)


def read_session(raw: bytes | str) -> CheckoutSession:
    """A seller's answer. Raises :class:`ProtocolViolationError`; for sums see :func:`problems_of_totals`."""
    return read(CheckoutSession, raw, "the checkout session")


def read_order(raw: bytes | str) -> Order:
    return read(Order, raw, "the order")


def read_order_event(raw: bytes | str) -> OrderEvent:
    return read(OrderEvent, raw, "the order event")


def read_cart(raw: bytes | str) -> Cart:
    return read(Cart, raw, "the cart")


def read_discovery(raw: bytes | str) -> Discovery:
    return read(Discovery, raw, "the discovery document")


def read_products(raw: bytes | str) -> FeedProducts:
    return read(FeedProducts, raw, "the product feed")


def read_error(raw: bytes | str) -> ErrorBody | None:
    """An error's body, or ``None`` where a peer (or a proxy before it) answered something else."""
    try:
        return read(ErrorBody, raw, "the error")
    except ProtocolViolationError:
        return None
