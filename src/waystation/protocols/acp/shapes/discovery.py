"""What a seller says about itself at ``/.well-known/acp.json``."""

from typing import ClassVar, Literal

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
    StatedModel,
    WebUrl,
)


class DiscoveryProtocol(StatedModel):
    """Versions served."""

    DECIDES: ClassVar = frozenset[str]()

    name: Literal["acp"] = "acp"
    version: Date = API_VERSION
    supported_versions: Many[Date] = SUPPORTED_VERSIONS
    documentation_url: WebUrl | None = None


class DiscoveryExtension(AcpModel):
    """An extension served."""

    name: Text
    spec: WebUrl | None = None
    schema_: WebUrl | None = Field(default=None, alias="schema")


class DiscoveryCapabilities(StatedModel):
    """What is served."""

    DECIDES: ClassVar = frozenset[str]()

    services: Many[Literal["checkout", "orders", "delegate_payment", "carts"]]
    extensions: Many[DiscoveryExtension] | None = None
    intervention_types: Many[Literal["3ds", "biometric", "address_verification"]] | None = None
    supported_currencies: Many[Currency] | None = None
    supported_locales: Many[Text] | None = None


class Discovery(StatedModel):
    """``/.well-known/acp.json``."""

    DECIDES: ClassVar = frozenset({"protocol", "api_base_url", "capabilities"})

    protocol: DiscoveryProtocol
    api_base_url: WebUrl
    transports: Many[Literal["rest", "mcp"]]
    capabilities: DiscoveryCapabilities
