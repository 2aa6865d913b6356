"""``PushSubscriber``: a person who is told, in browsers of theirs, that something waits for them.

The API knows what waits for whom, and says it by signal: all of it, each time that it has changed, each of
its processes for itself. So it may say the same twice, and what it says late is corrected by what it says
next. This workflow knows what each browser was told, and tells the rest: each attempt is an activity, the
pauses between attempts are timers. It ends with the last browser.
"""

import asyncio
import contextlib
from datetime import datetime
from typing import ClassVar, Final

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.policies as policies
    from activities.contract import HOUSE_UNAVAILABLE, PushCall, PushCalls, PushOutcome
    from waystation.models.push import (
        MAX_BROWSERS,
        PushOpening,
        PushRemoval,
        PushTarget,
        PushView,
        PushWaiting,
        topic_of,
    )
    from waystation.models.webhooks import WebhookAttempt
    from waystation.temporal.messages import PUSH
    from waystation.temporal.names import TOO_MANY_BROWSERS
    from workflows.calls import CallFailure, call_options, durable
    from workflows.guards import answering, drop_unless, ending, starting
    from workflows.push.state import PushBook, PushState, TooManyError
    from workflows.refusals import refusal, require

MAX_AT_ONCE: Final = 4
MAX_EVENTS_BEFORE_ROLLOVER: Final = 4_000
"""History events after which it continues as new."""

_DELIVER = call_options(policies.WEBHOOK_CALL_TIMEOUT, policies.WEBHOOK_CALL_RETRY, silence=HOUSE_UNAVAILABLE)


class SubscriberStart(PushOpening):
    """What starts a run; ``state`` carries it over."""

    CARRIED: ClassVar[frozenset[str]] = frozenset({"state"})

    state: PushState | None = None


@workflow.defn(name=PUSH.name)
class PushSubscriber:
    """One person with the rights of a credential; the workflow id follows from these."""

    @workflow.init
    @starting
    def __init__(self, start: SubscriberStart) -> None:
        self._person = start.person
        self._state = start.state or PushState()
        self._book = PushBook(self._state, policies.PUSH_RETRY_DELAYS)
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._moved = False
        """Whether something has changed what is due next."""

    @workflow.run
    @ending
    async def run(self, start: SubscriberStart) -> None:
        """Lives until the last browser is gone."""
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(lambda: self._state.opened, timeout=policies.PUSH_OPENING_TIMEOUT)
        while self._state.targets:
            await self._wait()
            # What is due within this time is due, here too: nothing waits for less.
            self._book.expire(workflow.now() + policies.WEBHOOK_SHORTEST_WAIT)
            self._begin_due()
            if self._is_long():
                await self._renew()
            if not self._state.targets:  # another may come until all that is under way has ended
                await workflow.wait_condition(lambda: bool(self._state.targets) or self._is_quiet())

    def _is_quiet(self) -> bool:
        return not self._under_way and workflow.all_handlers_finished()

    async def _wait(self) -> None:
        """Waits until something is due, or has changed."""
        self._moved = False
        now, following = workflow.now(), self._next_moment()
        if following is not None and following - now < policies.WEBHOOK_SHORTEST_WAIT:
            return
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._moved or not self._state.targets or self._is_long(),
                timeout=None if following is None else following - now,
            )

    def _next_moment(self) -> datetime | None:
        due = self._book.next_due(self._under_way) if len(self._under_way) < MAX_AT_ONCE else None
        moments = (self._book.next_end(), None if due is None else due.next_attempt)
        return min((one for one in moments if one is not None), default=None)

    def _begin_due(self) -> None:
        while len(self._under_way) < MAX_AT_ONCE and not self._is_long():
            due = self._book.next_due(self._under_way)
            if due is None or due.next_attempt is None:
                return
            now = workflow.now()
            if due.next_attempt - now >= policies.WEBHOOK_SHORTEST_WAIT:
                return
            sent = self._book.to_send(due.delivery_id, now)
            if sent is None:
                self._book.drop(due.delivery_id)
                continue
            target, message, body = sent
            keep = policies.PUSH_KEPT_FOR
            if message.deadline is not None:
                keep = min(keep, message.deadline - now)
            call = PushCall(
                endpoint=target.endpoint,
                p256dh=target.p256dh,
                auth=target.auth,
                body=body,
                topic=topic_of(message.key),
                keep_seconds=int(keep.total_seconds()),
            )
            self._under_way[due.delivery_id] = asyncio.create_task(
                self._attempt(due.delivery_id, target.subscription_id, call)
            )

    def _is_long(self) -> bool:
        info = workflow.info()
        return (
            info.get_current_history_length() > MAX_EVENTS_BEFORE_ROLLOVER
            or info.is_continue_as_new_suggested()
        )

    async def _renew(self) -> None:
        await workflow.wait_condition(self._is_quiet)
        if self._state.targets:
            workflow.continue_as_new(SubscriberStart(person=self._person, state=self._state))

    async def _attempt(self, delivery_id: str, subscription_id: str, call: PushCall) -> None:
        try:
            outcome = await self._send(call)
        finally:
            del self._under_way[delivery_id]
            self._moved = True
        now = workflow.now()
        self._book.attempted(
            delivery_id,
            outcome.attempt,
            delivered=outcome.delivered,
            final=outcome.final or outcome.gone,
            wait=outcome.retry_after,
            now=now,
        )
        if outcome.gone:
            self._book.unsubscribe(subscription_id)

    async def _send(self, call: PushCall) -> PushOutcome:
        try:
            return await durable(PushCalls.deliver_push, call, _DELIVER)
        except CallFailure as failure:
            error = f"it was not sent: {failure}"[:300]
            attempt = WebhookAttempt(time=workflow.now(), milliseconds=0, error=error)
            return PushOutcome(attempt=attempt, delivered=False)

    # Messages

    @workflow.signal
    @drop_unless(PushWaiting)
    def attention(self, waiting: PushWaiting) -> None:
        """Takes all that waits for the person now."""
        self._book.take(waiting.items, workflow.now(), self._under_way)
        self._moved = True

    @workflow.update
    @answering
    def subscribe(self, target: PushTarget) -> PushView:
        """Tells a browser too from now on, or until another time."""
        try:
            self._book.subscribe(target, workflow.now())
        except TooManyError:
            raise refusal(
                TOO_MANY_BROWSERS, f"{MAX_BROWSERS} browsers of yours are told already; remove one first."
            ) from None
        self._moved = True
        return self.status()

    @subscribe.validator
    def _validate_subscribe(self, target: PushTarget) -> None:
        require(target, PushTarget)

    @workflow.update
    @answering
    def unsubscribe(self, removal: PushRemoval) -> PushView:
        """Tells a browser nothing more."""
        self._book.unsubscribe(removal.subscription_id)
        self._moved = True
        return self.status()

    @unsubscribe.validator
    def _validate_unsubscribe(self, removal: PushRemoval) -> None:
        require(removal, PushRemoval)

    @workflow.query
    def status(self) -> PushView:
        """Returns the browsers, and the latest that they were told."""
        return self._book.view()
