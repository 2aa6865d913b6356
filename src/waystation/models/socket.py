"""Commands that a client sends up its WebSocket, each answered under its ``request``."""

from typing import Annotated, Literal

from pydantic import Field

from waystation.models.base import Frozen
from waystation.models.decisions import Digest
from waystation.models.events import Identifier
from waystation.models.mandates import Name
from waystation.models.questions import AnswerRequest
from waystation.models.requests import MessageRequest, SteerRequest, StopRequest, WithdrawRequest


class SendCommand(Frozen):
    """``{"op": "send", "request": "1", "body": {"text": "hi"}}``"""

    op: Literal["send"]
    request: Identifier
    body: MessageRequest


class WithdrawCommand(Frozen):
    """``{"op": "withdraw", "request": "6", "body": {"message_id": "m-7"}}``"""

    op: Literal["withdraw"]
    request: Identifier
    body: WithdrawRequest


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


class ApproveBody(Frozen):
    """The purchase, and the digest of the cart that the caller has seen."""

    purchase_id: Name
    digest: Digest


class ApproveCommand(Frozen):
    """``{"op": "approve", "request": "4", "body": {"purchase_id": "…", "digest": "sha256:…"}}``"""

    op: Literal["approve"]
    request: Identifier
    body: ApproveBody


class AnswerBody(AnswerRequest):
    """The question, and the answer as over HTTP."""

    question_id: Identifier


class AnswerCommand(Frozen):
    """``{"op": "answer", "request": "5", "body": {"question_id": "t1:size", "value": "large"}}``"""

    op: Literal["answer"]
    request: Identifier
    body: AnswerBody


Command = Annotated[
    SendCommand | WithdrawCommand | StopCommand | SteerCommand | ApproveCommand | AnswerCommand,
    Field(discriminator="op"),
]
