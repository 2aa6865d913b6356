"""The seller kit: a merchant, its settings and a store, put together and kept running."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

import httpx
import stripe

from waystation.models.base import replaced
from waystation.protocols import acp
from waystation.seller.shop import orders
from waystation.seller.shop.charging import Charging
from waystation.seller.shop.checkouts import Checkouts, Locks
from waystation.seller.shop.completion import Completion
from waystation.seller.shop.errors import not_found
from waystation.seller.shop.merchant import Merchant
from waystation.seller.shop.records import Checkout, OrderRecord
from waystation.seller.shop.settings import SellerSettings
from waystation.seller.shop.store import Store
from waystation.seller.shop.views import session_of
from waystation.seller.shop.webhooks import TIMEOUT_SECONDS, WebhookSender, deliveries_of
from waystation.stripe_http import open_stripe

PRUNE_INTERVAL_SECONDS: Final = 3_600

logger = logging.getLogger(__name__)


class Kit:
    """A shop that agents can buy from.

    Its background work (webhooks, recovery of interrupted payments, expiry) runs within ``async with``. What
    is served over HTTP is in ``routes``, and ``mount`` ties the two to a FastAPI app.
    """

    def __init__(
        self,
        merchant: Merchant,
        settings: SellerSettings,
        store: Store,
        *,
        stripe_transport: httpx.AsyncBaseTransport | None = None,
        webhook_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.merchant = merchant
        self.settings = settings
        self.store = store
        client, self._stripe_http = open_stripe(
            settings.stripe_secret_key.get_secret_value(),
            api_base=settings.stripe_api_base,
            transport=stripe_transport,
            timeout_seconds=settings.stripe_timeout_seconds,
        )
        self.charging = self.make_charging(client)
        self.checkouts = Checkouts(settings, merchant, store, self.charging, Locks())
        self.completion = Completion(self.checkouts)
        self._webhook_client = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, transport=webhook_transport)
        self._sender = WebhookSender(
            store, settings.webhooks, self._webhook_client, settings.webhook_retry_base_ms
        )
        self._background: list[asyncio.Task[None]] = []

    def make_charging(self, client: stripe.StripeClient) -> Charging:
        """Returns how this seller charges. Override it if the kit's way isn't enough."""
        return Charging(client)

    # Running

    async def __aenter__(self) -> Self:
        await self.store.open()
        interval_ms = self.settings.poll_interval_ms
        self._background = [
            asyncio.create_task(self._sender.run(interval_ms), name="order webhooks"),
            asyncio.create_task(self._keep_house(interval_ms), name="recovery and expiry"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._webhook_client.aclose()
        await self._stripe_http.close_async()
        await self.store.close()

    async def _keep_house(self, interval_ms: int) -> None:
        pruned = 0
        while True:
            try:
                await self.recover()
                if (now := int(time.time())) - pruned >= PRUNE_INTERVAL_SECONDS:
                    await self.store.prune(now)
                    pruned = now
            except Exception:
                logger.exception("recovery of interrupted payments failed; it will be retried")
            await asyncio.sleep(interval_ms / 1000)

    async def recover(self) -> None:
        """Finds out how interrupted payments ended, and expires what is past its time."""
        now = int(time.time())
        for checkout_id in await self.store.unsettled(now - self.settings.recovery_after_seconds):
            await self._with(checkout_id, self._settled)
        for checkout_id in await self.store.expired(now):
            await self._with(checkout_id, self.checkouts.expire)

    async def _with(self, checkout_id: str, work: Callable[[Checkout], Awaitable[object]]) -> None:
        async with self.checkouts.locks.of(checkout_id):
            checkout = await self.store.checkout(checkout_id)
            if checkout is None:
                return
            try:
                await work(checkout)
            except Exception as error:
                # One failing checkout must not block the others; it is due again next time.
                logger.warning("checkout %s is not settled yet: %s", checkout_id, type(error).__name__)

    async def _settled(self, checkout: Checkout) -> None:
        if checkout.status.is_completing:
            await self.completion.settle_begun(checkout, None)
            self.wake_webhooks()

    def wake_webhooks(self) -> None:
        """Sends waiting order events now rather than at the next poll."""
        self._sender.wake()

    # For the merchant's own code

    async def session(self, checkout: Checkout) -> acp.AcpModel:
        """Returns the protocol's view of a checkout."""
        record = await self.store.order(checkout.order_id) if checkout.order_id else None
        return session_of(checkout, self.settings, record.order if record else None)

    async def order(self, order_id: str) -> OrderRecord:
        record = await self.store.order(order_id)
        if record is None:
            raise not_found("order")
        return record

    async def ship(self, order_id: str, fulfillment: acp.Fulfillment) -> acp.Order:
        """Records that a delivery was shipped and tells the agents; by default it holds all the rest.

        Raises:
            ValueError: It holds more than is left, or something that wasn't ordered.
        """
        now = int(time.time())
        return await self._amend(
            order_id, lambda record: _with_order(record, orders.shipped(record.order, fulfillment, now))
        )

    async def deliver(self, order_id: str, fulfillment_id: str) -> acp.Order:
        """Records that a delivery arrived and tells the agents.

        Raises:
            ValueError: The order has no such fulfillment.
        """
        now = int(time.time())
        return await self._amend(
            order_id, lambda record: _with_order(record, orders.delivered(record.order, fulfillment_id, now))
        )

    async def refund(self, order_id: str, amount: int, reason: str, *, key: str) -> acp.Order:
        """Refunds ``amount`` minor units and tells the agents. The same ``key`` refunds once.

        Raises:
            ValueError: The amount isn't a positive whole number or is more than is left of the payment,
                the key was used for another amount, or the order was not paid for.
        """
        async with self.checkouts.locks.of(order_id):
            record = await self.order(order_id)
            if record.payment_intent_id is None:
                raise ValueError(f"order {order_id} was not paid for: there is nothing to refund")
            if orders.check_refund(record, amount, key):
                return record.order
            refund_id = await self.charging.refund(
                record.payment_intent_id, amount, f"{order_id}:refund:{key}"
            )
            now = int(time.time())
            changed = orders.refunded(record, refund_id, amount, reason, now, key=key)
            return await self._save(record, changed)

    async def _amend(self, order_id: str, change: Callable[[OrderRecord], OrderRecord]) -> acp.Order:
        async with self.checkouts.locks.of(order_id):
            record = await self.order(order_id)
            return await self._save(record, change(record))

    async def _save(self, record: OrderRecord, changed: OrderRecord) -> acp.Order:
        if changed == record:
            return record.order
        event = deliveries_of(acp.OrderEvent.ORDER_UPDATE, changed.order, self.settings.webhooks)
        saved = await self.store.save_order(changed, event)
        self.wake_webhooks()
        return saved.order


def _with_order(record: OrderRecord, order: acp.Order) -> OrderRecord:
    return replaced(record, order=order)
