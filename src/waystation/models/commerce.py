"""What purchases and ACP checkouts have in common: statuses, people and places, 3-D Secure.

Shapes and names are those of the Agentic Commerce Protocol (version 2026-04-17). They are defined here
because our own requests and views carry them; ``waystation.protocols.acp`` builds the wire shapes on them.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    SerializationInfo,
    StrictInt,
    StringConstraints,
    field_serializer,
)

from waystation.models.base import Frozen
from waystation.rfc3339 import parse_rfc3339

MAX_TEXT_CHARS: Final = 20_000
MAX_LIST_ITEMS: Final = 1_000


def _rfc3339(value: str) -> str:
    parse_rfc3339(value)
    return value


Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]
DateTime = Annotated[str, StringConstraints(max_length=64), AfterValidator(_rfc3339)]
"""A date-time as it was stated; ``parse_rfc3339`` gives the moment."""
Email = Annotated[str, StringConstraints(max_length=320, pattern=r"^[^@\s]+@[^@\s]+$")]

T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(max_length=MAX_LIST_ITEMS)]

# Checkouts

FulfillmentType = Literal["shipping", "digital", "pickup", "local_delivery"]


class CheckoutStatus(StrEnum):
    """Every status of an ACP checkout session (``CheckoutSessionBase.status``)."""

    INCOMPLETE = "incomplete"
    NOT_READY_FOR_PAYMENT = "not_ready_for_payment"
    READY_FOR_PAYMENT = "ready_for_payment"
    AUTHENTICATION_REQUIRED = "authentication_required"
    REQUIRES_ESCALATION = "requires_escalation"
    PENDING_APPROVAL = "pending_approval"
    COMPLETE_IN_PROGRESS = "complete_in_progress"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELED = "canceled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can change any more."""
        return self in TERMINAL_STATUSES

    @property
    def is_completing(self) -> bool:
        """Whether the seller is working on it: poll, don't act."""
        return self in (CheckoutStatus.COMPLETE_IN_PROGRESS, CheckoutStatus.IN_PROGRESS)

    @property
    def is_open(self) -> bool:
        """Whether the agent may still edit it."""
        return not self.is_terminal and not self.is_completing


TERMINAL_STATUSES: Final = frozenset(
    {CheckoutStatus.COMPLETED, CheckoutStatus.CANCELED, CheckoutStatus.EXPIRED}
)


# People and places


class Address(Frozen):
    """A postal address; ``country`` is ISO 3166-1 alpha-2."""

    name: Text
    line_one: Text
    line_two: Text | None = None
    city: Text
    state: Text
    country: Text
    postal_code: Text
    company: Text | None = None


class FulfillmentDetails(Frozen):
    """Where goods go, and to whom."""

    name: Text | None = None
    phone_number: Text | None = None
    email: Email | None = None
    address: Address | None = None


class Company(Frozen):
    """A buyer that is an organization (``CompanyInfo``)."""

    name: Text
    tax_id: Text | None = None
    department: Text | None = None
    cost_center: Text | None = None


class Loyalty(Frozen):
    """A buyer's standing with the seller (``LoyaltyInfo``)."""

    tier: Text | None = None
    points_balance: StrictInt | None = None
    member_since: DateTime | None = None


class TaxExemption(Frozen):
    """A buyer's tax certificate."""

    certificate_id: Text
    certificate_type: Literal["resale", "exempt_organization", "government"]
    exempt_regions: Many[Text] | None = None
    expires_at: DateTime | None = None


class Buyer(Frozen):
    """Who buys."""

    first_name: Text | None = None
    last_name: Text | None = None
    full_name: Text | None = None
    email: Email
    phone_number: Text | None = None
    customer_id: Text | None = None
    account_type: Literal["guest", "registered", "business"] | None = None
    authentication_status: Literal["authenticated", "guest", "requires_signin"] | None = None
    company: Company | None = None
    loyalty: Loyalty | None = None
    tax_exemption: TaxExemption | None = None


# 3-D Secure


class AuthenticationOutcomeDetails(Frozen):
    """The proof of a 3DS authentication. The cryptogram is a secret."""

    three_ds_cryptogram: SecretStr
    electronic_commerce_indicator: Literal["01", "02", "05", "06", "07"]
    transaction_id: Text
    version: Text

    @field_serializer("three_ds_cryptogram")
    def _cryptogram(self, value: SecretStr, info: SerializationInfo) -> str:
        return masked_secret(value, info)


class AuthenticationOutcome(StrEnum):
    """``AuthenticationResult.outcome``."""

    ABANDONED = "abandoned"
    ATTEMPT_ACKNOWLEDGED = "attempt_acknowledged"
    AUTHENTICATED = "authenticated"
    CANCELED = "canceled"
    DENIED = "denied"
    INFORMATIONAL = "informational"
    INTERNAL_ERROR = "internal_error"
    NOT_SUPPORTED = "not_supported"
    PROCESSING_ERROR = "processing_error"
    REJECTED = "rejected"

    @property
    def allows_payment(self) -> bool:
        """Whether a payment may follow this outcome."""
        return self in (
            AuthenticationOutcome.AUTHENTICATED,
            AuthenticationOutcome.ATTEMPT_ACKNOWLEDGED,
            AuthenticationOutcome.INFORMATIONAL,
        )


class AuthenticationResult(Frozen):
    """The result of a 3DS authentication; outcomes that allow payment must carry their proof."""

    outcome: AuthenticationOutcome
    outcome_details: AuthenticationOutcomeDetails | None = None

    def model_post_init(self, context: object, /) -> None:
        if self.outcome.allows_payment and self.outcome_details is None:
            raise ValueError(f"outcome_details is required with outcome {self.outcome.value}")


def masked_secret(value: SecretStr, info: SerializationInfo) -> str:
    """Returns the secret in clear for ``AcpModel.wire`` only, and asterisks for any other dump."""
    reveal = isinstance(info.context, Mapping) and info.context.get("reveal_credentials") is True
    return value.get_secret_value() if reveal else "**********"
