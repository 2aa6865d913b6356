"""Routes that hand out credentials: session tokens, tickets, the cookie."""

from fastapi import APIRouter, Request, Response

from api.auth import COOKIE, MAX_TOKEN_LIFETIME_SECONDS, Action, Token, TokenRequest
from api.dependencies import Caller, Parts, SessionPath
from api.errors import PROBLEM_RESPONSES, Forbidden

router = APIRouter(responses=PROBLEM_RESPONSES, tags=["credentials"])


@router.post("/tokens", status_code=201, summary="Mint a session token")
async def mint(body: TokenRequest, caller: Caller, parts: Parts, response: Response) -> Token:
    """A short-lived token for one person or agent and particular sessions. Only for the role ``service``."""
    caller.require(Action.MINT)
    response.headers["Cache-Control"] = "no-store"
    return parts.auth.mint(body)


@router.post("/sessions/{session_id}/tickets", status_code=201, summary="Get a one-time ticket")
async def ticket(session_id: SessionPath, caller: Caller, parts: Parts, response: Response) -> Token:
    """A ticket for one EventSource or WebSocket connection: ``?ticket=…``, good once, for 30 seconds."""
    caller.require(Action.READ, session_id)
    response.headers["Cache-Control"] = "no-store"
    return parts.auth.mint_ticket(caller, session_id)


@router.post("/cookie", status_code=204, summary="Keep the token in a cookie")
async def cookie(request: Request, caller: Caller) -> Response:
    """Puts the session token of this request into a cookie that scripts can't read."""
    credential = request.headers.get("authorization", "").partition(" ")[2]
    if caller.sessions is None:
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
