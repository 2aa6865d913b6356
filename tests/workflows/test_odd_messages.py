"""Whatever is sent to a workflow, it goes on: it takes the next message, and answers."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import NoneType
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from temporalio import activity, workflow
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError, WorkflowUpdateStage
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

import waystation.temporal.messages as messages
from activities.contract import MandateQuestion
from tests.odd import ANYTHING, odd
from tests.support import EXAMPLES_FACTOR
from tests.world.workflow_sandbox import SANDBOX
from waystation.models.mandates import MandateTerms, MandateView
from waystation.models.money import Money
from waystation.models.payments import AllowanceOpening, AllowanceStart, PaidHttpRequest, PaidRequestStart
from waystation.models.purchases import BuyStart, OrderEventsStart, PurchaseRequest
from waystation.models.push import PushOpening, PushPerson
from waystation.models.sessions import StartSession, TurnInput
from waystation.models.webhooks import RegistryStart, WebhookOpening, WebhookSettings
from waystation.temporal.tokens import SignalName, UpdateName
from worker import WORKFLOWS, build_worker
from workflows.allowance import Allowance
from workflows.mandate import Mandate, MandateStart
from workflows.paid_request import PaidRequest
from workflows.purchase import Buy, Purchase, PurchaseStart
from workflows.purchase.order_events import OrderEvents
from workflows.push import PushSubscriber
from workflows.session import AgentSession
from workflows.session.turn import AgentTurn, TurnPlan
from workflows.webhooks import WebhookEndpoint, Webhooks

MAX_EXAMPLES = 5 * EXAMPLES_FACTOR
MESSAGES_IN_EXAMPLE = 12
UNHANDLED_COMMAND = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND
MONEY = Money(amount=500, currency="usd")
TERMS = MandateTerms.model_validate(
    {
        "owner": "alice",
        "agent": "shopper",
        "cap": {"amount": 10_000, "currency": "usd"},
        "valid_until": datetime.now(UTC) + timedelta(days=1),
        "sellers": ["*"],
    }
)
BUYING = PurchaseRequest.model_validate(
    {
        "agent": {"id": "shopper"},
        "mandate_id": "m",
        "seller": "https://shop.example",
        "currency": "usd",
        "items": [{"id": "tea", "quantity": 1}],
    }
)
PAYING = PaidRequestStart(
    request=PaidHttpRequest(url="https://api.example/"), max_price=MONEY, mandate_id="m", agent="shopper"
)
BUDGET = AllowanceStart(
    mandate_id="m", agent="shopper", seller="https://api.example", budget=MONEY, max_price=MONEY
)

PUSHED = PushPerson(subject="olga", role="operator", sessions=None, by_key=True)
RECEIVER = WebhookSettings(url="https://receiver.example/", events=("*",))

TURN = TurnInput(session_id="s", turn_id="t1", attempt=1, agent="nobody", text="hello")


class Subject(NamedTuple):
    """How a workflow is started, which messages it takes, and what it answers."""

    given: Any
    """What it is started with, or a function that makes it anew each time."""
    prefixes: tuple[str, ...]
    query: str | None

    @property
    def start(self) -> Any:
        return self.given() if callable(self.given) else self.given


SUBJECTS: dict[type, Subject] = {
    AgentSession: Subject(StartSession(agent="nobody"), ("SESSION_",), "snapshot"),
    Mandate: Subject(MandateStart(terms=TERMS), ("MANDATE_",), "balance"),
    Purchase: Subject(PurchaseStart(request=BUYING), ("PURCHASE_", "HOLDER_"), "status"),
    PaidRequest: Subject(PAYING, ("PAID_REQUEST_", "HOLDER_"), "status"),
    Allowance: Subject(AllowanceOpening(start=BUDGET), ("ALLOWANCE_", "HOLDER_"), "status"),
    AgentTurn: Subject(TurnPlan(turn=TURN), ("TURN_",), None),
    Buy: Subject(lambda: BuyStart(purchase_id=f"odd-{uuid.uuid4()}", request=BUYING), ("BUY_",), None),
    OrderEvents: Subject(OrderEventsStart(), ("ORDER_EVENTS_",), None),
    WebhookEndpoint: Subject(WebhookOpening(settings=RECEIVER), ("WEBHOOK_",), "status"),
    Webhooks: Subject(RegistryStart(), ("WEBHOOKS_",), "subscriptions"),
    PushSubscriber: Subject(PushOpening(person=PUSHED), ("PUSH_",), "status"),
}

Message = SignalName[Any] | UpdateName[Any, Any]
Sent = tuple[Message, list[Any]]


def messages_to(subject: Subject) -> list[Message]:
    return [
        token
        for name, token in vars(messages).items()
        if name.startswith(subject.prefixes) and isinstance(token, SignalName | UpdateName)
    ]


def anything_sent_to(subject: Subject) -> st.SearchStrategy[list[Sent]]:
    def arguments(token: Message) -> st.SearchStrategy[Sent]:
        one = ANYTHING if token.argument is NoneType else odd(token.argument)
        given = one.map(lambda value: [value]) | st.lists(ANYTHING, max_size=2)
        return st.tuples(st.just(token), given)

    tokens = st.sampled_from(messages_to(subject))
    return st.lists(tokens.flatmap(arguments), min_size=1, max_size=MESSAGES_IN_EXAMPLE)


@activity.defn(name="read_mandate")
async def later(_: MandateQuestion) -> MandateView:
    """Keeps purchases and payments where they begin, open to messages."""
    raise ApplicationError("ask later")


@pytest.fixture(scope="module")
async def queue(temporal: Client) -> AsyncIterator[str]:
    async def nobody(_: str) -> None:
        return None

    name = f"odd-{uuid.uuid4()}"
    async with build_worker(temporal, nobody, task_queue=name, money=[later], workflow_runner=SANDBOX):
        yield name


async def send(handle: WorkflowHandle[Any, Any], token: Message, arguments: list[Any]) -> None:
    try:
        if isinstance(token, SignalName):
            await handle.signal(token.name, args=arguments)
        else:
            # Accepted or rejected: a workflow that waits for somebody has no result for a long time.
            await handle.start_update(token.name, args=arguments, wait_for_stage=WorkflowUpdateStage.ACCEPTED)
    except WorkflowUpdateFailedError:
        return
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:  # one of the messages has ended it in order
            raise


@pytest.mark.parametrize("kind", SUBJECTS, ids=lambda kind: kind.__name__)
async def test_a_workflow_answers_whatever_it_was_sent(temporal: Client, queue: str, kind: type) -> None:
    subject = SUBJECTS[kind]
    name = workflow._Definition.must_from_class(kind).name or ""

    @settings(
        max_examples=MAX_EXAMPLES,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(anything_sent_to(subject))
    def examples(sent: list[Sent]) -> None:
        batches.append(sent)

    batches: list[list[Sent]] = []
    examples()
    for sent in batches:
        handle = await temporal.start_workflow(
            name,
            subject.start,
            id=f"odd-{uuid.uuid4()}",
            task_queue=queue,
        )
        for token, arguments in sent:
            await send(handle, token, arguments)
        await check_alive(handle, subject, sent)
        with contextlib.suppress(RPCError):
            await handle.terminate()


async def check_alive(handle: WorkflowHandle[Any, Any], subject: Subject, sent: list[Sent]) -> None:
    """Shows that no task has failed: the messages were all handled, and what was asked is answered."""
    try:
        await handle.query(subject.query or "__stack_trace", rpc_timeout=timedelta(seconds=20))
        async for event in handle.fetch_history_events():
            if event.HasField("workflow_task_failed_event_attributes"):
                failed = event.workflow_task_failed_event_attributes
                # A task that ends the workflow while one more message comes is repeated; nothing is wrong.
                assert failed.cause == UNHANDLED_COMMAND, failed.failure.message
    except Exception as error:
        error.add_note(f"after {sent}")
        raise


def test_every_workflow_with_handlers_is_tried() -> None:
    assert set(SUBJECTS) == set(WORKFLOWS)
