"""What a worker registers so that paid requests run on its task queue.

Mandates and payment tokens come with :mod:`workflows.purchase_parts`, which the
same worker registers too.
"""

from pathlib import Path

import httpx
import stripe

from activities.paid_requests import AnswerStore, PaidRequestActivities
from activities.payment_tokens import PaymentTokenActivities
from waystation.wallet import Wallet
from workflows.allowance import Allowance
from workflows.paid_request import PaidRequest
from workflows.purchase_parts import WorkerParts


def paid_request_worker_parts(
    *,
    answers: Path,
    processor: stripe.StripeClient | None,
    wallet: Wallet | None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> WorkerParts:
    """Paid requests and allowances.

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
    return WorkerParts(
        workflows=(PaidRequest, Allowance),
        activities=(
            paid.probe_paid_resource,
            paid.read_payment_offers,
            paid.mint_payment_credential,
            paid.redeem_payment_credential,
            paid.close_payment_credential,
            paid.pay_within_allowance,
            paid.close_within_allowance,
        ),
    )
