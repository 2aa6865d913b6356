"""``WebhookEndpoint``: one receiver of webhooks, durable: what it is still to be sent, and what it was sent.

News comes by signal and waits in a bounded queue (deliveries.py); whoever sends it is never kept waiting.
Each attempt is one activity, whose outcome is recorded; the pauses between attempts are timers of this
workflow. So the course of a delivery can be read and changed, which retries within an activity can't. While
the receiver fails, one delivery at a time tries whether it is back.
"""

import asyncio
import contextlib
from datetime import timedelta
from typing import ClassVar, Final

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    import workflows.policies as policies
    from activities.contract import (
        HOUSE_UNAVAILABLE,
        SEALING_FAILED,
        SecretCall,
        WebhookCall,
        WebhookCalls,
        WebhookOutcome,
    )
    from waystation.models.webhooks import (
        DeliveriesWanted,
        DeliveryWanted,
        OwnWebhookType,
        SecretMade,
        SecretWanted,
        WebhookAttempt,
        WebhookChange,
        WebhookDeliveries,
        WebhookDelivery,
        WebhookEvent,
        WebhookNews,
        WebhookOpening,
        WebhookSecret,
        WebhookView,
        event_id,
    )
    from waystation.temporal import names
    from waystation.temporal.messages import WEBHOOK
    from workflows.calls import CallFailure, call_options, durable
    from workflows.guards import answering, drop_unless, ending, starting
    from workflows.refusals import refusal, require
    from workflows.webhooks.deliveries import Deliveries
    from workflows.webhooks.news import WebhookOutbox
    from workflows.webhooks.state import EndpointState

MAX_AT_ONCE: Final = 4
"""Deliveries under way at the same time: a slow answer doesn't hold up the others."""
MAX_EVENTS_BEFORE_ROLLOVER: Final = 4_000
"""History events after which the endpoint continues as new."""
GONE: Final = "the receiver answered 410 (Gone)"
REFUSED_ENDS_AS_FAILED: Final = "refused-webhook-ends-as-failed"
"""Endpoints that were refused before ended as those do that were deleted."""

_DELIVER = call_options(policies.WEBHOOK_CALL_TIMEOUT, policies.WEBHOOK_CALL_RETRY, silence=HOUSE_UNAVAILABLE)
_HOUSE = call_options(policies.WEBHOOK_HOUSE_TIMEOUT, policies.WEBHOOK_HOUSE_RETRY, silence=HOUSE_UNAVAILABLE)


class EndpointStart(WebhookOpening):
    """What starts a run; ``state`` carries it over."""

    CARRIED: ClassVar[frozenset[str]] = frozenset({"state"})

    state: EndpointState | None = None


