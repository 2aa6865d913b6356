"""``Webhooks``: which endpoints there are, and what each wants to hear.

One workflow, started by the first endpoint. What it knows is in its memo too: whoever has news reads it
there, from Temporal itself, without waiting for a worker.
"""

from typing import Final

from pydantic import JsonValue
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from waystation.models.webhooks import MAX_WEBHOOKS, RegistryStart, Subscription, SubscriptionList
    from waystation.temporal.messages import WEBHOOKS
    from waystation.temporal.names import SUBSCRIPTIONS, TOO_MANY_WEBHOOKS
    from workflows.guards import answering, ending, starting
    from workflows.refusals import refusal, require

MAX_DELETED_REMEMBERED: Final = 100
"""So that what an endpoint said late doesn't bring it back."""


@workflow.defn(name=WEBHOOKS.name)
class Webhooks:
    """The registry."""

    @workflow.init
    @starting
    def __init__(self, start: RegistryStart) -> None:
        known = start.state.subscriptions if start.state else ()
        self._known = {one.webhook_id: one for one in known}

    @workflow.run
    @ending
    async def run(self, start: RegistryStart) -> None:
        """Lives until it is terminated; continues as new where its history gets long."""
        workflow.upsert_memo(self._memo())
        await workflow.wait_condition(
            lambda: workflow.info().is_continue_as_new_suggested() and workflow.all_handlers_finished()
        )
        state = SubscriptionList(subscriptions=tuple(self._known.values()))
        # With its memo: between two runs nobody must find it empty.
        workflow.continue_as_new(RegistryStart(state=state), memo=self._memo())

    @workflow.update
    @answering
    def subscribe(self, subscription: Subscription) -> SubscriptionList:
        """Takes what an endpoint says of itself; what it has said before is left aside."""
        before = self._known.get(subscription.webhook_id)
        if before is None or subscription.revision > before.revision:
            self._known.pop(subscription.webhook_id, None)
            self._known[subscription.webhook_id] = subscription
            self._forget_deleted()
            workflow.upsert_memo(self._memo())
        return self.subscriptions()

    @subscribe.validator
    def _validate_subscribe(self, subscription: Subscription) -> None:
        require(subscription, Subscription)
        new = subscription.webhook_id not in self._known and not subscription.deleted
        if new and len(self._living()) >= MAX_WEBHOOKS:
            raise refusal(TOO_MANY_WEBHOOKS, f"There are {MAX_WEBHOOKS} webhooks; delete one first.")

    @workflow.query
    def subscriptions(self) -> SubscriptionList:
        """Returns those that exist, also those that are disabled."""
        return SubscriptionList(subscriptions=self._living())

    def _living(self) -> tuple[Subscription, ...]:
        return tuple(one for one in self._known.values() if not one.deleted)

    def _forget_deleted(self) -> None:
        deleted = [one.webhook_id for one in self._known.values() if one.deleted]
        for webhook_id in deleted[:-MAX_DELETED_REMEMBERED]:
            del self._known[webhook_id]

    def _memo(self) -> dict[str, JsonValue]:
        living: list[JsonValue] = [one.model_dump(mode="json") for one in self._living() if one.enabled]
        return {SUBSCRIPTIONS: living}
