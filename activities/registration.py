"""What a worker registers so that mandates, purchases and paid requests can act."""

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
from activities.paid_requests import PaidRequestActivities
from activities.payment_tokens import PaymentTokenActivities
from activities.proofs import ProofActivities
from activities.purchases import PurchaseReading
from waystation.buyer.answers import AnswerStore
from waystation.buyer.credentials import Credentials, open_credentials
from waystation.buyer.http import PaidHttp
from waystation.buyer.networks import checked_client, read_networks
from waystation.proofs import Verifier
from waystation.settings import MoneySettings, Settings
from waystation.stripe_http import open_stripe
from waystation.temporal.sealing import Vault

Activities = Sequence[Callable[..., object]]


def purchase_activities(
    client: Client,
    *,
    http: httpx.AsyncClient,
    sellers: SellerCredentials,
    processor: stripe.StripeClient | None,
    verifier: Verifier,
    vault: Vault,
    news: Announcements | None = None,
) -> Activities:
    """Returns all activities of mandates and purchases, made from the parts given.

    Args:
        client: the worker's own Temporal client, with the encrypting data converter.
        http: shared client for sellers; closed by its owner.
        sellers: bearer credentials by seller origin.
        news: tells the API processes that a session has news; without it they find out by polling.
        processor: from ``waystation.stripe_http.open_stripe``; its connections are closed by its owner.
        verifier: checks who decided.
        vault: seals payment tokens in histories.
    """
    mandates = MandateActivities(client)
    checkouts = CheckoutActivities(http, sellers, vault)
    tokens = PaymentTokenActivities(processor, vault)
    return (
        mandates.read_mandate,
        mandates.reserve_from_mandate,
        mandates.commit_to_mandate,
        mandates.release_to_mandate,
        mandates.refund_to_mandate,
        mandates.holder_is_running,
        ProofActivities(verifier).check_proof,
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
        PurchaseReading(client).read_purchase,
    )


async def open_purchase_activities(
    client: Client,
    settings: MoneySettings,
    resources: AsyncExitStack,
    *,
    verifier: Verifier,
    vault: Vault,
    news: Announcements | None = None,
) -> Activities:
    """Returns the same from the settings; what they hold open is closed with ``resources``.

    Without a processor key, mandates work, but purchases are refused when it comes to paying.
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
    return purchase_activities(
        client, http=http, sellers=sellers, processor=processor, verifier=verifier, vault=vault, news=news
    )


def paid_request_activities(http: PaidHttp, credentials: Credentials, vault: Vault) -> Activities:
    """Returns all activities of paid requests and allowances, made from the parts given."""
    paid = PaidRequestActivities(http, credentials, vault)
    return (
        paid.probe_paid_resource,
        paid.read_payment_offers,
        paid.mint_payment_credential,
        paid.redeem_payment_credential,
        paid.close_payment_credential,
        paid.pay_within_allowance,
        paid.close_within_allowance,
    )


async def open_paid_request_activities(
    client: Client, settings: Settings, resources: AsyncExitStack, *, vault: Vault
) -> Activities:
    """Returns the same from the settings; what they hold open is closed with ``resources``.

    Large answers go to the client's own external storage, encrypted by its codec. Without a processor key or
    a wallet, nothing is paid that way: such offers are not taken.
    """
    answers = AnswerStore(client.data_converter, namespace=client.namespace)
    http = PaidHttp(answers=answers, allowed=read_networks(settings.money.allowed_networks))
    resources.push_async_callback(http.close)
    return paid_request_activities(http, await open_credentials(settings, resources), vault)
