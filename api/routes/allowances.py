"""Routes of allowances, the budgets that many small payments share: list, look, settle, audit.

An allowance is opened by the agent that pays from it (``turn.allowance``); here people see what
becomes of it.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.auth import Principal
from api.dependencies import Caller, Money
from api.door import DoorRoute
from api.errors import PROBLEM_RESPONSES, Conflict
from api.gateways.lists import MAX_LISTED
from api.gateways.money import MoneyParts
from api.gateways.visible import no_allowance, sees
from api.routes.paid_requests import CancelPayment
from waystation.models.decisions import Cancel
from waystation.models.events import SessionId
from waystation.models.payments import AllowanceView
from waystation.models.trail import AuditTrail
from waystation.temporal.messages import ALLOWANCE, ALLOWANCE_SETTLE

router = APIRouter(route_class=DoorRoute, responses=PROBLEM_RESPONSES, tags=["payments"])

AllowanceId = Annotated[SessionId, Path(description="The allowance's id, which is its Temporal workflow id.")]


@router.get("/allowances", summary="List allowances")
async def list_allowances(
    caller: Caller,
    money: Money,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 50,
    session_id: str | None = None,
) -> list[AllowanceView]:
    """Returns allowances, newest first; a session token sees those of its own sessions."""
    ids = await money.gateway.lists.listed_for(caller, ALLOWANCE.name, limit, session_id)
    found = await money.gateway.lists.readable(money.gateway.allowance(one) for one in ids)
    return [view for view in found if sees(caller, view)]


@router.get("/allowances/{allowance_id}", summary="Look at an allowance")
async def show(allowance_id: AllowanceId, caller: Caller, money: Money) -> AllowanceView:
    """Returns what is spent and held of its budget."""
    return await _visible(allowance_id, caller, money)


@router.get("/allowances/{allowance_id}/audit", summary="Read an allowance's audit trail")
async def audit(allowance_id: AllowanceId, caller: Caller, money: Money) -> AuditTrail:
    """Returns every payment and every step, each chained to the one before by its hash."""
    await _visible(allowance_id, caller, money)
    return await money.gateway.allowance_audit(allowance_id)


@router.post("/allowances/{allowance_id}/settle", status_code=202, summary="Settle an allowance")
async def settle(
    allowance_id: AllowanceId, body: CancelPayment, caller: Caller, money: Money
) -> AllowanceView:
    """Ends the payments: what was spent is committed, the rest released; ``GET`` returns the outcome."""
    view = await _visible(allowance_id, caller, money)
    if not view.open:
        raise Conflict("The allowance is settled already.", code="ended")
    await money.gateway.tell(allowance_id, ALLOWANCE_SETTLE, Cancel(by=caller.subject, reason=body.reason))
    return await money.gateway.allowance(allowance_id)


async def _visible(allowance_id: str, caller: Principal, money: MoneyParts) -> AllowanceView:
    view = await money.gateway.allowance(allowance_id)
    if sees(caller, view):
        return view
    raise no_allowance(allowance_id)
