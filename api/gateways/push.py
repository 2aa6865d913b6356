"""The API's way to the workflows of people who are told by Web Push."""

import logging
import uuid
from datetime import timedelta
from typing import Final

from pydantic import ValidationError
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy

from api.errors import Problem
from api.gateways.calls import Calls, memo_of
from api.gateways.visible import NotFound, wording_of
from waystation.models.attention import AttentionItem
from waystation.models.push import (
    MAX_PUSH_PEOPLE,
    PushOpening,
    PushPerson,
    PushRemoval,
    PushTarget,
    PushView,
    PushWaiting,
)
from waystation.temporal.calls import ask, start_and_update, tell, until_taken, update
from waystation.temporal.messages import (
    PUSH,
    PUSH_ATTENTION,
    PUSH_STATUS,
    PUSH_SUBSCRIBE,
    PUSH_UNSUBSCRIBE,
)
from waystation.temporal.names import PUSH_PERSON, SESSION_TASK_QUEUE

LIST_TIMEOUT: Final = timedelta(seconds=20)
NO_BROWSERS: Final = "No browser of this person's is told anything (any more)."

logger = logging.getLogger(__name__)


class PushGateway:
    """Calls to ``PushSubscriber`` workflows."""

    def __init__(
        self, client: Client, timeout_seconds: float, *, task_queue: str = SESSION_TASK_QUEUE
    ) -> None:
        self._client, self._queue = client, task_queue
        wording = wording_of("person's list of browsers", no_subscription)
        # It ends with the last browser: whose workflow has ended has none.
        wording = wording._replace(ended=lambda: NotFound(NO_BROWSERS, code="unknown-subscription"))
        self._calls = Calls(client, timeout_seconds, PUSH.name, wording)

    async def people(self) -> list[PushPerson]:
        """Returns who is to be told, as far as Temporal's lists know them yet."""

        async def call() -> list[PushPerson]:
            found: list[PushPerson] = []
            query = f"WorkflowType='{PUSH.name}' AND ExecutionStatus='Running'"
            async for execution in self._client.list_workflows(query, rpc_timeout=self._calls.timeout):
                try:
                    person = PushPerson.model_validate((await memo_of(execution)).get(PUSH_PERSON))
                except ValidationError:
                    logger.info("%s can't be read, and is told nothing", execution.id)
                    continue
                if execution.id == person.workflow_id:
                    found.append(person)
                if len(found) == MAX_PUSH_PEOPLE:
                    break
            return found

        return await self._calls.guarded("", call, within=LIST_TIMEOUT, looks=True)

    async def subscribe(self, person: PushPerson, target: PushTarget) -> PushView:
        """Tells a browser of theirs too."""
        update_id = uuid.uuid4().hex

        async def call() -> PushView:
            return await until_taken(
                lambda: start_and_update(
                    self._client,
                    PUSH,
                    PushOpening(person=person),
                    PUSH_SUBSCRIBE,
                    target,
                    update_id=update_id,
                    id=person.workflow_id,
                    task_queue=self._queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    memo={PUSH_PERSON: person.model_dump(mode="json")},
                )
            )

        return await self._calls.guarded(person.workflow_id, call)

    async def unsubscribe(self, person: PushPerson, subscription_id: str) -> PushView:
        """Tells a browser nothing more; one that is unknown isn't told anything anyway.

        Raises:
            NotFound: The person has no browsers at all.
        """
        handle = self._client.get_workflow_handle(person.workflow_id)
        removal = PushRemoval(subscription_id=subscription_id)
        return await self._calls.guarded(
            person.workflow_id, lambda: update(handle, PUSH_UNSUBSCRIBE, removal)
        )

    async def view(self, person: PushPerson) -> PushView:
        """Returns a person's browsers, and what they were told."""
        handle = self._client.get_workflow_handle(person.workflow_id)
        return await self._calls.guarded(person.workflow_id, lambda: ask(handle, PUSH_STATUS), looks=True)

    async def tell(self, person: PushPerson, items: tuple[AttentionItem, ...]) -> None:
        """Says what waits for them now.

        Raises:
            NotFound: They have no browsers any more.
        """
        handle = self._client.get_workflow_handle(person.workflow_id)
        waiting = PushWaiting(items=items)
        await self._calls.guarded(
            person.workflow_id,
            lambda: tell(handle, PUSH_ATTENTION, waiting, rpc_timeout=self._calls.timeout),
        )


def no_subscription(subscription_id: str) -> Problem:
    """There is none."""
    return NotFound(f"There is no push subscription '{subscription_id}'.", code="unknown-subscription")
