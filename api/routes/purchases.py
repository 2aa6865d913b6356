"""Routes of purchases: start, look, decide, change, and the sellers' order webhooks.

Only a caller with the role ``approver`` approves or rejects, under their own name; an agent's key
never does, and neither does a service's.
"""

import hashlib
import time
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from fastapi import APIRouter, Path, Query, Request, Response

from api.auth import Action, Principal
from api.dependencies import Caller, Money, Parts
from api.door import DoorRoute, takes_body_of
from api.errors import PROBLEM_RESPONSES, Conflict, Forbidden, InvalidEvent, Unauthenticated
from api.gateways.lists import MAX_LISTED
from api.gateways.money import MAX_OUTCOME_WAIT_SECONDS, MoneyParts
from api.gateways.visible import sees
from api.routes.mandates import Before, OfMandate, check_page, in_mandate, require_spender, visible_mandate
from waystation.buyer.carts import order_facts
from waystation.models.base import Frozen
from waystation.models.decisions import (
    Cancel,
    Decision,
    Digest,
    Reason,
    Reject,
)
from waystation.models.events import SessionId
from waystation.models.live import ALL_SESSIONS, Stirred
from waystation.models.mandates import PaymentMethodId
from waystation.models.purchases import (
    AuthenticationDone,
    Cart,
    OrderEventReceived,
    PurchaseRequest,
    PurchaseView,
    RetryPayment,
    Revise,
    Revision,
)
from waystation.models.trail import AuditTrail
from waystation.protocols import acp
from waystation.protocols.acp.webhooks import (
    InvalidSignatureError,
    verify_webhook,
)
from waystation.temporal.messages import (
    PURCHASE_AUTHENTICATION_RESULT,
    PURCHASE_CANCEL,
    PURCHASE_REVISE,
)
from waystation.temporal.names import PURCHASE_WORKFLOW
from waystation.temporal.tokens import SignalName

Argument = TypeVar("Argument")

router = APIRouter(route_class=DoorRoute, responses=PROBLEM_RESPONSES, tags=["purchases"])

PurchaseId = Annotated[SessionId, Path(description="The purchase's id, which is its Temporal workflow id.")]


class StartPurchase(Frozen):
    """The body of ``POST /purchases``."""

    purchase_id: SessionId | None = None
    request: PurchaseRequest


class ApproveBody(Frozen):
    """The digest of the cart that the caller has seen."""

    digest: Digest


class RejectBody(Frozen):
    """Why, for the agent and the trail."""

    digest: Digest | None = None
    reason: Reason = ""


class CancelBody(Frozen):
    """Why, for the trail."""

    reason: Reason = ""


class RetryBody(Frozen):
    """Another saved payment method of the mandate, if not the same one is to be tried again."""

    payment_method: PaymentMethodId | None = None


class OrderEventTaken(Frozen):
    """The answer to a seller's order event, as ACP has it."""

    received: bool = True
    request_id: str | None = None


@router.post("/purchases", status_code=201, summary="Start a purchase")
async def start(body: StartPurchase, caller: Caller, money: Money, response: Response) -> PurchaseView:
    """Starts a purchase, or answers 200 with the one that already has this id (idempotent)."""
    session_id = body.request.session_id
    if caller.sessions is not None and (session_id is None or session_id not in caller.sessions):
        raise Forbidden("Name the session that this token is for as 'session_id'.")
    await require_spender(caller, body.request.agent.id, body.request.mandate_id, money)
    purchase_id, created = await money.gateway.start_purchase(body.purchase_id, body.request)
    if created:
        return PurchaseView(
            purchase_id=purchase_id,
            status="creating",
            final=False,
            request=body.request,
            updated_at=datetime.now(UTC),
        )
    view = await money.gateway.visible(purchase_id, caller)
    if not await money.gateway.began_as(purchase_id, body.request):
        raise Conflict(f"'{purchase_id}' is another purchase; choose another id.", code="id-taken")
    response.status_code = 200
    return view


