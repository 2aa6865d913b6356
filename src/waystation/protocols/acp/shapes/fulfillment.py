"""How goods reach the buyer: shipping, download, pickup, local delivery."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import (
    Field,
    JsonValue,
)

from waystation.models.commerce import (
    Address,
    DateTime,
    FulfillmentDetails,
    FulfillmentType,
    Many,
    Text,
)
from waystation.protocols.acp.shapes.base import AcpModel, Id, Number, StatedModel
from waystation.protocols.acp.shapes.lines import Total

_OFFER = frozenset({"type", "id", "totals"})
_NO_TITLE: Mapping[str, JsonValue] = {"title": ""}


class ShippingOption(StatedModel):
    """``FulfillmentOptionShipping``."""

    DECIDES: ClassVar = _OFFER
    UNREAD: ClassVar = _NO_TITLE

    type: Literal["shipping"] = "shipping"
    id: Id
    title: Text
    description: Text | None = None
    carrier: Text | None = None
    earliest_delivery_time: DateTime | None = None
    latest_delivery_time: DateTime | None = None
    totals: Many[Total]


class DigitalOption(StatedModel):
    """``FulfillmentOptionDigital``."""

    DECIDES: ClassVar = _OFFER
    UNREAD: ClassVar = _NO_TITLE

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


class PickupOption(StatedModel):
    """``FulfillmentOptionPickup``."""

    DECIDES: ClassVar = _OFFER
    UNREAD: ClassVar = _NO_TITLE

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


class LocalDeliveryOption(StatedModel):
    """``FulfillmentOptionLocalDelivery``."""

    DECIDES: ClassVar = _OFFER
    UNREAD: ClassVar = _NO_TITLE

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
    """Which items use which option. ``item_ids`` are ids of items or of line items."""

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
