"""Routes of paid requests (HTTP 402): start, look, list, decide, cancel, audit.

As with purchases, only a caller with the role ``approver`` decides, under their own name.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from api.auth import Action, Principal
from api.dependencies import ApiParts, Caller, Money, Parts
from api.door import MAX_TEXT_BODY_BYTES, DoorRoute, takes_body_of
from api.errors import PROBLEM_RESPONSES, Conflict, Forbidden
from api.gateways.lists import MAX_LISTED
from api.gateways.money import MAX_OUTCOME_WAIT_SECONDS, MoneyParts
from api.gateways.visible import no_payment, sees
from api.routes.mandates import Before, OfMandate, check_page, in_mandate, require_spender, visible_mandate
from waystation.models.base import Frozen
from waystation.models.decisions import (
    Approve,
    Cancel,
    Decision,
    Digest,
    Reason,
    Reject,
)
from waystation.models.events import SessionId
from waystation.models.live import ALL_SESSIONS, Stirred
from waystation.models.payments import PaidRequestStart, PaidRequestView
from waystation.models.trail import AuditTrail
from waystation.temporal.messages import PAID_REQUEST, PAID_REQUEST_CANCEL

router = APIRouter(route_class=DoorRoute, responses=PROBLEM_RESPONSES, tags=["payments"])

PaymentId = Annotated[SessionId, Path(description="Its id, which is its Temporal workflow id.")]


class StartPayment(Frozen):
    """The body of ``POST /payments``."""

    payment_id: SessionId | None = None
    request: PaidRequestStart


class ApprovePayment(Frozen):
    """The digest of the terms (price, payee, realm, request) that the caller has seen."""

    digest: Digest


class RejectPayment(Frozen):
    """Why, for the agent and the trail."""

    digest: Digest | None = None
    reason: Reason = ""


class CancelPayment(Frozen):
    """Why, for the trail."""

    reason: Reason = ""


@router.post("/payments", status_code=201, summary="Make a paid request")
@takes_body_of(MAX_TEXT_BODY_BYTES)
async def start(body: StartPayment, caller: Caller, money: Money, response: Response) -> PaidRequestView:
    """Starts a paid request, or answers 200 with the one that already has this id (idempotent)."""
    session_id = body.request.session_id
    if caller.sessions is not None and (session_id is None or session_id not in caller.sessions):
        raise Forbidden("Name the session that this token is for as 'session_id'.")
    await require_spender(caller, body.request.agent, body.request.mandate_id, money)
    payment_id, created = await money.gateway.start_payment(body.payment_id, body.request)
    view = await _visible(payment_id, caller, money)
    if not created and not await money.gateway.payment_began_with(view, body.request):
        raise Conflict(f"'{payment_id}' is another paid request; choose another id.", code="id-taken")
    response.status_code = 201 if created else 200
    return view


@router.get("/payments", summary="List paid requests")
async def list_payments(
    caller: Caller,
    money: Money,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 50,
    session_id: str | None = None,
    waiting: Annotated[bool, Query(description="Only what waits for an approver.")] = False,
    mandate_id: OfMandate = None,
    before: Before = None,
) -> list[PaidRequestView]:
    """Returns paid requests, newest first, without answers; session tokens see their own sessions'."""
    check_page(mandate_id, before)
    lists, look = money.gateway.lists, money.gateway.payment
    if mandate_id is not None:
        mandate = await visible_mandate(mandate_id, caller, money)
        wanted = in_mandate(caller, mandate_id, session_id, waiting)
        views = await lists.of_mandate(mandate, PAID_REQUEST.name, look, wanted, limit, before)
    else:
        ids = await lists.listed_for(caller, PAID_REQUEST.name, limit, session_id, waiting=waiting)
        views = await lists.readable(look(one) for one in ids)
    return [view.model_copy(update={"answer": None}) for view in views if sees(caller, view)]


@router.get("/payments/{payment_id}", summary="Look at a paid request")
async def show(
    payment_id: PaymentId,
    caller: Caller,
    money: Money,
    wait_seconds: Annotated[int, Query(ge=0, le=MAX_OUTCOME_WAIT_SECONDS)] = 0,
) -> PaidRequestView:
    """Returns it as it stands; with ``wait_seconds``, when it is final or that time has passed."""
    view = await _visible(payment_id, caller, money)
    return await money.gateway.payment_outcome(view, wait_seconds)


@router.get("/payments/{payment_id}/audit", summary="Read a paid request's audit trail")
async def audit(payment_id: PaymentId, caller: Caller, money: Money) -> AuditTrail:
    """Returns every step, each chained to the one before by its hash."""
    await _visible(payment_id, caller, money)
    return await money.gateway.payment_audit(payment_id)


@router.post("/payments/{payment_id}/approve", summary="Approve a paid request")
async def approve(
    payment_id: PaymentId, body: ApprovePayment, caller: Caller, parts: Parts
) -> PaidRequestView:
    """Approves exactly the terms with this digest."""
    wanted = Approve(digest=body.digest, approver=caller.subject)
    return await _decide(payment_id, Decision(approve=wanted), caller, parts)


@router.post("/payments/{payment_id}/reject", summary="Reject a paid request")
async def reject(payment_id: PaymentId, body: RejectPayment, caller: Caller, parts: Parts) -> PaidRequestView:
    """Rejects the terms; nothing is paid."""
    wanted = Reject(digest=body.digest, approver=caller.subject, reason=body.reason)
    return await _decide(payment_id, Decision(reject=wanted), caller, parts)


@router.post("/payments/{payment_id}/cancel", status_code=202, summary="Cancel a paid request")
async def cancel(payment_id: PaymentId, body: CancelPayment, caller: Caller, money: Money) -> PaidRequestView:
    """Stops the paid request if nothing was sent yet; ``GET`` returns the outcome."""
    view = await _visible(payment_id, caller, money)
    if view.final:
        raise Conflict(f"The paid request is {view.status} already.", code="ended")
    await money.gateway.tell(payment_id, PAID_REQUEST_CANCEL, Cancel(by=caller.subject, reason=body.reason))
    return await money.gateway.payment(payment_id)


async def _decide(payment_id: str, decision: Decision, caller: Principal, parts: ApiParts) -> PaidRequestView:
    caller.require(Action.APPROVE)
    view = await _visible(payment_id, caller, parts.money)
    if view.final:
        raise Conflict(
            f"No decision is awaited; the paid request is {view.status}.", code="not-awaiting-approval"
        )
    decided = await parts.money.gateway.decide_payment(payment_id, decision)
    parts.bus.publish(ALL_SESSIONS, Stirred(payment_id, settles=True))
    return decided


async def _visible(payment_id: str, caller: Principal, money: MoneyParts) -> PaidRequestView:
    view = await money.gateway.payment(payment_id)
    if sees(caller, view):
        return view
    raise no_payment(payment_id)
