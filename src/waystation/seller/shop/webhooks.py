"""Sends order events to agents: signed, in order for each order, repeated until they are accepted."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import httpx

from waystation.protocols import acp
from waystation.protocols.acp.webhooks import sign_webhook
from waystation.seller.shop.records import Delivery, WebhookTarget
from waystation.seller.shop.store import Store
from waystation.seller.shop.views import rfc3339

TIMEOUT_SECONDS: Final = 10
MAX_ATTEMPTS: Final = 20
MAX_WAIT_MS: Final = 3_600_000

logger = logging.getLogger(__name__)


def deliveries_of(event: str, order: acp.Order, targets: Sequence[WebhookTarget]) -> tuple[Delivery, ...]:
    """Returns one delivery of the whole order to each target."""
    body = json.dumps(acp.OrderEvent(type=event, data=order).wire(), separators=(",", ":")).encode()
    return tuple(
        Delivery(id=f"whd_{secrets.token_hex(12)}", url=target.url, order_id=order.id, event=event, body=body)
        for target in targets
    )


def wait_ms(attempts: int, base_ms: int) -> int:
    """Returns how long to wait after that many failed attempts: doubling, at most an hour."""
    return int(min(base_ms * 2 ** min(attempts - 1, 30), MAX_WAIT_MS))


class WebhookSender:
    """Sends what is due until it is stopped. A 2xx response means that a delivery was accepted."""

    def __init__(
        self, store: Store, targets: Sequence[WebhookTarget], client: httpx.AsyncClient, retry_base_ms: int
    ) -> None:
        self._store = store
        self._secrets = {target.url: target.secret for target in targets}
        self._client = client
        self._retry_base_ms = retry_base_ms
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Says that something new is due."""
        self._wake.set()

    async def run(self, poll_interval_ms: int) -> None:
        while True:
            self._wake.clear()
            sent = 0
            try:
                sent = await self._send_due()
            except Exception:
                logger.exception("sending order events failed; it will be retried")
            if not sent:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), poll_interval_ms / 1000)

    async def _send_due(self) -> int:
        due = await self._store.due_deliveries(int(time.time() * 1000))
        await asyncio.gather(*(self._deliver(delivery) for delivery in due))
        return len(due)

    async def _deliver(self, delivery: Delivery) -> None:
        taken = await self._sent(delivery)
        attempts = delivery.attempts + 1
        state = "delivered" if taken else "failed" if attempts >= MAX_ATTEMPTS else "pending"
        due_ms = int(time.time() * 1000) + wait_ms(attempts, self._retry_base_ms)
        if state == "failed":
            logger.error("gave up on order event %s after %d attempts", delivery.id, attempts)
        await self._store.mark_delivery(delivery.id, state, attempts, due_ms)

    async def _sent(self, delivery: Delivery) -> bool:
        secret = self._secrets.get(delivery.url)
        if secret is None:
            logger.warning("order event %s: its target is no longer configured", delivery.id)
            return False
        now = int(time.time())
        headers = {
            "Content-Type": "application/json",
            acp.HEADER_MERCHANT_SIGNATURE: sign_webhook(secret.get_secret_value(), delivery.body, now),
            acp.HEADER_REQUEST_ID: delivery.id,
            acp.HEADER_TIMESTAMP: rfc3339(now),
        }
        try:
            answer = await self._client.post(delivery.url, content=delivery.body, headers=headers)
        except httpx.HTTPError as error:
            logger.info("order event %s not delivered: %s", delivery.id, type(error).__name__)
            return False
        if not answer.is_success:
            logger.info("order event %s answered %d", delivery.id, answer.status_code)
        return answer.is_success
