"""Discounts that were applied or rejected (discount extension)."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    StrictBool,
    StrictInt,
)

from waystation.models.commerce import (
    DateTime,
    Many,
    Text,
)
from waystation.protocols.acp.shapes.base import AcpModel, Amount, Currency, Id, Number
from waystation.protocols.acp.shapes.messages import DiscountErrorCode


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
    """An active discount."""

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
    """Which codes were applied and which were rejected."""

    codes: Many[Text] | None = None
    applied: Many[AppliedDiscount] | None = None
    rejected: Many[RejectedDiscount] | None = None
