"""What waits for whoever asks: as it stands, or as a stream of events that tells each change."""

import asyncio
import contextlib
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from api.dependencies import Caller, Parts
from api.door import DoorRoute
from api.errors import PROBLEM_RESPONSES, Forbidden
from api.gateways.attention import is_told
from api.live.event_stream import EventStream, lifetime_seconds
from waystation.models.attention import Attention

router = APIRouter(route_class=DoorRoute, responses=PROBLEM_RESPONSES)

EVENT_STREAM = "text/event-stream"


@router.get(
    "/attention",
    tags=["approvals"],
    summary="What waits for me",
    response_model=Attention,
    response_model_exclude_none=True,
    responses={
        200: {
            "description": "What waits; or, if the request accepts event streams, a stream of it",
            "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
        }
    },
)
async def attention(
    caller: Caller,
    parts: Parts,
    request: Request,
    last_event_id: Annotated[str | None, Header(description="What was seen last; browsers send it.")] = None,
) -> Attention | Response:
    """Returns how much waits for the caller by kind, and the newest of it: only what they may see and do.

    With ``Accept: text/event-stream`` each event is all of it as it stands, and comes when it has changed.
    """
    if not is_told(caller):
        raise Forbidden(
            f"Nothing waits for the role '{caller.role}' in person; use a person's token, or webhooks."
        )
    if EVENT_STREAM not in request.headers.get("accept", ""):
        return await parts.attention.now(caller)
    resources = contextlib.AsyncExitStack()
    stream = await resources.enter_async_context(parts.attention.stream(caller, last_event_id))
    lifetime = lifetime_seconds(parts.settings, caller)
    ending = asyncio.get_running_loop().call_later(lifetime, stream.end)
    resources.callback(ending.cancel)
    return EventStream(stream, resources, heartbeat_seconds=parts.settings.heartbeat_seconds)
