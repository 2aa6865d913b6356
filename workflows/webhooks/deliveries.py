"""What an endpoint is still to be sent, and what has become of the rest. Pure: no Temporal, no clock, no I/O.

Bounded in number and in bytes, for all of it is carried from run to run. Where too much waits the oldest is
dropped, and counted.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, Field

from waystation.models.base import replaced
from waystation.models.webhooks import (
    DeliveriesWanted,
    WebhookAttempt,
    WebhookDeliveries,
    WebhookDelivery,
    WebhookEvent,
)

MAX_WAITING: Final = 1_000
MAX_WAITING_BYTES: Final = 384 * 1024
MAX_LOGGED: Final = 200
MAX_LOGGED_BYTES: Final = 256 * 1024
"""Together with what waits below 1 MB: half of what Temporal takes as one payload."""
MAX_ATTEMPTS_LOGGED: Final = 12
"""Of one delivery; the latest."""
_DELIVERY_BYTES: Final = 1_000
"""About what a delivery takes beside its body: up to twelve attempts."""


class DeliveriesState(BaseModel):
    """What is carried across continue-as-new. Both lists begin with the oldest."""

    waiting: list[WebhookDelivery] = Field(default_factory=list)
    logged: list[WebhookDelivery] = Field(default_factory=list)
    dropped: int = 0


class Deliveries:
    """The deliveries of one endpoint.

    Args:
        state: is changed in place.
        delays: the pauses between the attempts of one delivery.
    """

    def __init__(self, state: DeliveriesState, delays: Sequence[timedelta]) -> None:
        self.state = state
        self._delays = tuple(delays)

    def take(
        self, event: WebhookEvent, now: datetime, under_way: Collection[str] = ()
    ) -> WebhookDelivery | None:
        """Adds a message; returns ``None`` for one that is known already."""
        if self.find(event.id) is not None:
            return None
        delivery = WebhookDelivery(
            delivery_id=event.id,
            type=event.type,
            time=event.time,
            status="waiting",
            next_attempt=now,
            body=event.body(),
        )
        self.state.waiting.append(delivery)
        self._drop_surplus(under_way)
        return delivery

    def find(self, delivery_id: str) -> WebhookDelivery | None:
        """Returns a delivery that waits or is still logged."""
        both = (*self.state.waiting, *self.state.logged)
        return next((one for one in both if one.delivery_id == delivery_id), None)

    def next_due(self, under_way: Collection[str]) -> WebhookDelivery | None:
        """Returns what is to be attempted next, now or later; of several the one that came first."""
        free = [one for one in self.state.waiting if one.delivery_id not in under_way]
        return min(free, key=_due, default=None)

    def attempted(
        self,
        delivery_id: str,
        attempt: WebhookAttempt,
        *,
        delivered: bool,
        wait: timedelta | None,
        now: datetime,
        final: bool = False,
    ) -> WebhookDelivery | None:
        """Records an attempt; returns the delivery as it stands, or ``None`` if it was dropped meanwhile.

        After a ``final`` one there is no other.
        """
        waiting = self.state.waiting
        index = next((at for at, one in enumerate(waiting) if one.delivery_id == delivery_id), None)
        if index is None:
            return None
        before = waiting[index]
        tried = before.tried + 1
        attempts = (*before.attempts, attempt)[-MAX_ATTEMPTS_LOGGED:]
        if not delivered and not final and tried <= len(self._delays):
            pause = max(self._delays[tried - 1], wait or timedelta(0))
            waiting[index] = replaced(before, attempts=attempts, tried=tried, next_attempt=now + pause)
            return waiting[index]
        after = replaced(
            before,
            attempts=attempts,
            tried=tried,
            next_attempt=None,
            status="delivered" if delivered else "failed",
        )
        del waiting[index]
        self.state.logged.append(after)
        self._forget_surplus()
        return after

    def withdraw(self, unwanted: Callable[[WebhookDelivery], bool]) -> None:
        """Leaves undone what waits and isn't wanted any more."""
        self.state.waiting = [one for one in self.state.waiting if not unwanted(one)]

    def again(self, delivery_id: str, now: datetime) -> WebhookDelivery | None:
        """Begins a delivery anew that has ended; returns ``None`` if none with this id has."""
        found = next((one for one in self.state.logged if one.delivery_id == delivery_id), None)
        if found is None:
            return None
        renewed = replaced(found, status="waiting", tried=0, next_attempt=now)
        self.state.logged.remove(found)
        self.state.waiting.append(renewed)
        return renewed

    def page(self, wanted: DeliveriesWanted) -> WebhookDeliveries:
        """Returns deliveries, newest first, without their bodies."""
        both = [*self.state.waiting, *self.state.logged]
        both.sort(key=lambda one: (one.time, one.delivery_id), reverse=True)
        if wanted.before is not None:
            place = next((at for at, one in enumerate(both) if one.delivery_id == wanted.before), len(both))
            both = both[place + 1 :]
        fitting = [one for one in both if wanted.status in (None, one.status)]
        page = tuple(replaced(one, body=None) for one in fitting[: wanted.limit])
        return WebhookDeliveries(deliveries=page, more=len(fitting) > wanted.limit)

    def _drop_surplus(self, under_way: Collection[str]) -> None:
        def drop(one: WebhookDelivery) -> bool:
            return one.delivery_id not in under_way

        self.state.dropped += _trim(self.state.waiting, MAX_WAITING, MAX_WAITING_BYTES, drop)

    def _forget_surplus(self) -> None:
        _trim(self.state.logged, MAX_LOGGED, MAX_LOGGED_BYTES, lambda _: True)


def _due(delivery: WebhookDelivery) -> datetime:
    assert delivery.next_attempt is not None, "what waits has a time"
    return delivery.next_attempt


def _size_bytes(delivery: WebhookDelivery) -> int:
    return _DELIVERY_BYTES + len((delivery.body or "").encode())


def _trim(
    deliveries: list[WebhookDelivery],
    max_count: int,
    max_bytes: int,
    may_go: Callable[[WebhookDelivery], bool],
) -> int:
    """Removes the oldest until the rest is within the bounds; returns how many were removed.

    The newest stays: nothing else would make room for it.
    """
    size, removed, index = sum(map(_size_bytes, deliveries)), 0, 0
    while (len(deliveries) > max_count or size > max_bytes) and index < len(deliveries) - 1:
        if may_go(deliveries[index]):
            size -= _size_bytes(deliveries.pop(index))
            removed += 1
        else:
            index += 1
    return removed
