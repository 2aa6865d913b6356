"""Tells webhooks what has happened, from within the workflow to which it has happened.

Nothing here waits for a receiver. Who wants the news is asked of Temporal; with no endpoint that wants it,
nothing more is done. It is asked by an ordinary activity: one within the workflow task would keep the task
from people while Temporal is slow, and is lost, for as long as a task may take, with a workflow that has to
leave a worker's memory meanwhile. An endpoint hears it by a signal, which Temporal keeps until it
is delivered; an endpoint that is gone is passed over. A run ends or continues as new only when everything was
told, so nothing of it is carried over, and whatever kills a worker costs nothing.
"""

import asyncio
import contextlib
from typing import Final

from temporalio import workflow
from temporalio.exceptions import TemporalError

with workflow.unsafe.imports_passed_through():
    import workflows.policies as policies
    from activities.contract import HOUSE_UNAVAILABLE, WebhookCalls
    from waystation.models.base import replaced
    from waystation.models.events import EventType
    from waystation.models.webhooks import (
        MAX_EVENTS_IN_NEWS,
        NewsTypes,
        Subscription,
        WebhookEvent,
        WebhookNews,
        wants,
    )
    from waystation.temporal.calls import tell_workflow
    from waystation.temporal.messages import WEBHOOK_NEWS
    from workflows.calls import CallFailure, call_options, durable

WEBHOOKS: Final = "webhooks"
"""Runs that began before there were webhooks go on without them."""
GATHERED: Final = "webhooks-gathered"
"""Runs of money that began before this ask for each piece of news."""
URGENT: Final = frozenset({EventType.APPROVAL_REQUESTED})
"""What people are waited for is told at once."""
MAX_EVENTS_WAITING: Final = 1_000
"""The most that waits to be told, while Temporal doesn't answer; the oldest are dropped first."""

_ASK: Final = call_options(
    policies.WEBHOOK_HOUSE_TIMEOUT, policies.WEBHOOK_HOUSE_RETRY, silence=HOUSE_UNAVAILABLE
)


class WebhookOutbox:
    """What endpoints are still to be told.

    Args:
        gathers: whether news waits a moment for more, so that endpoints are asked for once: of a workflow
            that takes one step after another. ``hurry`` ends that.
    """

    def __init__(self, *, gathers: bool = False) -> None:
        self._waiting: list[WebhookEvent] = []
        self._telling = False
        self._taken: bool | None = None
        self._gathers = gathers

    @property
    def empty(self) -> bool:
        """Whether everything was told."""
        return not self._waiting and not self._telling

    def put(self, event: WebhookEvent | None) -> None:
        """Adds an event; ``None`` is nothing to tell."""
        if event is None:
            return
        if self._taken is None:
            self._gathers = self._gathers and workflow.patched(GATHERED)
            self._taken = self._gathers or workflow.patched(WEBHOOKS)
        if not self._taken:
            return
        self._waiting.append(event)
        if (surplus := len(self._waiting) - MAX_EVENTS_WAITING) > 0:
            workflow.logger.warning("webhooks are not told of %d events", surplus)
            del self._waiting[:surplus]

    def hurry(self) -> None:
        """Tells from now on without waiting for more: nothing else comes soon."""
        self._gathers = False

    def start(self) -> "asyncio.Task[None]":
        """Starts telling alongside the workflow's own work; the caller cancels the task in the end."""
        return asyncio.create_task(self._pump())

    async def _pump(self) -> None:
        while True:
            await workflow.wait_condition(lambda: bool(self._waiting))
            await self._gather()
            batch, self._waiting = (
                self._waiting[:MAX_EVENTS_IN_NEWS],
                self._waiting[MAX_EVENTS_IN_NEWS:],
            )
            self._telling = True
            try:
                await self._tell(batch)
            finally:
                self._telling = False

    async def _gather(self) -> None:
        if not self._gathers:
            return
        with contextlib.suppress(asyncio.TimeoutError):
            await workflow.wait_condition(self._is_due, timeout=policies.WEBHOOK_GATHERING)

    def _is_due(self) -> bool:
        enough = len(self._waiting) >= MAX_EVENTS_IN_NEWS
        return enough or not self._gathers or any(event.type in URGENT for event in self._waiting)

    async def _tell(self, batch: list[WebhookEvent]) -> None:
        types = tuple(sorted({event.type for event in batch}))
        try:
            known = await durable(WebhookCalls.webhook_subscribers, NewsTypes(types=types), _ASK)
        except CallFailure:
            workflow.logger.warning("webhooks are not told of %d events", len(batch))
            return
        await asyncio.gather(*(self._tell_one(one, batch) for one in known.subscriptions))

    async def _tell_one(self, subscription: Subscription, batch: list[WebhookEvent]) -> None:
        events = tuple(
            event if subscription.details else replaced(event, details=None)
            for event in batch
            if wants(subscription.events, event.type)
        )
        if events:
            with contextlib.suppress(TemporalError):  # the endpoint was deleted
                await tell_workflow(subscription.webhook_id, WEBHOOK_NEWS, WebhookNews(events=events))
