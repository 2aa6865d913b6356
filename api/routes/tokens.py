"""Routes about credentials: who am I, session tokens, tickets, the cookie."""

from fastapi import APIRouter, Request, Response

from api.auth import COOKIE, MAX_TOKEN_LIFETIME_SECONDS, Action, Token, TokenRequest
from api.dependencies import Caller, Parts, SessionPath
from api.door import DoorRoute
from api.errors import PROBLEM_RESPONSES, Forbidden
from waystation.models.base import Frozen

router = APIRouter(route_class=DoorRoute, responses=PROBLEM_RESPONSES, tags=["credentials"])


class Me(Frozen):
    """Who the caller is and what they may do; ``sessions`` and ``expires_at`` are null if unbounded."""

    subject: str
    role: str
    name: str | None
    may: tuple[str, ...]
    sessions: tuple[str, ...] | None
    expires_at: int | None


@router.get("/me", summary="Who am I")
async def me(caller: Caller, response: Response) -> Me:
    """Returns what this request's credential may do, so that a page offers nothing that is refused."""
    response.headers["Cache-Control"] = "no-store"
    return Me(
        subject=caller.subject,
        role=caller.role,
        name=caller.name,
        may=tuple(sorted(caller.may)),
        sessions=None if caller.sessions is None else tuple(sorted(caller.sessions)),
        expires_at=caller.expires_at,
    )


@router.post("/tokens", status_code=201, summary="Mint a session token")
async def mint(body: TokenRequest, caller: Caller, parts: Parts, response: Response) -> Token:
    """Returns a short-lived token for one person or agent and particular sessions. Role ``service`` only."""
    caller.require(Action.MINT)
    response.headers["Cache-Control"] = "no-store"
    return parts.auth.mint(body)


@router.post("/sessions/{session_id}/tokens", status_code=201, summary="Get a token for another device")
async def device_token(session_id: SessionPath, caller: Caller, parts: Parts, response: Response) -> Token:
    """Returns a token with the caller's rights in one session, for an hour at most: for a phone, say."""
    caller.require(Action.READ, session_id)
    if caller.role == "service":
        raise Forbidden(
            "A service's rights don't belong on a device; mint one for a person with POST /tokens."
        )
    response.headers["Cache-Control"] = "no-store"
    return parts.auth.mint_for_device(caller, session_id)


@router.post("/sessions/{session_id}/tickets", status_code=201, summary="Get a one-time ticket")
async def ticket(session_id: SessionPath, caller: Caller, parts: Parts, response: Response) -> Token:
    """Returns a ticket for one WebSocket connection: ``?ticket=…``, good once, for 30 s."""
    caller.require(Action.READ, session_id)
    response.headers["Cache-Control"] = "no-store"
    return parts.auth.mint_ticket(caller, session_id)


@router.post("/cookie", status_code=204, summary="Keep the token in a cookie")
async def cookie(request: Request, caller: Caller) -> Response:
    """Puts the session token of this request into a cookie that scripts can't read."""
    credential = request.headers.get("authorization", "").partition(" ")[2]
    if caller.expires_at is None:
        raise Forbidden("An API key doesn't belong in a browser; mint a session token first.")
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE,
        credential,
        max_age=MAX_TOKEN_LIFETIME_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response
