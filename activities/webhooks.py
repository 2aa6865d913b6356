"""What webhooks need of the world: who wants news, a secret, one attempt at a delivery."""

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final

import httpx
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities.contract import NewSecret, SecretCall, WebhookCall, WebhookOutcome
from activities.heartbeats import heartbeating
from activities.posting import no_answer, out_of_time, post
from activities.secrets import check_open, opened, sealed
from waystation import __version__
from waystation.buyer.networks import checked_client, read_networks
from waystation.buyer.origins import RequestInvalidError
from waystation.models.webhooks import (
    NewsTypes,
    RegistryStart,
    SecretMade,
    Subscription,
    SubscriptionList,
    WebhookAttempt,
    wants,
)
from waystation.retry_after import retry_after
from waystation.temporal.calls import start_workflow, update
from waystation.temporal.messages import WEBHOOKS, WEBHOOKS_SUBSCRIBE
from waystation.temporal.names import INVALID_ARGUMENT, SUBSCRIPTIONS, webhook_registry_id
from waystation.temporal.one_reader import make_out_to
from waystation.temporal.sealing import Vault
from waystation.webhook_signatures import new_webhook_secret, signed_headers

_GONE: Final = 410


class WebhookRegistry:
    """Who wants news. Needs nothing but Temporal, so that every worker has it."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @activity.defn
    @heartbeating
    async def webhook_subscribers(self, news: NewsTypes) -> SubscriptionList:
        """Reads the registry's memo: Temporal itself answers, within milliseconds."""
        handle = self._client.get_workflow_handle(webhook_registry_id(activity.info().task_queue))
        try:
            found = await handle.describe()
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return SubscriptionList()
            raise
        if found.status != WorkflowExecutionStatus.RUNNING:
            return SubscriptionList()
        try:
            memo = {SUBSCRIPTIONS: (await found.memo()).get(SUBSCRIPTIONS, ())}
            known = SubscriptionList.model_validate(memo, extra="ignore")
        except Exception as error:
            # A key is missing here, or a newer version has written it. No session waits for that.
            activity.logger.error("Webhooks hear nothing: their registry can't be read (%s)", error)
            return SubscriptionList()
        wanting = [
            one
            for one in known.subscriptions
            if one.enabled and any(wants(one.events, kind) for kind in news.types)
        ]
        return SubscriptionList(subscriptions=tuple(wanting))

    @activity.defn
    @heartbeating
    async def register_webhook(self, subscription: Subscription) -> None:
        """Updates the registry, whose memo has changed once it has answered."""
        task_queue = activity.info().task_queue
        registry_id = webhook_registry_id(task_queue)
        await start_workflow(
            self._client,
            WEBHOOKS,
            RegistryStart(),
            id=registry_id,
            task_queue=task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )
        handle = self._client.get_workflow_handle(registry_id)
        try:
            await update(handle, WEBHOOKS_SUBSCRIBE, subscription)
        except WorkflowUpdateFailedError as error:
            if isinstance(error.cause, ApplicationError):
                kind = error.cause.type
                raise ApplicationError(error.cause.message, type=kind, non_retryable=True) from None
            raise


class WebhookDeliveries:
    """What needs the network, and the keys that seal secrets."""

    def __init__(self, http: httpx.AsyncClient, vault: Vault) -> None:
        self._http, self._vault = http, vault

    @activity.defn
    @heartbeating
    async def make_webhook_secret(self, call: SecretCall) -> NewSecret:
        """Makes a secret, sealed for the endpoint, and made out to whoever asked."""
        check_open(self._vault)
        secret = new_webhook_secret()
        try:
            box = make_out_to(call.recipient, secret)
        except ValueError:
            raise ApplicationError(
                "'recipient' is no key", type=INVALID_ARGUMENT, non_retryable=True
            ) from None
        return NewSecret(sealed=sealed(self._vault, secret), made=SecretMade(box=box))

    @activity.defn
    @heartbeating
    async def deliver_webhook(self, call: WebhookCall) -> WebhookOutcome:
        """Sends it. The status alone is kept: what a receiver says may be anybody's."""
        secrets = [opened(self._vault, secret) for secret in call.secrets]
        began, at = time.monotonic(), datetime.now(UTC)
        status: int | None = None
        error: str | None = None
        wait = None
        try:
            response = await self._send(call, secrets, at)
            status, wait = response.status_code, retry_after(response.headers.get("retry-after"))
            if not response.is_success:
                error = _of_status(response)
        except RequestInvalidError as refused:
            error = str(refused)
        except TimeoutError:
            error = out_of_time()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as failed:
            error = no_answer(failed)
        spent = round((time.monotonic() - began) * 1_000)
        attempt = WebhookAttempt(time=at, milliseconds=spent, status=status, error=error and error[:300])
        return WebhookOutcome(
            attempt=attempt, delivered=error is None, gone=status == _GONE, retry_after=wait
        )

    async def _send(self, call: WebhookCall, secrets: Sequence[str], at: datetime) -> httpx.Response:
        body = call.body.encode()
        headers = {
            "content-type": "application/json",
            "user-agent": f"Waystation/{__version__}",
            **signed_headers(call.delivery_id, int(at.timestamp()), body, secrets),
        }
        return await post(self._http, call.url, body, headers)


async def open_webhook_deliveries(
    networks: Sequence[str], resources: AsyncExitStack, *, vault: Vault
) -> WebhookDeliveries:
    """Returns them with a client that goes to public addresses, and to ``networks``."""
    http = checked_client(read_networks(networks), setting="WAYSTATION_WEBHOOK_NETWORKS")
    return WebhookDeliveries(await resources.enter_async_context(http), vault)


def _of_status(response: httpx.Response) -> str:
    if response.is_redirect:
        return f"answered with {response.status_code}; redirects are not followed"
    return f"answered with {response.status_code}"
