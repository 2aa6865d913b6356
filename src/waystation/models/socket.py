"""Commands that a client sends up its WebSocket, each answered under its ``request``."""

from typing import Annotated, Literal

from pydantic import Field

from waystation.models.base import Frozen
from waystation.models.events import Identifier
from waystation.models.requests import MessageRequest, SteerRequest, StopRequest


class SendCommand(Frozen):
    """``{"op": "send", "request": "1", "body": {"text": "hi"}}``"""

    op: Literal["send"]
    request: Identifier
    body: MessageRequest


class StopCommand(Frozen):
    """``{"op": "stop", "request": "2"}``"""

    op: Literal["stop"]
    request: Identifier
    body: StopRequest = StopRequest()


class SteerCommand(Frozen):
    """``{"op": "steer", "request": "3", "body": {"text": "shorter"}}``"""

    op: Literal["steer"]
    request: Identifier
    body: SteerRequest


Command = Annotated[SendCommand | StopCommand | SteerCommand, Field(discriminator="op")]
