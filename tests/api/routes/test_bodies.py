"""What a route takes, the workflow takes: a body never admits what its message refuses."""

import pytest

from api.routes import mandates, paid_requests, purchases
from waystation.models.base import Frozen
from waystation.models.decisions import Cancel, Reject
from waystation.models.mandates import RevokeRequest
from waystation.models.purchases import RetryPayment, Revise, Revision

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
