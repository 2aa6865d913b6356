"""The list of all that waits for people. Each kind is decided by its own route."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.auth import Action
from api.dependencies import Caller, Parts
from api.door import DoorRoute
from api.errors import PROBLEM_RESPONSES
from api.gateways.approvals import Approvals
from api.gateways.lists import MAX_LISTED
from waystation.models.approvals import APPROVALS, ApprovalKind, ApprovalList
from waystation.models.events import SessionId

router = APIRouter(route_class=DoorRoute, responses=PROBLEM_RESPONSES)


@router.get("/approvals", tags=["approvals"], summary="List what waits for approval")
async def approvals(
    caller: Caller,
    parts: Parts,
    kind: Annotated[list[ApprovalKind], Query(description="Only these kinds; may be repeated.")] = [],  # noqa: B006
    session_id: SessionId | None = None,
    mine: Annotated[bool, Query(description="Only what the caller may decide.")] = False,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 50,
) -> ApprovalList:
    """Returns tools, carts and paid requests that wait for a person and the caller may see, newest first.

    With ``kind=question``, what agents ask beside.
    """
    caller.require(Action.READ, session_id)
    waiting = Approvals(parts.gateway, parts.money.gateway)
    return await waiting.find(caller, set(kind) or APPROVALS, session_id, limit, mine=mine)