@router.get("/purchases", summary="List purchases")
async def list_purchases(
    caller: Caller,
    money: Money,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 50,
    session_id: str | None = None,
    waiting: Annotated[bool, Query(description="Only what waits for an approver.")] = False,
    mandate_id: OfMandate = None,
    before: Before = None,
) -> list[PurchaseView]:
    """Returns purchases, newest first; a session token sees those of its own sessions."""
    check_page(mandate_id, before)
    if mandate_id is not None:
        mandate = await visible_mandate(mandate_id, caller, money)
        look, wanted = money.gateway.purchase, in_mandate(caller, mandate_id, session_id, waiting)
        return await money.gateway.lists.of_mandate(mandate, PURCHASE_WORKFLOW, look, wanted, limit, before)
    ids = await money.gateway.lists.listed_for(caller, PURCHASE_WORKFLOW, limit, session_id, waiting=waiting)
    found = await money.gateway.lists.readable(money.gateway.purchase(one) for one in ids)
    return [view for view in found if sees(caller, view)]


@router.get("/purchases/{purchase_id}", summary="Look at a purchase")
async def show(
    purchase_id: PurchaseId,
    caller: Caller,
    money: Money,
    wait_seconds: Annotated[float, Query(ge=0, le=MAX_OUTCOME_WAIT_SECONDS)] = 0,
    or_for_a_person: bool = False,
) -> PurchaseView:
    """Returns the purchase as it stands; with ``wait_seconds``, once it is final or that time has passed.

    With ``or_for_a_person``, also once somebody has to approve, revise, authenticate or retry.
    """
    view = await money.gateway.visible(purchase_id, caller)
    return await money.gateway.outcome(view, wait_seconds, or_for_a_person=or_for_a_person)


@router.get("/purchases/{purchase_id}/cart", summary="Look at the cart")
async def cart(purchase_id: PurchaseId, caller: Caller, money: Money) -> Cart | None:
    """Returns the cart as the seller last stated it."""
    await money.gateway.visible(purchase_id, caller)
    return await money.gateway.cart(purchase_id)


@router.get("/purchases/{purchase_id}/audit", summary="Read the audit trail")
async def audit(purchase_id: PurchaseId, caller: Caller, money: Money) -> AuditTrail:
    """Returns every step, each chained to the one before by its hash."""
    await money.gateway.visible(purchase_id, caller)
    return await money.gateway.audit(purchase_id)


@router.post("/purchases/{purchase_id}/approve", summary="Approve the cart")
async def approve(purchase_id: PurchaseId, body: ApproveBody, caller: Caller, parts: Parts) -> PurchaseView:
    """Approves exactly the cart with this digest; a stale one is refused with the fresh cart."""
    return await parts.control.approve(purchase_id, body.digest, caller)


@router.post("/purchases/{purchase_id}/reject", summary="Reject the purchase")
async def reject(
    purchase_id: PurchaseId, body: RejectBody, caller: Caller, money: Money, parts: Parts
) -> PurchaseView:
    """Rejects the purchase; everything is undone."""
    caller.require(Action.APPROVE)
    await money.gateway.check_visible(purchase_id, caller)
    wanted = Reject(digest=body.digest, approver=caller.subject, reason=body.reason)
    decided = await money.gateway.decide(purchase_id, Decision(reject=wanted))
    parts.bus.publish(ALL_SESSIONS, Stirred(purchase_id, settles=True))
    return decided


@router.post("/purchases/{purchase_id}/revise", status_code=202, summary="Change the cart")
async def revise(purchase_id: PurchaseId, body: Revision, caller: Caller, money: Money) -> PurchaseView:
    """Changes what is wanted; any approval is void and asked for again, of somebody else."""
    view = await money.gateway.visible(purchase_id, caller)
    await require_spender(caller, view.request.agent.id, view.request.mandate_id, money)
    given = {name: getattr(body, name) for name in body.model_fields_set}
    return await _tell(purchase_id, PURCHASE_REVISE, Revise(by=caller.subject, **given), caller, money)


