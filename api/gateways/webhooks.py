"""The API's way to webhooks: the workflow of each endpoint, and the registry that knows them all."""

import uuid
from collections.abc import Awaitable
from datetime import timedelta
from typing import Final, NamedTuple

from temporalio.client import Client, WorkflowFailureError
from temporalio.common import QueryRejectCondition, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError

from api.errors import Conflict, Problem
from api.gateways.calls import Calls, Wording, ask_unless_ended
from api.gateways.lists import Lists
from api.gateways.visible import NotFound, wording_of
from waystation.models.base import replaced
from waystation.models.webhooks import (
    DeliveriesWanted,
    DeliveryWanted,
    SecretMade,
    SecretWanted,
    SubscriptionList,
    WebhookChange,
    WebhookDeliveries,
    WebhookDelivery,
    WebhookOpening,
    WebhookSettings,
    WebhookView,
)
from waystation.temporal.calls import ask, start_and_update, update
from waystation.temporal.messages import (
    WEBHOOK,
    WEBHOOK_CHANGE,
    WEBHOOK_DELIVERIES,
    WEBHOOK_DELIVERY,
    WEBHOOK_MAKE_SECRET,
    WEBHOOK_REDELIVER,
    WEBHOOK_REMOVE,
    WEBHOOK_TEST,
    WEBHOOKS,
    WEBHOOKS_SUBSCRIBE,
    WEBHOOKS_SUBSCRIPTIONS,
)
from waystation.temporal.names import (
    SESSION_TASK_QUEUE,
    TOO_MANY_WEBHOOKS,
    WEBHOOKS_NEED_KEYS,
    webhook_registry_id,
)
from waystation.temporal.one_reader import OneReader
from workflows.webhooks import WebhookEndpoint

SECRET_TIMEOUT: Final = timedelta(seconds=20)
"""For a secret to be made and the registry to know; whoever doesn't wait for it loses the secret."""
REFUSALS: Final = frozenset({TOO_MANY_WEBHOOKS, WEBHOOKS_NEED_KEYS})
"""With which an endpoint ends that was never opened."""


class Opened(NamedTuple):
    """An endpoint, and the secret of a new one."""

    view: WebhookView
    secret: str | None


