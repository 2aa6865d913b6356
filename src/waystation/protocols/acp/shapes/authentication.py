"""What an agent needs for an issuer authentication (3-D Secure)."""

from typing import Annotated, Literal

from pydantic import (
    ConfigDict,
    StringConstraints,
)

from waystation.protocols.acp.shapes.base import AcpModel


class AcquirerDetails(AcpModel):
    """The acquirer of a 3DS authentication."""

    acquirer_bin: Annotated[str, StringConstraints(max_length=11)]
    acquirer_country: Annotated[str, StringConstraints(min_length=2, max_length=2)]
    acquirer_merchant_id: Annotated[str, StringConstraints(max_length=35)]
    merchant_name: Annotated[str, StringConstraints(max_length=40)]
    requestor_id: Annotated[str, StringConstraints(max_length=35)] | None = None


class ChallengePreference(AcpModel):
    """How strongly the seller wants a challenge."""

    type: Literal["mandated", "preferred"] | None = None


class FrictionlessPreference(AcpModel):
    """Why the seller wants no challenge."""

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
