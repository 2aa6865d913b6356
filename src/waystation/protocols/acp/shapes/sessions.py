"""A seller's answers: checkout sessions and carts."""

from typing import ClassVar, Literal

from pydantic import (
    StrictBool,
)

from waystation.models.base import JsonObject
from waystation.models.commerce import (
    Buyer,
    CheckoutStatus,
    DateTime,
    FulfillmentDetails,
    Many,
    Text,
)
from waystation.protocols.acp.shapes.authentication import AuthenticationMetadata
from waystation.protocols.acp.shapes.base import (
    API_VERSION,
    AcpModel,
    Currency,
    Date,
    Id,
    Number,
    StatedModel,
    WebUrl,
)
from waystation.protocols.acp.shapes.discounts import DiscountsResponse
from waystation.protocols.acp.shapes.fulfillment import (
    FulfillmentGroup,
    FulfillmentOption,
    SelectedFulfillmentOption,
)
from waystation.protocols.acp.shapes.lines import LineItem, Total, TotalType
from waystation.protocols.acp.shapes.messages import Link, Message, MessageError
from waystation.protocols.acp.shapes.orders import Order
from waystation.protocols.acp.shapes.payment import Capabilities


class ProtocolVersion(AcpModel):
    """The version that an answer follows."""

    version: Date = API_VERSION


class MarketingConsentOption(AcpModel):
    """A consent that the seller would like."""

    channel: Text
    display_text: Text
    privacy_policy_url: WebUrl
    is_subscribed: StrictBool | None = None


class CheckoutSession(StatedModel):
    """The seller's authoritative state of a checkout (``CheckoutSessionBase``)."""

    DECIDES: ClassVar = frozenset(
        {
            "id",
            "status",
            "currency",
            "line_items",
            "totals",
            "fulfillment_details",
            "selected_fulfillment_options",
            "expires_at",
            "quote_expires_at",
        }
    )
    # Without a fallback, ``messages`` must be a list: an error in it may stand against paying.
    UNREAD: ClassVar = {"capabilities": {}, "fulfillment_options": [], "links": []}

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
        """Returns what is to be paid, in minor units; ``None`` unless exactly one ``total`` is stated."""
        found = [total.amount for total in self.totals if total.type is TotalType.TOTAL]
        return found[0] if len(found) == 1 else None

    def errors(self) -> tuple[MessageError, ...]:
        return tuple(message for message in self.messages if isinstance(message, MessageError))


class CompletedSession(AcpModel):
    """A session that has become an order, reduced to what then matters."""

    id: Id
    status: Literal[CheckoutStatus.COMPLETED]
    order: Order


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
