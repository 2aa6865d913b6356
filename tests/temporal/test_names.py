"""Every name of ``messages`` has its handlers, and every handler its name, with the same types."""

import ast
import inspect
from collections.abc import Callable
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from temporalio import activity, workflow

import waystation.temporal.messages as messages
import waystation.temporal.names as names
from activities.announcements import Announcements
from activities.search import SearchKeys
from activities.sessions import SessionWrites
from tests.architecture.support import called, name_of, sources, tree
from waystation.agent.runner import Runner
from waystation.temporal.tokens import ActivityName, QueryName, SignalName, UpdateName, WorkflowName
from waystation.workflow.inbox import Inbox
from worker import WORKFLOWS
from workflows.allowance import Allowance
from workflows.mandate import Mandate
from workflows.paid_request import PaidRequest
from workflows.purchase import Buy, Purchase
from workflows.purchase.order_events import OrderEvents
from workflows.push import PushSubscriber
from workflows.session import AgentSession
from workflows.session.turn import AgentTurn
from workflows.webhooks import WebhookEndpoint, Webhooks

Message = SignalName[Any] | UpdateName[Any, Any] | QueryName[Any, Any]
Kind = type[SignalName[Any]] | type[UpdateName[Any, Any]] | type[QueryName[Any, Any]]

TAKES: dict[type, tuple[str, ...]] = {
    AgentSession: ("SESSION_",),
    AgentTurn: ("TURN_",),
    Mandate: ("MANDATE_",),
    Purchase: ("PURCHASE_", "HOLDER_"),
    Buy: ("BUY_",),
    OrderEvents: ("ORDER_EVENTS_",),
    PaidRequest: ("PAID_REQUEST_", "HOLDER_"),
    Allowance: ("ALLOWANCE_", "HOLDER_"),
    WebhookEndpoint: ("WEBHOOK_",),
    Webhooks: ("WEBHOOKS_",),
    PushSubscriber: ("PUSH_",),
}
"""Which tokens are for which workflow, by how their names begin."""

TAKEN_BY_OTHERS: dict[str, Callable[..., object]] = {
    "OWNER_NEWS": Inbox.take,
    "ASKER_ANSWERED": Inbox.take_answer,
}
"""Tokens of messages to other people's workflows, and what takes them there."""

STARTED_BY_NAME: dict[WorkflowName[Any, Any], type] = {
    messages.SESSION: AgentSession,
    messages.BUY: Buy,
    messages.ORDER_EVENTS: OrderEvents,
    messages.PAID_REQUEST: PaidRequest,
    messages.ALLOWANCE: Allowance,
    messages.WEBHOOK: WebhookEndpoint,
    messages.WEBHOOKS: Webhooks,
    messages.PUSH: PushSubscriber,
}
ACTIVITIES: dict[ActivityName[Any, Any], Callable[..., object]] = {
    messages.RUN_TURN: Runner.run_turn,
    messages.SUGGEST_REPLY: Runner.suggest_reply,
    messages.ANNOUNCE: Announcements.announce,
    messages.WRITE_TO_SESSION: SessionWrites.write_to_session,
    messages.READ_OUTCOME: SessionWrites.read_outcome,
    messages.SEARCH_KEY: SearchKeys.search_key,
}
BY_TEXT = {
    "signal",
    "query",
    "execute_update",
    "start_update",
    "start_workflow",
    "execute_workflow",
    "execute_update_with_start_workflow",
    "start_update_with_start_workflow",
    "WithStartWorkflowOperation",
    "start_child_workflow",
    "execute_child_workflow",
    "start_activity",
    "execute_activity",
    "start_local_activity",
    "execute_local_activity",
}
"""Calls of the SDK whose first argument may be a name as text."""


def tokens(*kinds: type) -> dict[str, Any]:
    return {name: token for name, token in vars(messages).items() if isinstance(token, kinds)}


def handlers(taking: type) -> dict[tuple[Kind, str], Callable[..., object]]:
    """A workflow's handlers by kind and name."""
    found = workflow._Definition.must_from_class(taking)
    by_kind: tuple[tuple[Kind, Any], ...] = (
        (SignalName, found.signals),
        (UpdateName, found.updates),
        (QueryName, found.queries),
    )
    return {(kind, str(name)): handler.fn for kind, defined in by_kind for name, handler in defined.items()}


