"""Routes of mandates: create, look, list, revoke. An agent can look at its own and do nothing else."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from api.auth import Principal
from api.dependencies import Caller, Money
from api.door import DoorRoute
from api.errors import PROBLEM_RESPONSES, Conflict, Forbidden, Invalid
from api.gateways.lists import MAX_LISTED
from api.gateways.money import MoneyParts
from api.gateways.visible import no_mandate, sees
from waystation.models.base import Frozen
from waystation.models.events import SessionId
from waystation.models.mandates import GRANT_NOT_PROVEN, MandateTerms, MandateView, RevokeRequest
from waystation.models.payments import PaidRequestView
from waystation.models.purchases import PurchaseView
from waystation.temporal.names import MANDATE_WORKFLOW

router = APIRouter(route_class=DoorRoute, responses=PROBLEM_RESPONSES, tags=["mandates"])

OfMandate = Annotated[
    SessionId | None, Query(description="Only what has held or spent money of this mandate.")
]
Before = Annotated[
    SessionId | None, Query(description="With ``mandate_id``: the last id of the page before.")
]
MandateId = Annotated[SessionId, Path(description="The mandate's id, which is its Temporal workflow id.")]


class CreateMandate(Frozen):
    """The body of ``POST /mandates``.

    People grant for themselves: ``owner`` must be the caller, unless the caller is a service, which is
    responsible for whom it speaks for.
    """

    mandate_id: SessionId | None = None
    terms: MandateTerms


class RevokeMandate(Frozen):
    """The body of ``POST /mandates/{id}/revoke``."""

    reason: str = Field(default="", max_length=500)


@router.post("/mandates", status_code=201, summary="Grant a mandate")
async def create(body: CreateMandate, caller: Caller, money: Money, response: Response) -> MandateView:
    """Grants a mandate, or answers 200 with the one that already has this id (idempotent)."""
    if caller.role not in ("approver", "service"):
        raise Forbidden("Only people who may approve (role 'approver') and services may grant mandates.")
    if caller.role == "approver" and body.terms.owner != caller.subject:
        raise Forbidden(f"You can only grant for yourself: set 'owner' to '{caller.subject}'.")
    mandate_id, created = await money.gateway.create_mandate(body.mandate_id, body.terms)
    view = await money.gateway.mandate(mandate_id)
    if view.revoked_because is not None and view.revoked_because.startswith(GRANT_NOT_PROVEN):
        raise Forbidden(f"The mandate was not granted: {view.revoked_because}", code="not-proven")
    if not created and view.terms != body.terms:
        raise Conflict(f"'{mandate_id}' exists with other terms; choose another id.", code="id-taken")
    response.status_code = 201 if created else 200
    return _for(caller, view)


@router.get("/mandates", summary="List mandates")
async def list_mandates(
    caller: Caller,
    money: Money,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 50,
    owner: str | None = None,
    agent: str | None = None,
) -> list[MandateView]:
    """Returns mandates, newest first; except for operators and services, only those the caller granted."""
    if caller.role not in ("operator", "service"):
        owner = caller.subject
    wanted = {name: value for name, value in (("owner", owner), ("agent", agent)) if value is not None}
    ids = await money.gateway.lists.listed(MANDATE_WORKFLOW, limit, wanted)
    found = await money.gateway.lists.readable(money.gateway.mandate(one) for one in ids)
    return [_for(caller, mandate) for mandate in found]


@router.get("/mandates/{mandate_id}", summary="Look at a mandate")
async def show(mandate_id: MandateId, caller: Caller, money: Money) -> MandateView:
    """Returns its terms, and what is spent, reserved and left."""
    return await visible_mandate(mandate_id, caller, money)


@router.post("/mandates/{mandate_id}/revoke", status_code=202, summary="Revoke a mandate")
async def revoke(mandate_id: MandateId, body: RevokeMandate, caller: Caller, money: Money) -> MandateView:
    """Revokes a mandate: nothing more is reserved, and waiting purchases end."""
    view = await money.gateway.mandate(mandate_id)
    mine = caller.subject == view.terms.owner and caller.role != "agent"
    if not (mine or caller.role in ("operator", "service")):
        raise Forbidden("Only its owner may revoke it.") if _sees(caller, view) else no_mandate(mandate_id)
    await money.gateway.revoke(mandate_id, RevokeRequest(by=caller.subject, reason=body.reason))
    return _for(caller, await money.gateway.mandate(mandate_id))


def _sees(caller: Principal, view: MandateView) -> bool:
    if caller.role in ("operator", "service"):
        return caller.sessions is None
    if caller.role == "agent":
        return caller.speaks_for(view.terms.agent)
    return caller.subject in (view.terms.owner, *view.terms.approvers)


async def visible_mandate(mandate_id: str, caller: Principal, money: MoneyParts) -> MandateView:
    """Returns a mandate that the caller may see.

    Raises:
        NotFound: There is none, or the caller may not see it.
    """
    return _for(caller, await money.gateway.mandate(mandate_id))


def check_page(mandate_id: str | None, before: str | None) -> None:
    """Raises ``Invalid`` for a page of no mandate: lists of all have none."""
    if before is not None and mandate_id is None:
        raise Invalid(
            "'before' goes with 'mandate_id': leave it out, or name the mandate.", code="wrong-cursor"
        )


def in_mandate(
    caller: Principal, mandate_id: str, session_id: str | None, waiting: bool
) -> Callable[[PurchaseView | PaidRequestView], bool]:
    """Returns what says of a purchase or paid request that it is of this mandate, and wanted in a list.

    That it is of this mandate its own workflow says, beside the mandate's.
    """

    def wanted(view: PurchaseView | PaidRequestView) -> bool:
        request = view.request if isinstance(view, PurchaseView) else view
        return (
            request.mandate_id == mandate_id
            and session_id in (None, request.session_id)
            and (not waiting or view.status == "awaiting_approval")
            and sees(caller, view)
        )

    return wanted


async def require_spender(caller: Principal, agent: str, mandate_id: str, money: MoneyParts) -> None:
    """Raises unless the caller may spend from a mandate, in an agent's name.

    Services may. An agent's credential may in the name of its own agents; the mandate itself checks that it
    was given to that agent. A client may from mandates that it granted or approves for.
    """
    if caller.role in ("service", "agent"):
        if not caller.speaks_for(agent):
            raise Forbidden(
                f"This credential does not speak for the agent '{agent}'; list it in the key's 'agents'.",
                code="wrong-agent",
            )
    elif caller.role != "client":
        raise Forbidden(f"The role '{caller.role}' may not buy.")
    elif not _sees(caller, await money.gateway.mandate(mandate_id)):
        raise no_mandate(mandate_id)


def _for(caller: Principal, view: MandateView) -> MandateView:
    """Returns the view without what the caller need not know: agents don't learn how people pay."""
    if not _sees(caller, view):
        raise no_mandate(view.mandate_id)
    if caller.role in ("agent", "client"):
        terms = view.terms.model_copy(update={"payment_methods": ()})
        return view.model_copy(update={"terms": terms})
    return view
