"""What a worker registers so that mandates and purchases run on its task queue."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import stripe
from temporalio.client import Client

from activities.checkouts import (
    CheckoutActivities,
    OrderRouting,
    PurchaseAnnouncements,
    SellerCredentials,
)
from activities.mandates import MandateActivities
from activities.payment_tokens import PaymentTokenActivities
from workflows.mandate import Mandate
from workflows.order_events import OrderEvents
from workflows.purchase import Purchase


@dataclass(frozen=True)
class WorkerParts:
    """Workflows and activities to hand to a Temporal worker."""

    workflows: Sequence[type]
    activities: Sequence[Callable[..., Any]]


def purchase_worker_parts(
    client: Client,
    *,
    http: httpx.AsyncClient,
    sellers: SellerCredentials,
    processor: stripe.StripeClient,
) -> WorkerParts:
    """Mandates and purchases.

    Args:
        client: the worker's own Temporal client, with the encrypting data converter.
        http: shared client for sellers; closed by its owner.
        sellers: bearer credentials by seller origin.
        processor: from :func:`waystation.stripe_http.open_stripe`; its connections are closed by its owner.
    """
    mandates = MandateActivities(client)
    checkouts = CheckoutActivities(http, sellers)
    tokens = PaymentTokenActivities(processor)
    announcements = PurchaseAnnouncements(client)
    return WorkerParts(
        workflows=(Mandate, Purchase, OrderEvents),
        activities=(
            mandates.read_mandate,
            mandates.reserve_from_mandate,
            mandates.commit_to_mandate,
            mandates.release_to_mandate,
            mandates.holder_is_running,
            checkouts.open_checkout,
            checkouts.update_checkout,
            checkouts.read_checkout,
            checkouts.complete_checkout,
            checkouts.cancel_checkout,
            tokens.issue_payment_token,
            tokens.read_payment_token,
            tokens.revoke_payment_token,
            announcements.announce_purchase,
            OrderRouting(client).route_order_events,
        ),
    )
