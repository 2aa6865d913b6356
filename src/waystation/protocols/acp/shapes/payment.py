"""How a seller can be paid, and what both sides are capable of."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
)

from waystation.models.base import JsonObject
from waystation.models.commerce import (
    Many,
    Text,
)
from waystation.protocols.acp.shapes.base import MAX_ID_CHARS, AcpModel, Date, Id, WebUrl


class InterventionCapabilities(AcpModel):
    """What a buyer can be asked to do during checkout."""

    supported: Many[Literal["3ds", "biometric", "address_verification"]] | None = None
    required: Many[Literal["3ds", "biometric"]] | None = None
    enforcement: Literal["always", "conditional", "optional"] | None = None
    display_context: Literal["native", "webview", "modal", "redirect"] | None = None
    redirect_context: Literal["in_app", "external_browser", "none"] | None = None
    max_redirects: Annotated[StrictInt, Field(ge=0)] | None = None
    max_interaction_depth: Annotated[StrictInt, Field(ge=1)] | None = None


_SIMPLE_NAME = r"[a-z][a-z0-9_-]*"
_DOTTED_NAME = r"[a-z][a-z0-9]*(\.[a-z][a-z0-9_-]*)+"
_EXTENSION = StringConstraints(pattern=rf"^({_SIMPLE_NAME}|{_DOTTED_NAME})(@\d{{4}}-\d{{2}}-\d{{2}})?$")
_SCHEMA_PATH = StringConstraints(pattern=r"^\$\.[A-Za-z][A-Za-z0-9]*(\.[A-Za-z][A-Za-z0-9_]*)*$")


class ExtensionDeclaration(AcpModel):
    """An extension that is active in a session."""

    name: Annotated[str, _EXTENSION]
    extends: Many[Annotated[str, _SCHEMA_PATH]] | None = None
    schema_: WebUrl | None = Field(default=None, alias="schema")
    spec: WebUrl | None = None


class PaymentHandler(AcpModel):
    """One way in which the seller can be paid."""

    id: Id
    name: Text
    display_name: Text | None = None
    version: Date
    spec: WebUrl
    requires_delegate_payment: StrictBool
    requires_pci_compliance: StrictBool
    psp: Text
    config_schema: WebUrl
    instrument_schemas: Many[WebUrl]
    config: JsonObject
    display_order: StrictInt | None = None

    @property
    def merchant_id(self) -> str | None:
        """The seller's account with the processor: what a payment token is scoped to."""
        found = self.config.get("merchant_id")
        return found if isinstance(found, str) and 0 < len(found) <= MAX_ID_CHARS else None


class Payment(AcpModel):
    """The seller's payment handlers."""

    handlers: Many[PaymentHandler]


class Capabilities(AcpModel):
    """What one side can do. Sellers state ``payment``; agents state plain extension names."""

    payment: Payment | None = None
    interventions: InterventionCapabilities | None = None
    extensions: Many[Text | ExtensionDeclaration] | None = None
