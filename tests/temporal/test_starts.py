"""A start of a workflow that can't be read: a first one ends with a reason, that of a next run waits."""

import json
from typing import Any

import pytest
from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.exceptions import ApplicationError

from waystation.models.base import WorkflowStart
from waystation.models.purchases import OrderEventsStart
from waystation.models.webhooks import RegistryStart
from waystation.temporal.payload_converter import SharedPydanticPayloadConverter
from workflows.allowance.workflow import AllowanceRun
from workflows.mandate import MandateStart
from workflows.purchase.workflow import PurchaseStart
from workflows.push.subscriber import SubscriberStart
from workflows.session import SessionInput
from workflows.webhooks.endpoint import EndpointStart

STARTS: tuple[type[WorkflowStart], ...] = (
    SessionInput,
    MandateStart,
    PurchaseStart,
    AllowanceRun,
    OrderEventsStart,
    EndpointStart,
    RegistryStart,
    SubscriberStart,
)


def read(start: type[WorkflowStart], given: dict[str, Any]) -> None:
    payload = Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(given).encode())
    SharedPydanticPayloadConverter().from_payloads([payload], [start])


@pytest.mark.parametrize("start", STARTS)
def test_a_first_start_that_cannot_be_read_ends_with_a_reason(start: type[WorkflowStart]) -> None:
    with pytest.raises(ApplicationError, match="made_up: Extra inputs are not permitted") as refused:
        read(start, {"made_up": 1, **dict.fromkeys(start.CARRIED)})
    assert refused.value.non_retryable


@pytest.mark.parametrize("start", STARTS)
def test_a_next_run_that_cannot_be_read_waits_for_a_version_that_can(start: type[WorkflowStart]) -> None:
    """Whatever is new in it, what it holds is money or people's words."""
    [carried] = start.CARRIED
    with pytest.raises(ValidationError):
        read(start, {"made_up": 1, carried: {}})
