"""Routes of webhooks: create, look, change, delete, rotate a secret, test, and what was delivered."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from api.auth import Action
from api.dependencies import Caller, WebhooksPart
from api.door import DoorRoute
from api.errors import PROBLEM_RESPONSES
from api.gateways.webhooks import Opened
from waystation.models.base import Frozen
from waystation.models.events import SessionId
from waystation.models.webhooks import (
    DEFAULT_OVERLAP_SECONDS,
    MAX_DELIVERIES_IN_PAGE,
    MAX_OVERLAP_SECONDS,
    CreatedWebhook,
    DeliveriesWanted,
    DeliveryStatus,
    WebhookChange,
    WebhookDeliveries,
    WebhookDelivery,
    WebhookList,
    WebhookSettings,
    WebhookView,
)

router = APIRouter(route_class=DoorRoute, responses=PROBLEM_RESPONSES, tags=["webhooks"])

WebhookPath = Annotated[SessionId, Path(description="The webhook's id, which is its Temporal workflow id.")]
DeliveryPath = Annotated[
    str, Path(description="The delivery's id, which is its `webhook-id`.", pattern=r"^msg_[0-9a-f]{32}$")
]


class CreateWebhook(WebhookSettings):
    """The body of ``POST /webhooks``."""

    webhook_id: SessionId | None = None


class RotateSecret(Frozen):
    """The body of ``POST /webhooks/{id}/secret``."""

    overlap_seconds: int = Field(default=DEFAULT_OVERLAP_SECONDS, ge=0, le=MAX_OVERLAP_SECONDS, strict=True)
    """For how long messages are signed with the earlier secrets too."""


@router.post(
    "/webhooks",
    status_code=201,
    summary="Create a webhook",
    responses={
        200: {"model": CreatedWebhook, "description": "There was one with this id and these settings."}
    },
)
async def create(
    body: CreateWebhook, caller: Caller, webhooks: WebhooksPart, response: Response
) -> CreatedWebhook:
    """Creates a webhook and shows its secret, this once; answers 200 without it where there is one."""
    caller.require(Action.WEBHOOKS)
    settings = WebhookSettings.model_validate(body.model_dump(exclude={"webhook_id"}))
    opened = await webhooks.create(body.webhook_id, settings)
    response.status_code = 200 if opened.secret is None else 201
    return _created(opened)


@router.get("/webhooks", summary="List webhooks")
async def list_webhooks(caller: Caller, webhooks: WebhooksPart) -> WebhookList:
    """Returns all webhooks, the newest first."""
    caller.require(Action.WEBHOOKS)
    return WebhookList(webhooks=tuple(await webhooks.list()))


@router.get("/webhooks/{webhook_id}", summary="Look at a webhook")
async def show(webhook_id: WebhookPath, caller: Caller, webhooks: WebhooksPart) -> WebhookView:
    """Returns a webhook without its secret."""
    caller.require(Action.WEBHOOKS)
    return await webhooks.webhook(webhook_id)


@router.patch("/webhooks/{webhook_id}", summary="Change, disable or enable a webhook")
async def change(
    webhook_id: WebhookPath, body: WebhookChange, caller: Caller, webhooks: WebhooksPart
) -> WebhookView:
    """Changes what is given; the rest stays."""
    caller.require(Action.WEBHOOKS)
    return await webhooks.change(webhook_id, body)


@router.delete("/webhooks/{webhook_id}", summary="Delete a webhook")
async def delete(webhook_id: WebhookPath, caller: Caller, webhooks: WebhooksPart) -> WebhookView:
    """Deletes a webhook; what waits is never sent."""
    caller.require(Action.WEBHOOKS)
    return await webhooks.delete(webhook_id)


@router.post("/webhooks/{webhook_id}/secret", status_code=201, summary="Rotate a webhook's secret")
async def rotate(
    webhook_id: WebhookPath, body: RotateSecret, caller: Caller, webhooks: WebhooksPart
) -> CreatedWebhook:
    """Makes a new secret and shows it, this once."""
    caller.require(Action.WEBHOOKS)
    return _created(await webhooks.rotate(webhook_id, body.overlap_seconds))


@router.post("/webhooks/{webhook_id}/test", status_code=202, summary="Send a test")
async def test(webhook_id: WebhookPath, caller: Caller, webhooks: WebhooksPart) -> WebhookDelivery:
    """Sends a ``webhook.test``."""
    caller.require(Action.WEBHOOKS)
    return await webhooks.test(webhook_id)


@router.get("/webhooks/{webhook_id}/deliveries", summary="List deliveries")
async def deliveries(
    webhook_id: WebhookPath,
    caller: Caller,
    webhooks: WebhooksPart,
    limit: Annotated[int, Query(ge=1, le=MAX_DELIVERIES_IN_PAGE)] = 50,
    before: Annotated[str | None, Query(description="Only those older than this one.", max_length=64)] = None,
    status: DeliveryStatus | None = None,
) -> WebhookDeliveries:
    """Returns what waits and the latest that were delivered or given up, newest first."""
    caller.require(Action.WEBHOOKS)
    return await webhooks.deliveries(webhook_id, DeliveriesWanted(limit=limit, before=before, status=status))


@router.get("/webhooks/{webhook_id}/deliveries/{delivery_id}", summary="Look at a delivery")
async def delivery(
    webhook_id: WebhookPath, delivery_id: DeliveryPath, caller: Caller, webhooks: WebhooksPart
) -> WebhookDelivery:
    """Returns a delivery with what is sent and its latest attempts."""
    caller.require(Action.WEBHOOKS)
    return await webhooks.delivery(webhook_id, delivery_id)


@router.post(
    "/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", status_code=202, summary="Deliver again"
)
async def redeliver(
    webhook_id: WebhookPath, delivery_id: DeliveryPath, caller: Caller, webhooks: WebhooksPart
) -> WebhookDelivery:
    """Begins a delivery anew, under its id."""
    caller.require(Action.WEBHOOKS)
    return await webhooks.redeliver(webhook_id, delivery_id)


def _created(opened: Opened) -> CreatedWebhook:
    return CreatedWebhook(webhook=opened.view, secret=opened.secret)
