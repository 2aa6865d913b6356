"""What a seller says about itself at ``/.well-known/acp.json``."""

from typing import Literal

from pydantic import (
    Field,
)

from waystation.models.commerce import (
    Many,
    Text,
)
from waystation.protocols.acp.shapes.base import (
    API_VERSION,
    SUPPORTED_VERSIONS,
    AcpModel,
    Currency,
    Date,
    WebUrl,
)


class DiscoveryProtocol(AcpModel):
    """Versions served."""

    name: Literal["acp"] = "acp"
    version: Date = API_VERSION
    supported_versions: Many[Date] = SUPPORTED_VERSIONS
    documentation_url: WebUrl | None = None


class DiscoveryExtension(AcpModel):
    """An extension served."""

    name: Text
    spec: WebUrl | None = None
    schema_: WebUrl | None = Field(default=None, alias="schema")


class DiscoveryCapabilities(AcpModel):
    """What is served."""

    services: Many[Literal["checkout", "orders", "delegate_payment", "carts"]]
    extensions: Many[DiscoveryExtension] | None = None
    intervention_types: Many[Literal["3ds", "biometric", "address_verification"]] | None = None
    supported_currencies: Many[Currency] | None = None
    supported_locales: Many[Text] | None = None


class Discovery(AcpModel):
    """``/.well-known/acp.json``."""

    protocol: DiscoveryProtocol
    api_base_url: WebUrl
    transports: Many[Literal["rest", "mcp"]]
    capabilities: DiscoveryCapabilities
