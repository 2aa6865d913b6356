"""A worker in a process of its own, for tests that kill it."""

import argparse
import asyncio

import uvloop
from pydantic import SecretStr
from temporalio.worker import Worker

from activities.announcements import PurchaseAnnouncements
from activities.mandates import MandateActivities
from activities.proofs import ProofActivities
from activities.registration import paid_request_activities
from activities.webhooks import WebhookRegistry
from tests.world.keys import TRUSTING, VAULT
from waystation.buyer.answers import AnswerStore
from waystation.buyer.credentials import Credentials
from waystation.buyer.http import PaidHttp
from waystation.buyer.networks import read_networks
from waystation.buyer.wallet import Wallet
from waystation.settings import WalletSettings
from waystation.stripe_http import open_stripe
from waystation.temporal.connect import CLEAR_DATA_CONVERTER, open_client
from worker import PAID_REQUEST_WORKFLOWS, STICKY_TIMEOUT, WORKFLOW_RUNNER
from workflows.mandate import Mandate


async def run(options: argparse.Namespace) -> None:
    client = await open_client(options.temporal, data_converter=CLEAR_DATA_CONVERTER)
    processor, _ = open_stripe("sk_test_agent", api_base=options.processor)
    settings = WalletSettings(private_key=SecretStr(options.key), rpc_url=options.rpc)
    http = PaidHttp(answers=AnswerStore(client.data_converter), allowed=read_networks(["127.0.0.0/8"]))
    credentials = Credentials(processor=processor, wallet=Wallet.from_settings(settings))
    paying = paid_request_activities(http, credentials, VAULT)
    mandates = MandateActivities(client)
    async with Worker(
        client,
        task_queue=options.queue,
        workflows=[Mandate, *PAID_REQUEST_WORKFLOWS],
        activities=[
            mandates.read_mandate,
            mandates.reserve_from_mandate,
            mandates.commit_to_mandate,
            mandates.release_to_mandate,
            mandates.holder_is_running,
            ProofActivities(TRUSTING).check_proof,
            PurchaseAnnouncements(client).announce_purchase,
            WebhookRegistry(client).webhook_subscribers,
            *paying,
        ],
        workflow_runner=WORKFLOW_RUNNER,
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
    ):
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("temporal", "processor", "queue", "key", "rpc"):
        parser.add_argument(f"--{name}", required=True)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
