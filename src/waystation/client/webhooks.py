"""Webhooks through Waystation's API: where news is sent, and what became of it.

>>> async with Client() as client:  # doctest: +SKIP
...     created = await Webhooks(client).create("https://example.com/hook", events=["turn.failed"])
"""

from collections.abc import Sequence

from waystation.client.client import Client
from waystation.client.paths import path
from waystation.models.webhooks import (
    DEFAULT_OVERLAP_SECONDS,
    CreatedWebhook,
    WebhookDeliveries,
    WebhookDelivery,
    WebhookList,
    WebhookView,
)


class Webhooks:
    """What services and operators can do about webhooks."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(
        self,
        url: str,
        *,
        events: Sequence[str],
        description: str = "",
        details: bool = False,
        webhook_id: str | None = None,
    ) -> CreatedWebhook:
        """Creates a webhook; its secret is shown this once."""
        body = {
            "webhook_id": webhook_id,
            "url": url,
            "events": list(events),
            "description": description,
            "details": details,
        }
        return await self._client.request("POST", "/webhooks", CreatedWebhook, body)

    async def list(self) -> WebhookList:
        """Returns all webhooks, the newest first."""
        return await self._client.request("GET", "/webhooks", WebhookList)

    async def webhook(self, webhook_id: str) -> WebhookView:
        """Returns a webhook without its secret."""
        return await self._client.request("GET", path("webhooks", webhook_id), WebhookView)

    async def change(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        description: str | None = None,
        details: bool | None = None,
        enabled: bool | None = None,
    ) -> WebhookView:
        """Changes what is given."""
        body = {
            "url": url,
            "events": list(events) if events is not None else None,
            "description": description,
            "details": details,
            "enabled": enabled,
        }
        return await self._client.request("PATCH", path("webhooks", webhook_id), WebhookView, body)

    async def delete(self, webhook_id: str) -> WebhookView:
        """Deletes a webhook; what waits is never sent."""
        return await self._client.request("DELETE", path("webhooks", webhook_id), WebhookView)

    async def rotate(
        self, webhook_id: str, *, overlap_seconds: int = DEFAULT_OVERLAP_SECONDS
    ) -> CreatedWebhook:
        """Makes a new secret; messages are signed with the earlier ones too while the overlap lasts."""
        body = {"overlap_seconds": overlap_seconds}
        return await self._client.request(
            "POST", path("webhooks", webhook_id, "secret"), CreatedWebhook, body
        )

    async def test(self, webhook_id: str) -> WebhookDelivery:
        """Sends a ``webhook.test``."""
        return await self._client.request("POST", path("webhooks", webhook_id, "test"), WebhookDelivery)

    async def deliveries(
        self, webhook_id: str, *, limit: int = 50, before: str | None = None, status: str | None = None
    ) -> WebhookDeliveries:
        """Returns what waits and what was delivered or given up, newest first."""
        given = {"before": before, "status": status}
        query = {"limit": str(limit), **{name: value for name, value in given.items() if value is not None}}
        where = path("webhooks", webhook_id, "deliveries")
        return await self._client.request("GET", where, WebhookDeliveries, query=query)

    async def delivery(self, webhook_id: str, delivery_id: str) -> WebhookDelivery:
        """Returns a delivery with what is sent."""
        where = path("webhooks", webhook_id, "deliveries", delivery_id)
        return await self._client.request("GET", where, WebhookDelivery)

    async def redeliver(self, webhook_id: str, delivery_id: str) -> WebhookDelivery:
        """Begins a delivery anew, under its id."""
        where = path("webhooks", webhook_id, "deliveries", delivery_id, "redeliver")
        return await self._client.request("POST", where, WebhookDelivery)
