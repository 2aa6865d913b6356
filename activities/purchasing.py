"""What a worker registers so that mandates and purchases can act (see ``workflows.purchasing``)."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import httpx
import stripe
from temporalio.client import Client

from activities.announcements import Announcements, PurchaseAnnouncements
from activities.checkouts import (
    CheckoutActivities,
    SellerCredentials,
)
from activities.mandates import MandateActivities
from activities.order_events import OrderRouting
from activities.payment_tokens import PaymentTokenActivities
from waystation.buyer.networks import checked_client, read_networks
from waystation.settings import MoneySettings
from waystation.stripe_http import open_stripe

Activities = Sequence[Callable[..., object]]


def purchase_activities(
    client: Client,
    *,
    http: httpx.AsyncClient,
    sellers: SellerCredentials,
    processor: stripe.StripeClient | None,
    news: Announcements | None = None,
) -> Activities:
    """Returns all activities of mandates and purchases, made from the parts given.

    Args:
        client: the worker's own Temporal client, with the encrypting data converter.
        http: shared client for sellers; closed by its owner.
        sellers: bearer credentials by seller origin.
        news: tells the API processes that a session has news; without it they find out by polling.
        processor: from ``waystation.stripe_http.open_stripe``; its connections are closed by its owner.
    """
    mandates = MandateActivities(client)
    checkouts = CheckoutActivities(http, sellers)
    tokens = PaymentTokenActivities(processor)
    return (
        mandates.read_mandate,
        mandates.reserve_from_mandate,
        mandates.commit_to_mandate,
        mandates.release_to_mandate,
        mandates.refund_to_mandate,
        mandates.holder_is_running,
        checkouts.open_checkout,
        checkouts.update_checkout,
        checkouts.read_checkout,
        checkouts.complete_checkout,
        checkouts.cancel_checkout,
        tokens.issue_payment_token,
        tokens.read_payment_token,
        tokens.revoke_payment_token,
        PurchaseAnnouncements(client, news).announce_purchase,
        OrderRouting(client).route_order_events,
    )


async def open_purchase_activities(
    client: Client,
    settings: MoneySettings,
    resources: AsyncExitStack,
    *,
    news: Announcements | None = None,
) -> Activities:
    """Returns the same from the settings; what they hold open is closed with ``resources``.

    Without a processor's key mandates work, and purchases are refused at the payment.
    """
    allowed = read_networks(settings.allowed_networks)
    http = await resources.enter_async_context(checked_client(allowed))
    processor = None
    if settings.stripe_key is not None:
        processor, connections = open_stripe(
            settings.stripe_key.get_secret_value(), api_base=settings.stripe_api_base
        )
        resources.push_async_callback(connections.close_async)
    sellers = SellerCredentials(settings.seller_credentials, default=settings.seller_default_credential)
    return purchase_activities(client, http=http, sellers=sellers, processor=processor, news=news)
