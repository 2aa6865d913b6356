"""A worker for mandates and purchases in a process of its own, so that tests can kill it.

Reads what it needs from the environment; run with ``python -m tests.world.purchase_worker``.
"""

import asyncio
import logging
import os

import httpx
from pydantic import SecretStr
from temporalio.worker import Worker

from activities.checkouts import SellerCredentials
from activities.registration import purchase_activities
from activities.webhooks import WebhookRegistry
from tests.world.keys import TRUSTING, VAULT
from waystation.redaction import install_redaction
from waystation.stripe_http import open_stripe
from waystation.temporal.connect import open_client
from waystation.temporal.encryption import encrypting_data_converter, encryption_codec
from worker import PURCHASE_WORKFLOWS, STICKY_TIMEOUT, WORKFLOW_RUNNER


async def main() -> None:
    logging.basicConfig(level=logging.DEBUG)  # the chattiest there is: not even that may show a token
    for noisy in ("asyncio", "hpack"):
        logging.getLogger(noisy).setLevel(logging.INFO)
    install_redaction()
    codec = encryption_codec([os.environ["TEST_KEY"]])
    client = await open_client(os.environ["TEST_TEMPORAL"], data_converter=encrypting_data_converter(codec))
    async with httpx.AsyncClient() as http:
        activities = purchase_activities(
            client,
            http=http,
            sellers=SellerCredentials({}, default=SecretStr(os.environ["TEST_SHOP_KEY"])),
            processor=open_stripe("sk_test_agent", api_base=os.environ["TEST_PROCESSOR"])[0],
            verifier=TRUSTING,
            vault=VAULT,
        )
        async with Worker(
            client,
            task_queue=os.environ["TEST_QUEUE"],
            workflows=PURCHASE_WORKFLOWS,
            activities=[*activities, WebhookRegistry(client).webhook_subscribers],
            workflow_runner=WORKFLOW_RUNNER,
            sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        ):
            print("worker is ready", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
