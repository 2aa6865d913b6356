"""What agents send: requests to create, update, complete and cancel checkouts, and carts."""

from typing import Annotated, Literal

from pydantic import (
    ConfigDict,
    Field,
    SecretStr,
    SerializationInfo,
    StrictBool,
    StringConstraints,
    field_serializer,
    model_serializer,
)

from waystation.models.base import JsonObject
from waystation.models.commerce import (
    MAX_LIST_ITEMS,
    Address,
    AuthenticationResult,
    Buyer,
    DateTime,
    FulfillmentDetails,
    Many,
    Text,
    masked_secret,
)
from waystation.protocols.acp.shapes.base import MAX_ORDER_NOTES_CHARS, AcpModel, Currency, Id, Quantity
from waystation.protocols.acp.shapes.fulfillment import FulfillmentGroup, SelectedFulfillmentOption
from waystation.protocols.acp.shapes.payment import Capabilities


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
    """Why a checkout was abandoned."""

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
