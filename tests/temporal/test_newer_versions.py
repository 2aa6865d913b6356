"""What a newer version of ours adds to a message stops no older one; HTTP is read strictly."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from temporalio.api.common.v1 import Payload

import activities.contract as contract
import activities.secrets as secrets
import waystation.temporal.messages as messages
from tests.world.keys import VAULT
from waystation.models.base import Frozen, WorkflowStart
from waystation.models.mandates import ReserveAnswer, ReserveRequest
from waystation.models.payments import SealedCredential
from waystation.models.proofs import FORGOTTEN
from waystation.models.purchases import PurchaseRequest, PurchaseView
from waystation.temporal.payload_converter import SharedPydanticPayloadConverter
from waystation.temporal.tokens import ActivityName, QueryName, SignalName, UpdateName

NEW = "made_up_by_a_newer_version"


def read(kind: Any, given: object) -> Any:
    payload = Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(given).encode())
    [value] = SharedPydanticPayloadConverter().from_payloads([payload], [kind])
    return value


def what_is_wrong_with(reading: Callable[[], object]) -> set[str]:
    try:
        reading()
    except ValidationError as error:
        return {one["type"] for one in error.errors()}
    return set()


def named() -> Iterator[Any]:
    """What workflows and activities are given and answer."""
    for token in vars(messages).values():
        if isinstance(token, SignalName | UpdateName | QueryName | ActivityName):
            yield token.argument
        if isinstance(token, UpdateName | QueryName | ActivityName):
            yield token.result
    for name, protocol in vars(contract).items():
        if name.endswith("Calls"):
            for method in vars(protocol).values():
                if callable(method) and hasattr(method, "__temporal_activity_definition"):
                    yield from get_type_hints(method).values()


def models_in(kind: Any, seen: set[type[BaseModel]]) -> None:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if kind not in seen:
            seen.add(kind)
            for field in kind.model_fields.values():
                models_in(field.annotation, seen)
        return
    for part in get_args(kind):
        models_in(part, seen)


def messages_between_us() -> list[type[BaseModel]]:
    seen: set[type[BaseModel]] = set()
    for kind in named():
        models_in(kind, seen)
    return sorted((one for one in seen if not issubclass(one, WorkflowStart)), key=lambda one: one.__name__)


ALL = messages_between_us()


def test_all_of_them_are_found() -> None:
    assert {"ReserveRequest", "PurchaseView", "OpenCheckout", "Cart", "SendMessage"} <= {
        one.__name__ for one in ALL
    }
    assert len(ALL) > 100
    assert NoneType not in ALL


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.__name__)
def test_a_new_field_is_left_out_between_our_own_processes(model: type[BaseModel]) -> None:
    assert "extra_forbidden" not in what_is_wrong_with(lambda: read(model, {NEW: 1}))


@pytest.mark.parametrize(
    "model", [one for one in ALL if issubclass(one, Frozen)], ids=lambda one: one.__name__
)
def test_it_is_refused_everywhere_else(model: type[BaseModel]) -> None:
    assert "extra_forbidden" in what_is_wrong_with(lambda: TypeAdapter(model).validate_python({NEW: 1}))


def test_a_new_field_deep_in_an_answer_stops_nobody() -> None:
    view = PurchaseView.model_validate(
        {
            "purchase_id": "p",
            "status": "paying",
            "final": False,
            "request": {
                "mandate_id": "m",
                "seller": "https://shop.example",
                "currency": "usd",
                "items": [{"id": "tea", "quantity": 1}],
                "agent": {"id": "shopper"},
            },
            "updated_at": datetime(2026, 1, 1, tzinfo=UTC),
        }
    )
    given = view.model_dump(mode="json")
    given["request"]["items"][0][NEW] = {"deep": [1]}
    assert read(PurchaseView, given) == view
    assert read(ReserveAnswer | None, None) is None


def test_a_message_with_a_new_field_is_read_with_all_that_is_known() -> None:
    known = ReserveRequest.model_validate(
        {
            "key": "k",
            "amount": {"amount": 5, "currency": "usd"},
            "seller": "https://shop.example",
            "agent": "shopper",
            "protocol": "acp",
            "hold_seconds": 60,
        }
    )
    assert read(ReserveRequest, {**known.model_dump(mode="json"), NEW: True}) == known


def test_a_request_over_http_stays_strict() -> None:
    with pytest.raises(ValidationError):
        PurchaseRequest.model_validate({NEW: 1})


def test_a_credential_that_a_newer_worker_has_sealed_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    within = {"header": "authorization", "value": "Payment x", "fingerprint": "f", NEW: 1}
    monkeypatch.setattr(secrets, "opened", lambda vault, sealed: json.dumps(within))
    sealed = SealedCredential(sealed=FORGOTTEN, fingerprint="f")
    assert secrets.opened_credential(VAULT, sealed).fingerprint == "f"