def meant_for(taking: type) -> dict[str, Message]:
    """A workflow's messages by the names of their tokens."""
    return {
        name: token
        for name, token in tokens(SignalName, UpdateName, QueryName).items()
        if name.startswith(TAKES[taking] or "-")
    }


def taken_by(handler: Callable[..., object]) -> type:
    """The type of a handler's argument; further arguments must have defaults."""
    hints = get_type_hints(handler)
    first, *others = [*inspect.signature(handler).parameters.values()][1:] or [None]
    assert all(other.default is not inspect.Parameter.empty for other in others if other)
    if first is None:
        return NoneType
    return hints[first.name] if first.default is inspect.Parameter.empty else without_none(hints[first.name])


def without_none(hint: Any) -> Any:
    given = [one for one in get_args(hint) if one is not NoneType]
    return given[0] if NoneType in get_args(hint) and len(given) == 1 else hint


def test_every_workflow_is_known_by_its_name() -> None:
    assert set(TAKES) == set(WORKFLOWS)
    by_class = {
        AgentSession: names.SESSION_WORKFLOW,
        AgentTurn: names.TURN_WORKFLOW,
        Mandate: names.MANDATE_WORKFLOW,
        Purchase: names.PURCHASE_WORKFLOW,
    }
    expected = by_class | {taking: token.name for token, taking in STARTED_BY_NAME.items()}
    assert {one: workflow._Definition.must_from_class(one).name for one in WORKFLOWS} == expected


@pytest.mark.parametrize("taking", TAKES)
def test_a_workflow_has_a_handler_for_every_name_and_a_name_for_every_handler(taking: type) -> None:
    meant = [(type(token), token.name) for token in meant_for(taking).values()]
    assert len(meant) == len(set(meant)), "two tokens for one handler"
    assert set(meant) == set(handlers(taking))


def test_every_message_is_for_a_workflow() -> None:
    assert set(tokens(SignalName, UpdateName, QueryName)) == {
        *(name for taking in TAKES for name in meant_for(taking)),
        *TAKEN_BY_OTHERS,
    }
    assert set(tokens(WorkflowName).values()) == set(STARTED_BY_NAME)
    assert set(tokens(ActivityName).values()) == set(ACTIVITIES)


@pytest.mark.parametrize(
    ("taking", "name"), [(taking, name) for taking in TAKES for name in meant_for(taking)]
)
def test_a_handler_takes_and_returns_what_its_name_says(taking: type, name: str) -> None:
    token = meant_for(taking)[name]
    handler = handlers(taking)[type(token), token.name]
    assert taken_by(handler) == token.argument
    returned = get_type_hints(handler)["return"]
    if isinstance(token, SignalName):
        assert returned is NoneType
        return
    assert without_none(returned) == token.result
    # What callers see of a result that may be missing is declared with the token, as it can't be inferred.
    if returned != token.result:
        declared = get_args(messages.__annotations__[name])[0]
        assert get_origin(declared) is type(token)
        assert get_args(declared)[1] == returned


@pytest.mark.parametrize(("name", "handler"), TAKEN_BY_OTHERS.items())
def test_what_others_take_is_what_its_name_says(name: str, handler: Callable[..., object]) -> None:
    assert taken_by(handler) == getattr(messages, name).argument


@pytest.mark.parametrize(("token", "started"), STARTED_BY_NAME.items())
def test_a_workflow_takes_and_returns_what_its_name_says(token: WorkflowName[Any, Any], started: Any) -> None:
    assert issubclass(taken_by(started.run), token.argument)
    assert get_type_hints(started.run)["return"] == token.result


@pytest.mark.parametrize(("token", "method"), ACTIVITIES.items())
def test_an_activity_takes_and_returns_what_its_name_says(
    token: ActivityName[Any, Any], method: Callable[..., object]
) -> None:
    defined = activity._Definition.must_from_callable(method)
    assert defined.name == token.name
    assert taken_by(method) == token.argument
    assert without_none(get_type_hints(method)["return"]) == token.result


def test_no_name_is_written_where_it_is_used() -> None:
    written = [
        f"{name_of(path)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
        and called(node) in BY_TEXT
    ]
    assert written == []
