"""Registers workflows and activities on their task queue, and nothing else. Run: ``waystation worker``."""

import asyncio
import dataclasses
import logging
import signal
from contextlib import AsyncExitStack
from datetime import timedelta

import httpx
import uvloop
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkflowRunner

from activities.announcements import Announce, Announcements, over_http, over_redis
from activities.push import open_pushes
from activities.registration import Activities, open_paid_request_activities, open_purchase_activities
from activities.search import SearchKeys
from activities.sessions import SessionWrites
from activities.webhooks import WebhookRegistry, open_webhook_deliveries
from waystation.ending import end_within
from waystation.proofs import Verifier
from waystation.redaction import install_redaction
from waystation.settings import Settings, read_settings
from waystation.temporal.connect import connect
from waystation.temporal.encryption import MarkingCodec
from waystation.temporal.names import SESSION_TASK_QUEUE
from waystation.temporal.sealing import Vault
from waystation.temporal.search_attributes import keys_of, register
from waystation.temporal.updates_last import UpdatesLast
from workflows.allowance import Allowance
from workflows.mandate import Mandate
from workflows.paid_request import PaidRequest
from workflows.purchase import Buy, Purchase
from workflows.purchase.order_events import OrderEvents
from workflows.push import PushSubscriber
from workflows.session import AgentSession
from workflows.session.turn import AgentTurn
from workflows.webhooks import WebhookEndpoint, Webhooks

logger = logging.getLogger(__name__)

PURCHASE_WORKFLOWS = (Mandate, Purchase, Buy, OrderEvents)
PAID_REQUEST_WORKFLOWS = (PaidRequest, Allowance)
NEWS_WORKFLOWS = (WebhookEndpoint, Webhooks, PushSubscriber)
WORKFLOWS = [AgentSession, AgentTurn, *PURCHASE_WORKFLOWS, *PAID_REQUEST_WORKFLOWS, *NEWS_WORKFLOWS]
GRACEFUL_SHUTDOWN = timedelta(seconds=4)
END_WITHIN_SECONDS = 5.0
"""What docs/operations.md promises, whether Temporal answers or not."""
STICKY_TIMEOUT = timedelta(seconds=5)
"""How long a task waits for the worker that has its workflow in memory before any worker may take it.
With the default of 10 seconds a session's log stalls for that long when that worker has died; with much less,
a worker that is merely busy loses its workflows to others, which must read them again."""

WORKFLOW_RUNNER = UpdatesLast(UnsandboxedWorkflowRunner())
"""Without Temporal's workflow sandbox, which finds code that isn't deterministic: that would take a fifth of
the time here and find nothing. Tests replay histories in it."""


def build_worker(
    client: Client,
    announce: Announce,
    *,
    task_queue: str = SESSION_TASK_QUEUE,
    money: Activities = (),
    webhooks: Activities = (),
    search_key: str | None = None,
    workflow_runner: WorkflowRunner = WORKFLOW_RUNNER,
    **options: object,
) -> Worker:
    """Returns a worker with all workflows; ``options`` go to Temporal's ``Worker``.

    ``search_key`` is that of an installation without encryption keys where it is left out.
    """
    news, registry = Announcements(announce), WebhookRegistry(client)
    writes = SessionWrites(client, news)
    return Worker(
        _reading_on(client),
        task_queue=task_queue,
        workflows=WORKFLOWS,
        activities=[
            news.announce,
            writes.write_to_session,
            writes.read_outcome,
            SearchKeys(client, search_key or keys_of(())[0]).search_key,
            registry.webhook_subscribers,
            registry.register_webhook,
            *webhooks,
            *money,
        ],
        workflow_runner=workflow_runner,
        graceful_shutdown_timeout=GRACEFUL_SHUTDOWN,
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        **options,  # type: ignore[arg-type]
    )


def _reading_on(client: Client) -> Client:
    """Returns a client for a worker, which goes on where one payload can't be decrypted."""
    config = client.config()
    converter = config["data_converter"]
    if converter.payload_codec:
        codec = MarkingCodec(converter.payload_codec)
        config["data_converter"] = dataclasses.replace(converter, payload_codec=codec)
    return Client(**config)


async def run(settings: Settings) -> None:
    """Runs the worker until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as resources:
        client = await connect(settings, resources)
        if settings.redis_url:
            announce, close = over_redis(settings.redis_url.get_secret_value())
            resources.push_async_callback(close)
        else:
            announce = over_http(settings, await resources.enter_async_context(httpx.AsyncClient()))
        verifier = Verifier(settings.decision_public_keys, unsigned=settings.unsigned_decisions)
        vault = Vault([key.get_secret_value() for key in settings.token_keys])
        news = Announcements(announce)
        deliveries = await open_webhook_deliveries(settings.webhook_networks, resources, vault=vault)
        pushes = await open_pushes(settings, resources)
        webhooks: Activities = [
            deliveries.make_webhook_secret,
            deliveries.deliver_webhook,
            pushes.deliver_push,
        ]
        money = [
            *await open_purchase_activities(
                client, settings.money, resources, verifier=verifier, vault=vault, news=news
            ),
            *await open_paid_request_activities(client, settings, resources, vault=vault),
        ]
        await register(client)
        cached = settings.worker_cached_workflows
        search_key = keys_of([key.get_secret_value() for key in settings.encryption_keys])[0]
        async with build_worker(
            client,
            announce,
            money=money,
            webhooks=webhooks,
            search_key=search_key,
            max_cached_workflows=cached,
        ):
            if not (settings.storage_dir or settings.storage_s3_bucket):
                logger.warning(
                    "No external storage is set, so sessions are full after 1 MB. "
                    "Set WAYSTATION_STORAGE_DIR or WAYSTATION_STORAGE_S3_BUCKET, here and for the API."
                )
            _warn_about_money(verifier, vault)
            logger.info("Working on task queue %s", SESSION_TASK_QUEUE)
            await stop.wait()
            end_within(END_WITHIN_SECONDS)


def _warn_about_money(verifier: Verifier, vault: Vault) -> None:
    """Says what is missing for purchases and payments; sessions need none of it."""
    if verifier.takes_unsigned:
        logger.warning(
            "WAYSTATION_UNSIGNED_DECISIONS is set: whoever reaches Temporal can approve and grant in any "
            "name. Only for development."
        )
    elif not verifier.knows_keys:
        logger.warning(
            "No decision key is known, so no approval and no mandate counts. Set WAYSTATION_DECISION_KEYS "
            "for the API and WAYSTATION_DECISION_PUBLIC_KEYS for workers; 'waystation sign new-key' makes a "
            "pair."
        )
    if not vault.is_open:
        logger.warning(
            "No token key is set, so nothing is paid, and there are no webhooks. "
            "Set WAYSTATION_TOKEN_KEYS, the same for all workers."
        )


def main() -> None:
    """Entry point of ``waystation worker``."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    for chatty in ("httpx", "stripe"):  # a line or two per request
        logging.getLogger(chatty).setLevel(logging.WARNING)
    install_redaction()
    uvloop.run(run(read_settings()))


if __name__ == "__main__":
    main()