class WebhookGateway:
    """Calls to ``WebhookEndpoint`` workflows and to their registry."""

    def __init__(
        self, client: Client, timeout_seconds: float, *, task_queue: str = SESSION_TASK_QUEUE
    ) -> None:
        self._client, self._queue = client, task_queue
        self._registry_id = webhook_registry_id(task_queue)
        self._timeout = timedelta(seconds=timeout_seconds)
        self._calls = Calls(client, timeout_seconds, WEBHOOK.name, _wording())
        self._registry = Calls(client, timeout_seconds, WEBHOOKS.name, _wording())

    async def create(self, webhook_id: str | None, settings: WebhookSettings) -> Opened:
        """Starts an endpoint, or finds the one with this id.

        Raises:
            Conflict: The id is taken, the endpoint had other settings, or was deleted.
        """
        wanted = webhook_id or f"webhook-{uuid.uuid4()}"
        if webhook_id is not None and not await self._calls.is_of_kind(wanted):
            raise Conflict(f"'{wanted}' names something else; choose another id.", code="id-taken")
        reader = OneReader()

        async def begin(reuse: WorkflowIDReusePolicy) -> SecretMade:
            try:
                return await start_and_update(
                    self._client,
                    WEBHOOK,
                    WebhookOpening(settings=settings),
                    WEBHOOK_MAKE_SECRET,
                    SecretWanted(recipient=reader.recipient, first=True),
                    update_id=uuid.uuid4().hex,
                    id=wanted,
                    task_queue=self._queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    id_reuse_policy=reuse,
                )
            except WorkflowAlreadyStartedError:
                raise Conflict(f"'{wanted}' was deleted; choose another id.", code="id-taken") from None

        async def call() -> SecretMade:
            try:
                return await begin(WorkflowIDReusePolicy.REJECT_DUPLICATE)
            except Conflict:
                if not await self._was_refused(wanted):
                    raise
                return await begin(WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY)

        made = await self._calls.guarded(wanted, call, within=SECRET_TIMEOUT)
        view = await self.webhook(wanted)
        if made.box is None and not _is_as_wanted(view, settings):
            raise Conflict(f"'{wanted}' exists with other settings; choose another id.", code="id-taken")
        return Opened(view, None if made.box is None else reader.open(made.box))

    async def _was_refused(self, webhook_id: str) -> bool:
        """Returns whether what had this id never was an endpoint: what refused it may be mended by now."""
        handle = self._client.get_workflow_handle(webhook_id)
        try:
            await handle.result(rpc_timeout=self._timeout)
        except WorkflowFailureError as failure:
            return isinstance(failure.cause, ApplicationError) and failure.cause.type in REFUSALS
        return False

    async def webhook(self, webhook_id: str) -> WebhookView:
        """Returns the endpoint as it stands; one that was deleted is unknown."""
        handle = self._client.get_workflow_handle_for(WebhookEndpoint.run, webhook_id)

        def query(reject: QueryRejectCondition) -> Awaitable[WebhookView]:
            return handle.query(WebhookEndpoint.status, reject_condition=reject, rpc_timeout=self._timeout)

        view, ended = await self._calls.guarded(webhook_id, lambda: ask_unless_ended(query), looks=True)
        if ended or view.status == "deleted":
            raise no_webhook(webhook_id)
        return view

    async def list(self) -> list[WebhookView]:
        """Returns every endpoint, the newest first."""
        handle = self._client.get_workflow_handle(self._registry_id)
        try:
            known = await self._registry.guarded(
                self._registry_id, lambda: ask(handle, WEBHOOKS_SUBSCRIPTIONS), looks=True
            )
        except NotFound:  # nobody has ever made one
            known = SubscriptionList()
        views = await Lists.readable(self.webhook(one.webhook_id) for one in known.subscriptions)
        return sorted(views, key=lambda view: view.created, reverse=True)

    async def change(self, webhook_id: str, change: WebhookChange) -> WebhookView:
        await self.webhook(webhook_id)
        handle = self._client.get_workflow_handle(webhook_id)
        return await self._calls.guarded(webhook_id, lambda: update(handle, WEBHOOK_CHANGE, change))

    async def delete(self, webhook_id: str) -> WebhookView:
        """Deletes an endpoint; one that was ended in Temporal is forgotten by the registry."""
        handle = self._client.get_workflow_handle(webhook_id)
        try:
            await self.webhook(webhook_id)
        except NotFound:
            await self._forget(webhook_id)
            raise
        return await self._calls.guarded(webhook_id, lambda: update(handle, WEBHOOK_REMOVE))

    async def _forget(self, webhook_id: str) -> None:
        handle = self._client.get_workflow_handle(self._registry_id)

        async def call() -> None:
            for one in (await ask(handle, WEBHOOKS_SUBSCRIPTIONS)).subscriptions:
                if one.webhook_id == webhook_id:
                    gone = replaced(one, deleted=True, revision=one.revision + 1)
                    await update(handle, WEBHOOKS_SUBSCRIBE, gone)

        await self._registry.guarded(webhook_id, call)

    async def rotate(self, webhook_id: str, overlap_seconds: int) -> Opened:
        """Makes a new secret."""
        await self.webhook(webhook_id)
        handle, reader = self._client.get_workflow_handle(webhook_id), OneReader()
        wanted = SecretWanted(recipient=reader.recipient, overlap_seconds=overlap_seconds)
        made = await self._calls.guarded(
            webhook_id, lambda: update(handle, WEBHOOK_MAKE_SECRET, wanted), within=SECRET_TIMEOUT
        )
        assert made.box is not None, "one that isn't the first is always made"
        return Opened(await self.webhook(webhook_id), reader.open(made.box))

    async def test(self, webhook_id: str) -> WebhookDelivery:
        await self.webhook(webhook_id)
        handle = self._client.get_workflow_handle(webhook_id)
        return await self._calls.guarded(webhook_id, lambda: update(handle, WEBHOOK_TEST))

    async def deliveries(self, webhook_id: str, wanted: DeliveriesWanted) -> WebhookDeliveries:
        await self.webhook(webhook_id)
        handle = self._client.get_workflow_handle(webhook_id)
        return await self._calls.guarded(
            webhook_id, lambda: ask(handle, WEBHOOK_DELIVERIES, wanted), looks=True
        )

    async def delivery(self, webhook_id: str, delivery_id: str) -> WebhookDelivery:
        await self.webhook(webhook_id)
        handle = self._client.get_workflow_handle(webhook_id)
        found = await self._calls.guarded(
            webhook_id, lambda: ask(handle, WEBHOOK_DELIVERY, delivery_id), looks=True
        )
        if found is None:
            raise no_delivery(delivery_id)
        return found

    async def redeliver(self, webhook_id: str, delivery_id: str) -> WebhookDelivery:
        await self.webhook(webhook_id)
        handle, wanted = (
            self._client.get_workflow_handle(webhook_id),
            DeliveryWanted(delivery_id=delivery_id),
        )
        return await self._calls.guarded(webhook_id, lambda: update(handle, WEBHOOK_REDELIVER, wanted))


def no_webhook(webhook_id: str) -> Problem:
    """There is none, or it was deleted."""
    return NotFound(f"There is no webhook '{webhook_id}'.", code="unknown-webhook")


def no_delivery(delivery_id: str) -> Problem:
    """There is none, or it was forgotten."""
    return NotFound(f"There is no delivery '{delivery_id}' here (any more).", code="unknown-delivery")


def _wording() -> Wording:
    return wording_of("webhook", no_webhook)


def _is_as_wanted(view: WebhookView, settings: WebhookSettings) -> bool:
    return settings == WebhookSettings(
        url=view.url, events=view.events, description=view.description, details=view.details
    )
