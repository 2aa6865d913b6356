"""What each type of item needs, so that readers of the log can rely on it: one table for API and session."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, Field, ValidationError

from waystation.malformed import what_is_wrong
from waystation.models.base import FrozenOpen
from waystation.models.events import EventType, Item, may_be_for_staff
from waystation.models.questions import QuestionAsked, QuestionWithdrawn
from waystation.models.usage import UsageReported


class ToolData(FrozenOpen):
    """Which call of which tool; what else is said of it is free."""

    call_id: Annotated[str, Field(min_length=1)]
    name: str


class SteerData(FrozenOpen):
    """Which steer was taken up."""

    steer_id: Annotated[str, Field(min_length=1)]


class WholeData(FrozenOpen):
    """The whole text of a message; without it, the deltas are the text."""

    text: str = ""


class AnyData(FrozenOpen):
    """Nothing in particular."""


@dataclass(frozen=True)
class Needs:
    """What an item of one type must have: a message it belongs to, and certain data."""

    message: bool
    data: type[BaseModel]
    strict: bool = True
    """Whether values must have their types already, as Python has them; lists are no tuples then."""


NEEDS: Final[Mapping[str, Needs]] = {
    EventType.MESSAGE_STARTED: Needs(message=True, data=AnyData),
    EventType.MESSAGE_COMPLETED: Needs(message=True, data=WholeData),
    EventType.TOOL_CALLED: Needs(message=False, data=ToolData),
    EventType.TOOL_RETURNED: Needs(message=False, data=ToolData),
    EventType.STEER_CONSUMED: Needs(message=False, data=SteerData),
    EventType.INPUT_REQUESTED: Needs(message=False, data=QuestionAsked, strict=False),
    EventType.INPUT_WITHDRAWN: Needs(message=False, data=QuestionWithdrawn),
    EventType.USAGE_REPORTED: Needs(message=False, data=UsageReported),
}
_NO_NEEDS: Final = Needs(message=False, data=AnyData)
"""``data.<name>`` needs nothing; ``message.delta``, the most frequent, is checked where it is placed."""


def what_is_missing(item: Item) -> str | None:
    """Returns what keeps an item from being what its type says, naming the place; ``None`` if nothing does.

    >>> what_is_missing(Item(n=1, type="tool.called", data={"call_id": "c1"}))
    'data.name: Field required'
    """
    needs = NEEDS.get(item.type, _NO_NEEDS)
    if item.visibility and not may_be_for_staff(item.type):
        return f"visibility: {item.type} is for everybody"
    if needs.message and item.message_id is None:
        return "message_id: Field required"
    try:
        needs.data.model_validate(item.data, strict=needs.strict)
    except ValidationError as error:
        return f"data.{what_is_wrong(error)[0]}"
    return None
