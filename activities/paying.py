"""What a worker registers so that paid requests can act (see ``workflows.paying``).

Mandates and the notes that sessions get come with :mod:`activities.purchasing`, which the same
worker registers too.
"""

from contextlib import AsyncExitStack

from temporalio.client import Client

from activities.paid_requests import PaidRequestActivities
from activities.purchasing import Activities
from waystation.buyer.answers import AnswerStore
from waystation.buyer.credentials import Credentials, open_credentials
from waystation.buyer.http import PaidHttp
from waystation.buyer.networks import read_networks
from waystation.settings import Settings


def paid_request_activities(http: PaidHttp, credentials: Credentials) -> Activities:
    """All activities of paid requests and allowances, from parts at hand."""
    paid = PaidRequestActivities(http, credentials)
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
    client: Client, settings: Settings, resources: AsyncExitStack
) -> Activities:
    """The same from the settings; what they hold open is closed with ``resources``.

    Large answers go to the client's own external storage, sealed by its codec. Without a
    processor's key or a wallet nothing is paid that way: such offers are not taken.
    """
    answers = AnswerStore(client.data_converter, namespace=client.namespace)
    http = PaidHttp(answers=answers, allowed=read_networks(settings.money.allowed_networks))
    resources.push_async_callback(http.close)
    return paid_request_activities(http, await open_credentials(settings, resources))
