"""Error answers."""

from enum import StrEnum

from waystation.models.commerce import (
    Many,
    Text,
)
from waystation.protocols.acp.shapes.base import AcpModel, Date


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