@workflow.defn(name=WEBHOOK.name)
class WebhookEndpoint:
    """One endpoint; its workflow id is the webhook's id."""

    @workflow.init
    @starting
    def __init__(self, start: EndpointStart) -> None:
        self._opening = start.settings
        self._id = workflow.info().workflow_id
        self._state = start.state or EndpointState(settings=start.settings, created=workflow.now())
        self._deliveries = Deliveries(self._state.deliveries, policies.WEBHOOK_RETRY_DELAYS)
        self._outbox = WebhookOutbox()
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._refused: ApplicationError | None = None
        """Why it was never opened: no secret could be made, or there are too many."""
        self._moved = False
        """Whether something has changed what is due next."""

    @workflow.run
    @ending
    async def run(self, start: EndpointStart) -> None:
        """Lives until it is deleted."""
        telling = self._outbox.start()
        try:
            while not self._is_over():
                await self._wait()
                self._begin_due()
                if self._is_long():
                    await self._renew()
        except asyncio.CancelledError:  # Temporal's own, gentle way to end a workflow
            self._state.status = "deleted"
            await self._register()
        await workflow.wait_condition(
            lambda: not self._under_way and self._outbox.empty and workflow.all_handlers_finished()
        )
        telling.cancel()
        if self._refused is not None and workflow.patched(REFUSED_ENDS_AS_FAILED):
            raise self._refused  # an id is used up by what was opened, and by nothing else

    # The loop

    def _is_over(self) -> bool:
        return self._state.status == "deleted"

    async def _wait(self) -> None:
        """Waits until something is due, or has changed."""
        self._moved = False
        following = self._next()
        if following is not None and self._is_due(following):
            return
        left = None
        if following is not None and following.next_attempt is not None:
            left = following.next_attempt - workflow.now()
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._moved or self._is_over() or self._is_long(), timeout=left
            )

    def _next(self) -> WebhookDelivery | None:
        """Returns the delivery that is attempted next, if another may be under way."""
        at_once = 1 if self._state.last_failed else MAX_AT_ONCE
        may = self._state.status == "enabled" and self._state.secrets and len(self._under_way) < at_once
        return self._deliveries.next_due(self._under_way) if may else None

    @staticmethod
    def _is_due(delivery: WebhookDelivery) -> bool:
        assert delivery.next_attempt is not None, "what waits has a time"
        return delivery.next_attempt - workflow.now() < policies.WEBHOOK_SHORTEST_WAIT

    def _begin_due(self) -> None:
        while not self._is_long() and (due := self._next()) is not None:
            if not self._is_due(due):
                return
            self._under_way[due.delivery_id] = asyncio.create_task(self._attempt(due))

    def _is_long(self) -> bool:
        info = workflow.info()
        return (
            info.get_current_history_length() > MAX_EVENTS_BEFORE_ROLLOVER
            or info.is_continue_as_new_suggested()
        )

    async def _renew(self) -> None:
        await workflow.wait_condition(
            lambda: not self._under_way and self._outbox.empty and workflow.all_handlers_finished()
        )
        if not self._is_over():
            workflow.continue_as_new(EndpointStart(settings=self._opening, state=self._state))

    # Deliveries

    async def _attempt(self, delivery: WebhookDelivery) -> None:
        try:
            outcome = await self._send(delivery)
        finally:
            del self._under_way[delivery.delivery_id]
            self._moved = True
        now, state = workflow.now(), self._state
        after = self._deliveries.attempted(
            delivery.delivery_id,
            outcome.attempt,
            delivered=outcome.delivered,
            wait=outcome.retry_after,
            now=now,
        )
        state.note_attempt(delivered=outcome.delivered, now=now)
        if outcome.gone:
            await self._disable(GONE)
        elif after is not None and after.status == "failed":
            failing = state.failing_since
            if failing is not None and now - failing >= policies.WEBHOOK_DISABLED_AFTER:
                await self._disable(f"nothing was delivered since {failing:%Y-%m-%d %H:%M} UTC")

    async def _send(self, delivery: WebhookDelivery) -> WebhookOutcome:
        assert delivery.body is not None, "what waits has a body"
        now = workflow.now()
        call = WebhookCall(
            url=self._state.settings.url,
            delivery_id=delivery.delivery_id,
            body=delivery.body,
            secrets=tuple(secret.sealed for secret in self._state.live_secrets(now)),
        )
        try:
            return await durable(WebhookCalls.deliver_webhook, call, _DELIVER)
        except CallFailure as failure:
            error = f"it was not sent: {failure}"[:300]
            return WebhookOutcome(
                attempt=WebhookAttempt(time=now, milliseconds=0, error=error), delivered=False
            )

    async def _disable(self, why: str) -> None:
        if self._state.status != "enabled":
            return
        workflow.logger.warning("The webhook %s is disabled: %s", self._id, why)
        self._state.disable(why)
        await self._register()
        kind = OwnWebhookType.DISABLED
        since = str(self._state.revision)
        data = {"webhook_id": self._id, "reason": why}
        event = WebhookEvent(
            id=event_id(self._id, kind, since), type=kind, time=workflow.now(), data=dict(data)
        )
        self._outbox.put(event)

    async def _register(self) -> None:
        """Tells the registry; from then on everybody who has news knows."""
        await durable(WebhookCalls.register_webhook, self._state.subscription(self._id), _HOUSE)

    # News

    @workflow.signal
    @drop_unless(WebhookNews)
    def news(self, news: WebhookNews) -> None:
        """Takes news to be delivered, also what was told before the endpoint was disabled."""
        if self._is_over():
            return
        for event in news.events:
            self._take(event)

    def _take(self, event: WebhookEvent) -> WebhookDelivery | None:
        self._moved = True
        return self._deliveries.take(event, workflow.now(), self._under_way)

    # What its owner may say

    @workflow.update
    @answering
    async def make_secret(self, wanted: SecretWanted) -> SecretMade:
        """Makes a new secret; the earlier ones sign too, for as long as the overlap lasts.

        Raises:
            ApplicationError: ``WebhooksNeedKeys``, ``TooManyWebhooks``: of the first one, which ends it.
        """
        if wanted.first and self._state.secrets:
            return SecretMade(box=None)
        is_first = not self._state.secrets
        try:
            made = await durable(
                WebhookCalls.make_webhook_secret, SecretCall(recipient=wanted.recipient), _HOUSE
            )
            if is_first:
                await self._register()
        except CallFailure as failure:
            kind = names.WEBHOOKS_NEED_KEYS if failure.kind == SEALING_FAILED else failure.kind
            refused = refusal(kind, str(failure))
            if is_first and not self._state.secrets:
                self._refused, self._state.status = refused, "deleted"
            raise refused from None
        if wanted.first and self._state.secrets:
            return SecretMade(box=None)
        overlap = timedelta(seconds=wanted.overlap_seconds)
        self._state.add_secret(WebhookSecret(sealed=made.sealed, created=workflow.now()), overlap=overlap)
        self._moved = True
        return made.made

    @make_secret.validator
    def _validate_make_secret(self, wanted: SecretWanted) -> None:
        require(wanted, SecretWanted)
        self._check_living()

    @workflow.update
    @answering
    async def change(self, change: WebhookChange) -> WebhookView:
        """Changes what is given; from its answer on, everybody who has news knows."""
        self._state.change(change)
        self._moved = True
        await self._register()
        return self.status()

    @change.validator
    def _validate_change(self, change: WebhookChange) -> None:
        require(change, WebhookChange)
        self._check_living()

    @workflow.update
    @answering
    async def remove(self) -> WebhookView:
        """Deletes the endpoint: what waits is never sent."""
        self._state.status = "deleted"
        self._state.deliveries.waiting.clear()
        await self._register()
        return self.status()

    @workflow.update
    @answering
    def test(self) -> WebhookDelivery:
        """Sends a message of the type ``webhook.test``, whatever the endpoint wants to hear otherwise."""
        self._state.tests += 1
        kind, number, now = OwnWebhookType.TEST, self._state.tests, workflow.now()
        event = WebhookEvent(
            id=event_id(self._id, kind, str(number)), type=kind, time=now, data={"webhook_id": self._id}
        )
        delivery = self._take(event)
        assert delivery is not None, "each test has an id of its own"
        return delivery

    @test.validator
    def _validate_test(self) -> None:
        self._check_enabled()

    @workflow.update
    @answering
    def redeliver(self, wanted: DeliveryWanted) -> WebhookDelivery:
        """Begins a delivery anew, under its id: a receiver that has had it can tell."""
        again = self._deliveries.again(wanted.delivery_id, workflow.now())
        if again is None:
            raise self._why_not_again(wanted.delivery_id)
        self._moved = True
        return again

    @redeliver.validator
    def _validate_redeliver(self, wanted: DeliveryWanted) -> None:
        require(wanted, DeliveryWanted)
        self._check_enabled()

    def _why_not_again(self, delivery_id: str) -> ApplicationError:
        if self._deliveries.find(delivery_id) is not None:
            return refusal(names.DELIVERY_WAITS, f"'{delivery_id}' is still to be delivered.")
        return refusal(names.UNKNOWN_DELIVERY, f"There is no delivery '{delivery_id}' here (any more).")

    def _check_living(self) -> None:
        if self._is_over():
            raise refusal(names.WEBHOOK_DISABLED, "The webhook was deleted.")

    def _check_enabled(self) -> None:
        if self._state.status != "enabled":
            raise refusal(names.WEBHOOK_DISABLED, "The webhook is disabled; enable it first.")

    # Reading

    @workflow.query
    def status(self) -> WebhookView:
        """Returns the endpoint as it stands."""
        return self._state.view(self._id, workflow.now())

    @workflow.query
    def deliveries(self, wanted: DeliveriesWanted) -> WebhookDeliveries:
        """Returns deliveries, newest first, without what was sent."""
        return self._deliveries.page(wanted)

    @workflow.query
    def delivery(self, delivery_id: str) -> WebhookDelivery | None:
        """Returns a delivery with what was sent; ``None`` if it is unknown, or forgotten."""
        return self._deliveries.find(delivery_id)
