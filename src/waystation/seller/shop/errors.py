"""Errors of the seller kit: those that a merchant's code raises, and those that are answered over HTTP."""

from collections.abc import Mapping

from waystation.errors import WaystationError
from waystation.models.base import JsonObject
from waystation.protocols.acp import (
    HEADER_RETRY_AFTER,
    SUPPORTED_VERSIONS,
    ErrorBody,
    ErrorCode,
    ErrorType,
)

# Raised by a merchant's code


class MerchantError(WaystationError):
    """Base of the errors with which a merchant's code refuses."""


class UnknownItemError(MerchantError):
    """There is no such item: answered 400 ``invalid_item_id``."""

    def __init__(self, item_id: str) -> None:
        self.item_id = item_id
        super().__init__(f"The item ID '{item_id}' does not exist.")


class UnsupportedCurrencyError(MerchantError):
    """The shop doesn't sell in that currency: answered 400 ``unsupported_currency``."""


class OutOfStockError(MerchantError):
    """Not enough left to reserve: the checkout stays open with a message ``out_of_stock``."""

    def __init__(self, item_id: str, available: int) -> None:
        self.item_id = item_id
        self.available = available
        super().__init__(f"Only {available} of '{item_id}' left.")


class OrderRefusedError(MerchantError):
    """A paid order can't be taken after all: the charge is refunded and the checkout canceled."""


# Answered over HTTP


class AcpError(Exception):
    """An HTTP error answer of the protocol (there is no valid session to answer with)."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        kind: ErrorType = ErrorType.INVALID_REQUEST,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        supported_versions: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body = ErrorBody(
            type=kind, code=code, message=message, param=param, supported_versions=supported_versions
        )

    def wire(self) -> JsonObject:
        return self.body.wire()


def not_found(what: str, param: str | None = None) -> AcpError:
    return AcpError(404, ErrorCode.NOT_FOUND, f"There is no such {what}.", param=param)


def conflict(message: str) -> AcpError:
    return AcpError(409, "conflict", message)


def busy() -> AcpError:
    """Returns the error for a checkout that another request is changing. Nothing was done here."""
    return AcpError(
        409,
        "conflict",
        "The checkout is being changed by another request. Try again.",
        headers={HEADER_RETRY_AFTER: "1"},
    )


def payment_unknown() -> AcpError:
    """Returns the error for a processor that has not answered.

    Retry with the same idempotency key, or read the checkout.
    """
    return AcpError(
        503,
        "payment_pending",
        "The payment processor has not answered. Retry with the same Idempotency-Key or read the checkout.",
        kind=ErrorType.SERVICE_UNAVAILABLE,
        headers={HEADER_RETRY_AFTER: "1"},
    )


def payment_unavailable() -> AcpError:
    """Returns the error for a processor that refuses the seller itself (its key, its rights)."""
    return AcpError(
        502,
        "payment_unavailable",
        "The seller can't take payments right now. Nothing was charged.",
        kind=ErrorType.PROCESSING_ERROR,
    )


def version_error(given: str | None) -> AcpError:
    if not given:
        return AcpError(
            400,
            ErrorCode.MISSING_API_VERSION,
            f"The API-Version header is required, for example {SUPPORTED_VERSIONS[0]}.",
            supported_versions=SUPPORTED_VERSIONS,
        )
    return AcpError(
        400,
        ErrorCode.UNSUPPORTED_API_VERSION,
        f"This API-Version is not supported; use {', '.join(SUPPORTED_VERSIONS)}.",
        supported_versions=SUPPORTED_VERSIONS,
    )
