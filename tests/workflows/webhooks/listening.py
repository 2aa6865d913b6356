"""Stands in for registry and endpoint: workflows that nobody runs, whose histories say what they hear."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.client import Client

from waystation.models.webhooks import Subscription, WebhookEvent, WebhookNews
from waystation.temporal.names import SUBSCRIPTIONS, webhook_registry_id


class Listener:
    def __init__(self, client: Client, webhook_id: str) -> None:
        self._client, self._handle = client, client.get_workflow_handle(webhook_id)

    async def heard(self) -> list[WebhookEvent]:
        events: list[WebhookEvent] = []
        async for event in self._handle.fetch_history_events():
            if not event.HasField("workflow_execution_signaled_event_attributes"):
                continue
            payloads = event.workflow_execution_signaled_event_attributes.input.payloads
            [news] = await self._client.data_converter.decode(payloads, [WebhookNews])
            events += news.events
        return events


@asynccontextmanager
async def listening(
    client: Client, queue: str, *events: str, details: bool = False
) -> AsyncIterator[Listener]:
    """Lets everything on a task queue that has such news tell a listener."""
    webhook_id, nobody = f"webhook-{uuid.uuid4()}", f"nobody-{uuid.uuid4()}"
    subscription = Subscription(
        webhook_id=webhook_id, events=events, details=details, enabled=True, revision=1
    )
    memo = {SUBSCRIPTIONS: [subscription.model_dump(mode="json")]}
    listener = await client.start_workflow("Listener", id=webhook_id, task_queue=nobody)
    registry = await client.start_workflow(
        "Registry", id=webhook_registry_id(queue), task_queue=nobody, memo=memo
    )
    try:
        yield Listener(client, webhook_id)
    finally:
        await registry.terminate()
        await listener.terminate()
