"""What routes ask for: the parts of the process, the caller, a valid session id."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request, Security
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from api.auth import Authenticator, Principal, check_session_id
from api.gateways.money import MoneyParts
from api.gateways.sessions import Gateway
from api.gateways.webhooks import WebhookGateway
from api.live.attention import AttentionBoard
from api.live.bus import LiveBus
from api.live.channels import Channels
from api.live.connected import ConnectedAgents
from api.live.control import Control
from api.live.feeds import Feeds
from api.live.push import PushDesk
from waystation.settings import Settings


@dataclass(frozen=True)
class ApiParts:
    """Everything an API process is made of; one for the whole process."""

    settings: Settings
    gateway: Gateway
    money: MoneyParts
    webhooks: WebhookGateway
    push: PushDesk
    bus: LiveBus
    feeds: Feeds
    channels: Channels
    control: Control
    attention: AttentionBoard
    auth: Authenticator
    connected_agents: ConnectedAgents


def _parts(connection: HTTPConnection) -> ApiParts:
    parts: ApiParts = connection.app.state.parts
    return parts


def _session_id(
    session_id: Annotated[str, Path(description="The session's id, which is its Temporal workflow id.")],
) -> str:
    return check_session_id(session_id)


def _money(connection: HTTPConnection) -> MoneyParts:
    return _parts(connection).money


def _webhooks(connection: HTTPConnection) -> WebhookGateway:
    return _parts(connection).webhooks


def _push(connection: HTTPConnection) -> PushDesk:
    return _parts(connection).push


Parts = Annotated[ApiParts, Depends(_parts)]
Money = Annotated[MoneyParts, Depends(_money)]
WebhooksPart = Annotated[WebhookGateway, Depends(_webhooks)]
Push = Annotated[PushDesk, Depends(_push)]
SessionPath = Annotated[str, Depends(_session_id)]


async def authenticate(request: Request) -> Principal:
    """Returns the caller of a request; the route's door has asked before, and that answer holds."""
    known: Principal | None = getattr(request.state, "caller", None)
    if known is None:
        known = await _parts(request).auth.authenticate(
            request, session_id=request.path_params.get("session_id")
        )
        request.state.caller = known
    return known


async def _caller(
    caller: Annotated[Principal, Depends(authenticate)],
    _: Annotated[object, Security(HTTPBearer(auto_error=False))],
) -> Principal:
    return caller


Caller = Annotated[Principal, Depends(_caller)]
