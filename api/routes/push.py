"""Routes of Web Push: the key, and the caller's browsers that are told."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path

from api.auth import Principal
from api.dependencies import Caller, Push
from api.door import DoorRoute
from api.errors import PROBLEM_RESPONSES, Forbidden, Invalid
from api.gateways.attention import is_told
from waystation.models.push import BrowserSubscription, PushTarget, PushView
from waystation.web_push import check_browser_key

router = APIRouter(route_class=DoorRoute, responses=PROBLEM_RESPONSES, tags=["approvals"])

SubscriptionPath = Annotated[
    str, Path(description="The subscription's id.", pattern=r"^push_[0-9a-f]{32}$", max_length=64)
]


@router.get("/push", summary="Who of mine is told by Web Push")
async def show(caller: Caller, push: Push) -> PushView:
    """Returns the key with which a browser subscribes, the caller's browsers, and what they were told."""
    _require_person(caller)
    return await push.view(caller)


@router.put("/push/subscriptions", summary="Tell a browser of mine what waits")
async def subscribe(body: BrowserSubscription, caller: Caller, push: Push) -> PushView:
    """Tells a browser too, until the caller's token ends; again, it is renewed."""
    _require_person(caller)
    try:
        check_browser_key(body.keys.p256dh)
    except ValueError:
        raise Invalid("keys.p256dh: it is no point of the curve P-256.", code="invalid") from None
    ends = None if caller.expires_at is None else datetime.fromtimestamp(caller.expires_at, UTC)
    target = PushTarget(
        subscription_id=body.id,
        endpoint=body.endpoint,
        p256dh=body.keys.p256dh,
        auth=body.keys.auth,
        ends=ends,
    )
    return await push.subscribe(caller, target)


@router.delete("/push/subscriptions/{subscription_id}", summary="Tell a browser of mine nothing more")
async def unsubscribe(subscription_id: SubscriptionPath, caller: Caller, push: Push) -> PushView:
    """Removes a browser; one that isn't there stays so."""
    _require_person(caller)
    return await push.unsubscribe(caller, subscription_id)


def _require_person(caller: Principal) -> None:
    if not is_told(caller):
        raise Forbidden(
            f"Nothing waits for the role '{caller.role}' in person; use a person's token, or webhooks."
        )
