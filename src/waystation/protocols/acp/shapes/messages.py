"""What a seller tells an agent in addition to the amounts: messages and links."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import (
    Field,
    JsonValue,
)

from waystation.models.commerce import (
    Text,
)
from waystation.protocols.acp.shapes.base import StatedModel, WebUrl, known_or_stated


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
    """``MessageWarning.code``, in addition to those of ``DiscountErrorCode``."""

    LOW_STOCK = "low_stock"
    HIGH_DEMAND = "high_demand"
    SHIPPING_DELAY = "shipping_delay"
    PRICE_CHANGE = "price_change"
    EXPIRING_PROMOTION = "expiring_promotion"
    LIMITED_AVAILABILITY = "limited_availability"


Severity = Literal["info", "low", "medium", "high", "critical"]
Resolution = Literal["recoverable", "requires_buyer_input", "requires_buyer_review"]
_TYPE = frozenset({"type"})
_NO_TEXT: Mapping[str, JsonValue] = {"code": "unknown", "content": ""}


class MessageInfo(StatedModel):
    """Something to know."""

    DECIDES: ClassVar = _TYPE
    UNREAD: ClassVar = {"content": ""}

    type: Literal["info"] = "info"
    severity: Severity | None = None
    resolution: Resolution | None = None
    param: Text | None = None
    content_type: Literal["plain", "markdown"] = "plain"
    content: Text


class MessageWarning(StatedModel):
    """Something to heed."""

    DECIDES: ClassVar = _TYPE
    UNREAD: ClassVar = _NO_TEXT

    type: Literal["warning"] = "warning"
    code: Annotated[Text, known_or_stated(MessageWarningCode, DiscountErrorCode)]
    severity: Severity | None = None
    resolution: Resolution | None = None
    param: Text | None = None
    content_type: Literal["plain", "markdown"] = "plain"
    content: Text


class MessageError(StatedModel):
    """Something that blocks the checkout, whatever its code; ``param`` is a JSONPath into the session."""

    DECIDES: ClassVar = _TYPE
    UNREAD: ClassVar = _NO_TEXT

    type: Literal["error"] = "error"
    code: Annotated[Text, known_or_stated(MessageErrorCode)]
    severity: Severity | None = None
    resolution: Resolution | None = None
    param: Text | None = None
    content_type: Literal["plain", "markdown"] = "plain"
    content: Text


Message = Annotated[MessageInfo | MessageWarning | MessageError, Field(discriminator="type")]


class Link(StatedModel):
    """A page of the seller's."""

    DECIDES: ClassVar = frozenset({"type", "url"})

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