@router.post("/purchases/{purchase_id}/cancel", status_code=202, summary="Cancel the purchase")
async def cancel(purchase_id: PurchaseId, body: CancelBody, caller: Caller, money: Money) -> PurchaseView:
    """Stops the purchase if it is not too late; ``GET`` returns the outcome."""
    wish = Cancel(by=caller.subject, reason=body.reason)
    return await _tell(purchase_id, PURCHASE_CANCEL, wish, caller, money)


@router.post("/purchases/{purchase_id}/retry", status_code=202, summary="Try the payment again")
async def retry(purchase_id: PurchaseId, body: RetryBody, caller: Caller, money: Money) -> PurchaseView:
    """Tries again after a decline, with another method of the mandate if one is given."""
    caller.require(Action.APPROVE)
    await _visible_and_open(purchase_id, caller, money)
    wish = RetryPayment(by=caller.subject, payment_method=body.payment_method)
    await money.gateway.retry_payment(purchase_id, wish)
    return await money.gateway.purchase(purchase_id)


@router.post("/purchases/{purchase_id}/authentication", status_code=202, summary="Report a 3DS result")
async def authentication(
    purchase_id: PurchaseId, body: AuthenticationDone, caller: Caller, money: Money
) -> PurchaseView:
    """Takes the outcome of the card issuer's authentication from whoever ran it with the person."""
    if caller.role not in ("approver", "client", "service"):
        raise Forbidden(f"The role '{caller.role}' does not report authentications.")
    return await _tell(purchase_id, PURCHASE_AUTHENTICATION_RESULT, body, caller, money)


async def _tell(
    purchase_id: str, signal: SignalName[Argument], argument: Argument, caller: Principal, money: MoneyParts
) -> PurchaseView:
    await _visible_and_open(purchase_id, caller, money)
    await money.gateway.tell(purchase_id, signal, argument)
    return await money.gateway.purchase(purchase_id)


async def _visible_and_open(purchase_id: str, caller: Principal, money: MoneyParts) -> None:
    view = await money.gateway.visible(purchase_id, caller)
    if view.final:
        raise Conflict(f"The purchase is {view.status} already.", code="ended")


# What sellers send


@router.post(acp.WEBHOOK_PATH, status_code=200, summary="Receive an order event (ACP)")
@takes_body_of(acp.MAX_BODY_BYTES)
async def order_event(request: Request, money: Money) -> OrderEventTaken:
    """Takes a seller's ``order_create`` or ``order_update``; its signature is its credential.

    A repeated delivery is taken again: it makes the purchase read the order, and changes nothing else.
    """
    body = await request.body()
    signature = request.headers.get(acp.HEADER_MERCHANT_SIGNATURE)
    seller, sent_at = _sender(money, body, signature)
    try:
        event = acp.read_order_event(body)
        order = order_facts(event.data)
    except acp.ProtocolViolationError as violation:
        raise InvalidEvent(str(violation)) from None
    received = OrderEventReceived(
        event_id=hashlib.sha256((signature or "").encode() + body).hexdigest(),
        sent_at=sent_at,
        type=event.type,
        order=order,
    )
    await money.gateway.deliver_order_event(seller, received)
    return OrderEventTaken(request_id=request.headers.get(acp.HEADER_REQUEST_ID))


def _sender(money: MoneyParts, body: bytes, signature: str | None) -> tuple[str, int]:
    """Returns the seller whose secret made the signature, and its time."""
    reason = "No seller's webhook secret is configured."
    for seller, secrets in money.settings.seller_webhook_secrets.items():
        try:
            values = [secret.get_secret_value() for secret in secrets]
            return seller, verify_webhook(values, body, signature, int(time.time()))
        except InvalidSignatureError as error:
            reason = str(error)
    raise Unauthenticated(reason, code="invalid_signature")
