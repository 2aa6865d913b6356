"""How a seller can be paid, and what both sides are capable of."""

from typing import Annotated, ClassVar, Literal

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
from waystation.protocols.acp.shapes.base import MAX_ID_CHARS, AcpModel, Date, Id, StatedModel, WebUrl


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


class PaymentHandler(StatedModel):
    """One way in which the seller can be paid."""

    DECIDES: ClassVar = frozenset({"id", "name", "psp", "requires_pci_compliance", "config"})
    UNREAD: ClassVar = {
        "version": None,
        "spec": None,
        "requires_delegate_payment": None,
        "config_schema": None,
        "instrument_schemas": [],
    }

    id: Id
    name: Text
    display_name: Text | None = None
    version: Date | None
    spec: WebUrl | None
    requires_delegate_payment: StrictBool | None
    requires_pci_compliance: StrictBool
    psp: Text
    config_schema: WebUrl | None
    instrument_schemas: Many[WebUrl]
    config: JsonObject
    display_order: StrictInt | None = None

    @property
    def merchant_id(self) -> str | None:
        """The seller's account with the processor: what a payment token is scoped to."""
        found = self.config.get("merchant_id")
        return found if isinstance(found, str) and 0 < len(found) <= MAX_ID_CHARS else None


class Payment(StatedModel):
    """The seller's payment handlers. One that can't be read is none."""

    DECIDES: ClassVar = frozenset[str]()

    handlers: Many[PaymentHandler]


class Capabilities(StatedModel):
    """What one side can do. Sellers state ``payment``; agents state plain extension names."""

    DECIDES: ClassVar = frozenset({"payment"})

    payment: Payment | None = None
    interventions: InterventionCapabilities | None = None
    extensions: Many[Text | ExtensionDeclaration] | None = None
