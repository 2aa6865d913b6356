"""The one place that decides whether a failed call to a seller or processor is tried again.

Activities raise what these functions return; clients' own retries are off. A failure is
*retryable* (Temporal tries again by the workflow's policy, after ``Retry-After`` if the
peer asked for that) or *final*. Texts never hold tokens, keys or bodies.
"""

from typing import Final

import httpx
import stripe
from temporalio.exceptions import ApplicationError

from activities.contract import (
    PAYMENT_METHOD_DECLINED,
    PROCESSOR_REFUSED,
    PROCESSOR_UNAVAILABLE,
    SELLER_ANSWER_INVALID,
    SELLER_REFUSED,
    SELLER_UNAVAILABLE,
)
from waystation.buyer.origins import RequestInvalidError
from waystation.protocols.acp import HEADER_RETRY_AFTER, ProtocolViolationError, read_error
from waystation.redaction import redact
from waystation.retry_after import retry_after

MAX_TEXT_CHARS: Final = 300

_RETRYABLE_STATUS: Final = frozenset({408, 425, 429})
_IN_FLIGHT: Final = "idempotency_in_flight"


def seller_unreachable(error: httpx.HTTPError, what: str) -> ApplicationError:
    """Returns the failure for no HTTP answer at all."""
    return ApplicationError(
        f"the seller did not answer the {what} ({type(error).__name__}); it is tried again",
        type=SELLER_UNAVAILABLE,
    )


def seller_out_of_bounds(error: RequestInvalidError) -> ApplicationError:
    """Returns the failure for a seller where requests must not go: nothing was sent."""
    return ApplicationError(str(error), error.rule, type=SELLER_REFUSED, non_retryable=True)


def seller_error(response: httpx.Response, body: bytes, what: str) -> ApplicationError:
    """Returns the failure for an HTTP status other than 2xx."""
    error = read_error(body)
    code = error.code if error else f"http_{response.status_code}"
    said = f": {redact(error.message)[:MAX_TEXT_CHARS]}" if error else ""
    message = f"the seller answered the {what} with {response.status_code} {code}{said}"
    wait = retry_after(response.headers.get(HEADER_RETRY_AFTER))
    if response.status_code >= 500 or response.status_code in _RETRYABLE_STATUS or code == _IN_FLIGHT:
        return ApplicationError(message, code, type=SELLER_UNAVAILABLE, next_retry_delay=wait)
    param = error.param if error else None
    return ApplicationError(
        message, code, response.status_code, param, type=SELLER_REFUSED, non_retryable=True
    )


def seller_violation(error: ProtocolViolationError) -> ApplicationError:
    """Returns the failure for an answer that breaks the protocol; names places and rules, never values."""
    return ApplicationError(redact(str(error)), type=SELLER_ANSWER_INVALID, non_retryable=True)


def processor_error(error: stripe.StripeError, what: str) -> ApplicationError:
    """Returns the failure for whatever Stripe's client raises."""
    said = redact(str(error.user_message or type(error).__name__))[:MAX_TEXT_CHARS]
    message = f"the processor did not {what}: {said}"
    status, code, param = error.http_status, error.code, getattr(error, "param", None)
    if isinstance(error, stripe.CardError):
        return ApplicationError(message, code, type=PAYMENT_METHOD_DECLINED, non_retryable=True)
    final = isinstance(
        error,
        stripe.InvalidRequestError
        | stripe.AuthenticationError
        | stripe.PermissionError
        | stripe.IdempotencyError,
    )
    if final and status != 409:
        return ApplicationError(message, code, status, param, type=PROCESSOR_REFUSED, non_retryable=True)
    headers = error.headers or {}
    wait = retry_after(headers.get("Retry-After") or headers.get("retry-after"))
    return ApplicationError(message, code, type=PROCESSOR_UNAVAILABLE, next_retry_delay=wait)
