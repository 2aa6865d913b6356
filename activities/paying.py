"""What a worker registers so that paid requests can act (see ``workflows.paying``).

Mandates and the notes that sessions get come with :mod:`activities.purchasing`, which the same
worker registers too.
"""

from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import stripe

from activities.paid_requests import AnswerStore, PaidRequestActivities
from activities.payment_tokens import PaymentTokenActivities
from activities.purchasing import Activities
from waystation.money_settings import MoneySettings
from waystation.stripe_http import open_stripe
from waystation.wallet import Wallet


def paid_request_activities(
    *,
    answers: Path,
    processor: stripe.StripeClient | None,
    wallet: Wallet | None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Activities:
    """All activities of paid requests and allowances, from parts at hand.

    Args:
        answers: folder for large answers, shared by all workers.
        processor: issues shared payment tokens; None where nothing is paid by card.
        wallet: signs token payments; None where nothing is paid in tokens.
        transport: for tests.
    """
    paid = PaidRequestActivities(
        answers=AnswerStore(answers),
        tokens=PaymentTokenActivities(processor) if processor is not None else None,
        wallet=wallet,
        transport=transport,
    )
    return (
        paid.probe_paid_resource,
        paid.read_payment_offers,
        paid.mint_payment_credential,
        paid.redeem_payment_credential,
        paid.close_payment_credential,
        paid.pay_within_allowance,
        paid.close_within_allowance,
    )


async def open_paid_request_activities(settings: MoneySettings, resources: AsyncExitStack) -> Activities:
    """The same from the settings; what they hold open is closed with ``resources``.

    Without a processor's key or a wallet nothing is paid that way: such offers are not taken.
    """
    processor = None
    if settings.stripe_key is not None:
        processor, connections = open_stripe(
            settings.stripe_key.get_secret_value(), api_base=settings.stripe_api_base
        )
        resources.push_async_callback(connections.close_async)
    wallet = Wallet.from_settings()
    if wallet is not None:
        resources.push_async_callback(wallet.close)
    return paid_request_activities(answers=settings.answers_dir, processor=processor, wallet=wallet)
