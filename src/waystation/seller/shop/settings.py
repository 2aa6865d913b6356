"""Settings of a seller."""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field, SecretStr, StrictInt

from waystation.models.base import Frozen
from waystation.protocols import acp
from waystation.seller.shop.records import WebhookTarget

HANDLER_ID: Final = "card_tokenized"


class SellerSettings(Frozen):
    """What the kit needs to know about a seller.

    ``api_keys`` maps an agent's identity to its bearer key. ``merchant_id`` is the seller's profile at the
    processor, to which agents scope their tokens. ``stripe_api_base`` points at the sandbox processor.
    """

    base_url: acp.WebUrl
    merchant_id: acp.Id
    merchant_name: str
    stripe_secret_key: SecretStr
    stripe_api_base: acp.WebUrl | None = None
    api_keys: Mapping[str, SecretStr]
    currency: acp.Currency = "usd"
    target_country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] = "US"
    feed_id: acp.Id = "catalog"
    links: tuple[acp.Link, ...] = ()
    webhooks: tuple[WebhookTarget, ...] = ()
    acquirer: acp.AcquirerDetails = acp.AcquirerDetails(
        acquirer_bin="400000", acquirer_country="US", acquirer_merchant_id="0", merchant_name="Merchant"
    )
    checkout_lifetime_seconds: Annotated[StrictInt, Field(ge=60, le=30 * 86_400)] = 6 * 3600
    cart_lifetime_seconds: Annotated[StrictInt, Field(ge=60, le=90 * 86_400)] = 7 * 86_400
    stripe_timeout_seconds: Annotated[StrictInt, Field(ge=1, le=300)] = 30
    recovery_after_seconds: Annotated[StrictInt, Field(ge=1)] = 60
    """How long a payment may be silent before the kit finds out how it ended.

    It must exceed the longest request to the processor, or a payment in progress would be canceled.
    """
    poll_interval_ms: Annotated[StrictInt, Field(ge=10)] = 1_000
    webhook_retry_base_ms: Annotated[StrictInt, Field(ge=10)] = 1_000

    def payment_handler(self) -> acp.PaymentHandler:
        """Returns how this seller is paid: a shared payment token, charged through Stripe."""
        site = "https://agenticcommerce.dev/handlers/tokenized.card"
        return acp.PaymentHandler(
            id=HANDLER_ID,
            name="dev.acp.tokenized.card",
            display_name="Card",
            version="2026-01-22",
            spec=site,
            requires_delegate_payment=True,
            requires_pci_compliance=False,
            psp="stripe",
            config_schema=f"{site}/config.json",
            instrument_schemas=(f"{site}/instrument.json",),
            config={
                "merchant_id": self.merchant_id,
                "psp": "stripe",
                "accepted_brands": ["visa", "mastercard", "amex", "discover"],
                "accepted_funding_types": ["credit", "debit", "prepaid"],
                "supports_3ds": True,
            },
        )

    def capabilities(self) -> acp.Capabilities:
        return acp.Capabilities(
            payment=acp.Payment(handlers=(self.payment_handler(),)),
            interventions=acp.InterventionCapabilities(
                supported=("3ds",), required=(), enforcement="conditional"
            ),
            extensions=(acp.ExtensionDeclaration(name="discount", extends=("$.CheckoutSession.discounts",)),),
        )

    def discovery(self) -> acp.Discovery:
        return acp.Discovery(
            protocol=acp.DiscoveryProtocol(),
            api_base_url=self.base_url,
            transports=("rest",),
            capabilities=acp.DiscoveryCapabilities(
                services=("checkout", "orders", "carts"),
                extensions=(acp.DiscoveryExtension(name="discount"),),
                intervention_types=("3ds",),
                supported_currencies=(self.currency,),
            ),
        )
