"""Whom a person's browsers are, what waits, and what each was told. Pure: no Temporal, no clock, no I/O."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from waystation.models.attention import AttentionItem, AttentionKind
from waystation.models.base import Frozen, replaced
from waystation.models.push import (
    MAX_BROWSERS,
    PushDelivery,
    PushSubscriptionView,
    PushTarget,
    PushView,
    body_of,
    key_of,
)
from waystation.models.webhooks import (
    DeliveriesWanted,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEvent,
    event_id,
)
from workflows.webhooks.deliveries import Deliveries, DeliveriesState

MAX_TOLD: Final = 1_000
"""How much is remembered of what browsers were told; more than can wait at a time."""
MAX_DELIVERIES_SHOWN: Final = 20


class Message(Frozen):
    """What a delivery is about."""

    subscription_id: str
    key: str
    kind: AttentionKind
    id: str
    deadline: datetime | None = None


class PushState(BaseModel):
    """Everything that is carried across continue-as-new."""

    opened: bool = False
    """Whether there ever was a browser."""
    targets: list[PushTarget] = Field(default_factory=list)
    waiting: tuple[AttentionItem, ...] = ()
    """What waits for the person now."""
    told: list[str] = Field(default_factory=list)
    """Deliveries that were begun: none is begun again. The latest are last."""
    messages: dict[str, Message] = Field(default_factory=dict)
    """By delivery, as long as that is known."""
    deliveries: DeliveriesState = Field(default_factory=DeliveriesState)


class TooManyError(Exception):
    """The person has as many browsers as they may."""


class PushBook:
    """Decides what is sent to whom.

    Args:
        state: is changed in place.
        delays: the pauses between the attempts of one delivery.
    """

    def __init__(self, state: PushState, delays: Sequence[timedelta]) -> None:
        self.state = state
        self._deliveries = Deliveries(state.deliveries, delays)

    # Browsers

    def subscribe(self, target: PushTarget, now: datetime) -> None:
        """Adds a browser, or renews it.

        Raises:
            TooManyError: There are too many.
        """
        before = self.target(target.subscription_id)
        if before is None and len(self.state.targets) >= MAX_BROWSERS:
            raise TooManyError
        created = now if before is None else before.created
        kept = [one for one in self.state.targets if one is not before]
        self.state.targets = [*kept, replaced(target, created=created)]
        self.state.opened = True

    def unsubscribe(self, subscription_id: str) -> None:
        """Removes a browser; what it was still to be told is left undone."""
        self.state.targets = [one for one in self.state.targets if one.subscription_id != subscription_id]
        self._leave_undone(())

    def expire(self, now: datetime) -> None:
        """Removes the browsers whose token has ended."""
        for one in list(self.state.targets):
            if one.ends is not None and one.ends <= now:
                self.unsubscribe(one.subscription_id)

    def next_end(self) -> datetime | None:
        """Returns when the first token ends."""
        return min((one.ends for one in self.state.targets if one.ends is not None), default=None)

    def target(self, subscription_id: str) -> PushTarget | None:
        return next((one for one in self.state.targets if one.subscription_id == subscription_id), None)

    # What waits

    def take(self, items: Sequence[AttentionItem], now: datetime, under_way: Collection[str]) -> None:
        """Takes what waits now: what is new is to be told, what is settled needn't be any more."""
        self.state.waiting = tuple(items)
        self._leave_undone(under_way)
        known = set(self.state.told)
        for target in self.state.targets:
            for item in items:
                delivery_id = event_id(target.subscription_id, key_of(item))
                assert target.created is not None, "it is set when a browser is taken"
                if item.since <= target.created:
                    continue
                if delivery_id in known:
                    self.state.told.remove(delivery_id)
                else:
                    self._begin(delivery_id, target, item, now, under_way)
                self.state.told.append(delivery_id)
        del self.state.told[:-MAX_TOLD]
        self._forget()

    def _begin(
        self,
        delivery_id: str,
        target: PushTarget,
        item: AttentionItem,
        now: datetime,
        under_way: Collection[str],
    ) -> None:
        self.state.messages[delivery_id] = Message(
            subscription_id=target.subscription_id,
            key=key_of(item),
            kind=item.kind,
            id=item.id,
            deadline=item.deadline,
        )
        event = WebhookEvent(id=delivery_id, type=item.kind, time=item.since)
        self._deliveries.take(event, now, under_way)

    def _leave_undone(self, under_way: Collection[str]) -> None:
        """Leaves undone what is settled, or for a browser that is gone."""
        wanted = {key_of(item) for item in self.state.waiting}
        ids = {one.subscription_id for one in self.state.targets}
        messages = self.state.messages

        def undone(delivery: WebhookDelivery) -> bool:
            message = messages[delivery.delivery_id]
            if delivery.delivery_id in under_way:
                return False
            return message.key not in wanted or message.subscription_id not in ids

        withdrawn = {one.delivery_id for one in self.state.deliveries.waiting if undone(one)}
        self._deliveries.withdraw(lambda one: one.delivery_id in withdrawn)
        # It may come back: an API process that has just begun doesn't know all yet.
        self.state.told = [one for one in self.state.told if one not in withdrawn]

    def _forget(self) -> None:
        both = (*self.state.deliveries.waiting, *self.state.deliveries.logged)
        known = {one.delivery_id for one in both}
        self.state.messages = {one: what for one, what in self.state.messages.items() if one in known}

    # Deliveries

    def next_due(self, under_way: Collection[str]) -> WebhookDelivery | None:
        return self._deliveries.next_due(under_way)

    def to_send(self, delivery_id: str, now: datetime) -> tuple[PushTarget, Message, str] | None:
        """Returns what is sent where; ``None`` where it isn't any more."""
        message = self.state.messages[delivery_id]
        target = self.target(message.subscription_id)
        item = next((one for one in self.state.waiting if key_of(one) == message.key), None)
        over = message.deadline is not None and message.deadline <= now
        if target is None or item is None or over:
            return None
        return target, message, body_of(item)

    def drop(self, delivery_id: str) -> None:
        """Leaves a delivery undone that is due and makes no sense any more."""
        self._deliveries.withdraw(lambda one: one.delivery_id == delivery_id)
        self._forget()

    def attempted(
        self,
        delivery_id: str,
        attempt: WebhookAttempt,
        *,
        delivered: bool,
        final: bool,
        wait: timedelta | None,
        now: datetime,
    ) -> None:
        """Records an attempt."""
        self._deliveries.attempted(delivery_id, attempt, delivered=delivered, final=final, wait=wait, now=now)
        self._forget()

    def view(self) -> PushView:
        """Returns what the person sees of it."""
        page = self._deliveries.page(DeliveriesWanted(limit=MAX_DELIVERIES_SHOWN))
        return PushView(
            public_key=None,
            subscriptions=tuple(_shown(one) for one in self.state.targets),
            deliveries=tuple(self._shown(one) for one in page.deliveries),
        )

    def _shown(self, delivery: WebhookDelivery) -> PushDelivery:
        message = self.state.messages[delivery.delivery_id]
        return PushDelivery(
            subscription_id=message.subscription_id,
            kind=message.kind,
            id=message.id,
            time=delivery.time,
            status=delivery.status,
            attempts=delivery.attempts,
            next_attempt=delivery.next_attempt,
        )


def _shown(target: PushTarget) -> PushSubscriptionView:
    assert target.created is not None, "it is set when a browser is taken"
    return PushSubscriptionView(
        subscription_id=target.subscription_id,
        service=urlsplit(target.endpoint).hostname or "",
        created=target.created,
        ends=target.ends,
    )
