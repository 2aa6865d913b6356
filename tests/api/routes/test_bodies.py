"""What a route takes, the workflow takes: a body never admits what its message refuses."""

import inspect
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter

from api.main import create_app
from api.routes import mandates, paid_requests, purchases
from waystation.models.base import Frozen
from waystation.models.decisions import Cancel, Reject
from waystation.models.ingest import AgentFrame
from waystation.models.mandates import RevokeRequest
from waystation.models.needs import NEEDS
from waystation.models.purchases import RetryPayment, Revise, Revision
from waystation.models.socket import Command
from waystation.settings import Settings

SET_BY_THE_API = {"by", "approver", "proof"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (purchases.RejectBody, Reject),
        (purchases.CancelBody, Cancel),
        (purchases.RetryBody, RetryPayment),
        (paid_requests.RejectPayment, Reject),
        (paid_requests.CancelPayment, Cancel),
        (mandates.RevokeMandate, RevokeRequest),
    ],
)
def test_bodies_are_as_strict_as_messages(body: type[Frozen], message: type[Frozen]) -> None:
    there = message.model_json_schema()["properties"]
    said = {name: there[name] for name in there.keys() - SET_BY_THE_API}
    assert body.model_json_schema()["properties"] == said


def test_a_revision_is_the_message_without_its_sender() -> None:
    assert Revise.model_fields.keys() - Revision.model_fields.keys() == {"by"}
    assert issubclass(Revise, Revision)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _models(field.annotation)
    for part in get_args(annotation):
        yield from _models(part)


def _routes(routes: list[Any]) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        else:
            yield from _routes(getattr(getattr(route, "original_router", None), "routes", []))


def _lax(schema: Any) -> Iterator[str]:
    """The types that a field takes from a text too; models within are looked at for themselves."""
    if isinstance(schema, dict) and schema.get("type") in ("int", "float", "bool"):
        if not schema.get("strict"):
            yield schema["type"]
    elif isinstance(schema, dict) and schema.get("type") not in ("model", "tagged-union"):
        for name, part in schema.items():
            if name not in ("serialization", "metadata"):
                yield from _lax(part)
    elif isinstance(schema, list | tuple):
        for part in schema:
            yield from _lax(part)


def test_no_text_is_a_number_or_a_boolean() -> None:
    """Wherever somebody else's JSON comes in: ``"yes"`` is not true, and whoever sends it hears of it."""
    routes = _routes(create_app(Settings()).routes)
    taken = [body.field_info.annotation for route in routes for body in route.dependant.body_params]
    found = {model for annotation in taken for model in _models(annotation)}
    found |= (
        set(_models(AgentFrame))
        | set(_models(Command))
        | {model for needs in NEEDS.values() if not needs.strict for model in _models(needs.data)}
    )
    assert len(found) > 50
    lax = [
        f"{model.__name__}.{name}: {kind}"
        for model in found
        for name, field in model.model_fields.items()
        for kind in _lax(TypeAdapter(field.rebuild_annotation()).core_schema)
    ]
    assert sorted(lax) == []
