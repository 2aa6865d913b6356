"""Who calls, and what they may do. There is no open mode.

Two kinds of credentials: API keys for a team's own servers, workers and agents (long-lived,
only their hashes are known here), and session tokens for everybody else (short-lived, signed,
naming the role and the sessions they are for, or all of them). EventSource and WebSocket in a browser can't
set headers: they use a cookie holding a session token, or a ticket good for one connection.
"""

import contextlib
import secrets
import time
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Literal, Protocol, Self, get_args

import jwt
from pydantic import Field, TypeAdapter, ValidationError, model_validator
from starlette.requests import HTTPConnection

from api.errors import Forbidden, Invalid, Unauthenticated, UnknownSession
from waystation.errors import StartError
from waystation.models.base import Frozen
from waystation.models.events import Actor, Identifier, Role, SessionId
from waystation.models.questions import AnswersAs
from waystation.settings import ANY_AGENT, ApiRole, Settings, hash_api_key

COOKIE = "waystation_token"
TICKET_LIFETIME_SECONDS = 30
MAX_TOKEN_LIFETIME_SECONDS = 12 * 3_600
DEFAULT_TOKEN_LIFETIME_SECONDS = 900
DEVICE_TOKEN_LIFETIME_SECONDS = 3_600
MAX_SESSIONS_PER_TOKEN = 100
MIN_TOKEN_SECRET_BYTES = 32
_ALGORITHM = "HS256"
_AUDIENCE = "waystation"
_SESSION_ID: TypeAdapter[str] = TypeAdapter(SessionId)

TokenRole = Literal["client", "agent", "operator", "approver"]


class Action(StrEnum):
    """What a caller may be allowed to do."""

    READ = "read"
    SEND = "send"
    JOIN = "join"
    TAKE_OVER = "take over"
    NOTE = "write notes for staff"
    WRITE = "write as an agent"
    APPROVE = "approve"
    ANSWER = "answer questions"
    START = "start sessions"
    CLOSE = "close sessions"
    LIST = "list sessions"
    MINT = "mint tokens"
    WEBHOOKS = "manage webhooks"


_TALK = frozenset({Action.READ, Action.SEND, Action.JOIN, Action.ANSWER})
_ALLOWED: dict[ApiRole, frozenset[Action]] = {
    "client": _TALK | {Action.START},
    "agent": frozenset({Action.READ, Action.WRITE}),
    "operator": _TALK | {Action.TAKE_OVER, Action.NOTE, Action.LIST, Action.CLOSE, Action.WEBHOOKS},
    "approver": frozenset({Action.READ, Action.JOIN, Action.APPROVE, Action.ANSWER}),
    "service": frozenset(Action) - {Action.APPROVE},
}
_NOT_FOR_SOME_SESSIONS = frozenset({Action.START, Action.LIST, Action.MINT, Action.WEBHOOKS})
_STAFF = frozenset({"operator", "agent", "service"})
_SPEAKS_AS = {"operator": Role.OPERATOR, "agent": Role.AGENT}


class Principal(Frozen):
    """An authenticated caller. ``sessions`` is null for one who may see them all."""

    subject: Identifier
    role: ApiRole
    name: str | None = None
    sessions: frozenset[str] | None = None
    expires_at: int | None = None
    """The Unix time in seconds at which a token ends, and with it what it has opened; null for API keys."""
    agents: frozenset[str] = frozenset()
    """The agents that an agent's credential speaks for, beside ``subject`` itself."""

    @property
    def actor(self) -> Actor:
        """Who this caller is in a session."""
        return Actor(id=self.subject, role=_SPEAKS_AS.get(self.role, Role.USER), name=self.name)

    def seconds_left(self) -> float | None:
        """Returns how long what this caller has opened may stay open; None if there is no limit."""
        return None if self.expires_at is None else max(self.expires_at - time.time(), 0.0)

    @property
    def may(self) -> frozenset[Action]:
        """Everything that this caller may do."""
        allowed = _ALLOWED[self.role]
        return allowed if self.sessions is None else allowed - _NOT_FOR_SOME_SESSIONS

    def sees(self, session_id: str) -> bool:
        """Returns whether this caller may know that the session exists."""
        return self.sessions is None or session_id in self.sessions

    @property
    def is_staff(self) -> bool:
        """Whether this caller sees what is kept from people: not so approvers, who may be customers."""
        return self.role in _STAFF

    def speaks_for(self, agent: str) -> bool:
        """Returns whether this caller may spend money in the agent's name; agents' keys name theirs."""
        if self.role != "agent":
            return self.role == "service"
        return agent == self.subject or not self.agents.isdisjoint({agent, ANY_AGENT})

    def require(self, action: Action, session_id: str | None = None) -> None:
        """Raises unless the action is allowed: 404 for a session out of sight, else 403."""
        if session_id is not None and not self.sees(session_id):
            raise UnknownSession(session_id)
        if action not in _ALLOWED[self.role]:
            raise Forbidden(f"The role '{self.role}' may not {action}.")
        if action not in self.may:
            raise Forbidden(f"A token for particular sessions may not {action}.")


class TokenRequest(Frozen):
    """The body of ``POST /tokens``. ``sessions`` is null for all of them: operators and approvers only."""

    role: TokenRole
    sessions: tuple[SessionId, ...] | None = Field(min_length=1, max_length=MAX_SESSIONS_PER_TOKEN)
    subject: Identifier
    """Who the token is for: the actor id in the sessions."""
    name: str | None = Field(default=None, max_length=200)
    ttl_seconds: int = Field(
        default=DEFAULT_TOKEN_LIFETIME_SECONDS, ge=1, le=MAX_TOKEN_LIFETIME_SECONDS, strict=True
    )

    @model_validator(mode="after")
    def _all_sessions_are_for_staff(self) -> Self:
        if self.sessions is None and self.role not in ("operator", "approver"):
            raise ValueError("only operators and approvers get a token for all sessions; name the sessions")
        return self


class Token(Frozen):
    """A session token or ticket, and the Unix time in seconds at which it ends."""

    token: str
    expires_at: int


class TakenOnce(Protocol):
    """What makes a ticket good only once: the live bus, across all processes."""

    async def claim(self, key: str, lifetime_seconds: int) -> bool:
        """Returns True for the first to claim ``key``."""
        ...


def check_credentials(settings: Settings) -> None:
    """Raises ``StartError`` if nobody could call the API, or anybody could forge a token."""
    if not settings.api_keys:
        raise StartError("WAYSTATION_API_KEYS is empty: nobody could call the API. See docs/settings.md.")
    lengths = [len(secret.get_secret_value().encode()) for secret in settings.token_secrets]
    if min(lengths, default=0) < MIN_TOKEN_SECRET_BYTES:
        raise StartError(
            f"WAYSTATION_TOKEN_SECRETS needs a secret of {MIN_TOKEN_SECRET_BYTES} bytes or more."
        )


class Authenticator:
    """Checks credentials and mints session tokens and tickets."""

    def __init__(self, settings: Settings, tickets: TakenOnce) -> None:
        self._keys = {key.sha256: key for key in settings.api_keys}
        self._secrets = [secret.get_secret_value() for secret in settings.token_secrets]
        self._tickets = tickets
        check_credentials(settings)

    async def authenticate(self, connection: HTTPConnection, *, session_id: str | None = None) -> Principal:
        """Returns the caller of a request or socket; raises ``Unauthenticated``."""
        header = connection.headers.get("authorization", "")
        scheme, _, credential = header.partition(" ")
        if header:
            if scheme.lower() != "bearer" or not credential:
                raise Unauthenticated("Use 'Authorization: Bearer <API key or session token>'.")
            return self._by_key(credential) or self._by_token(credential, "token")
        if ticket := connection.query_params.get("ticket"):
            _require_reading(connection, "ticket")
            return await self._by_ticket(ticket, session_id)
        if cookie := connection.cookies.get(COOKIE):
            _require_reading(connection, "cookie")
            _require_same_origin(connection)
            return self._by_token(cookie, "token")
        raise Unauthenticated("Give an API key or session token as a bearer token, a cookie or a ticket.")

    def mint(self, request: TokenRequest) -> Token:
        """Signs a session token."""
        claims = {
            "sub": request.subject,
            "name": request.name,
            "role": request.role,
            "sessions": None if request.sessions is None else sorted(set(request.sessions)),
        }
        return self._sign(claims, "token", request.ttl_seconds)

    def mint_for_device(self, principal: Principal, session_id: str) -> Token:
        """Signs a session token for another device of the same person, with the caller's own rights.

        It never outlives the caller's own token, so that passing tokens on doesn't prolong them.
        """
        lifetime = DEVICE_TOKEN_LIFETIME_SECONDS
        if principal.expires_at is not None:
            lifetime = min(lifetime, principal.expires_at - int(time.time()))
        return self._sign(_own_claims(principal, session_id), "token", lifetime)

    def mint_ticket(self, principal: Principal, session_id: str) -> Token:
        """Signs a ticket for one connection to one session, with the caller's own rights."""
        claims = {
            **_own_claims(principal, session_id),
            "jti": secrets.token_urlsafe(16),
            "until": principal.expires_at,
        }
        return self._sign(claims, "ticket", TICKET_LIFETIME_SECONDS)

    def _sign(self, claims: Mapping[str, object], use: str, lifetime_seconds: int) -> Token:
        now = int(time.time())
        expires = now + lifetime_seconds
        payload = {**claims, "use": use, "aud": _AUDIENCE, "iat": now, "exp": expires}
        return Token(token=jwt.encode(payload, self._secrets[0], algorithm=_ALGORITHM), expires_at=expires)

    def _by_key(self, credential: str) -> Principal | None:
        key = self._keys.get(hash_api_key(credential))
        return Principal(subject=key.id, role=key.role, agents=frozenset(key.agents)) if key else None

    def _by_token(self, credential: str, use: str) -> Principal:
        claims = self._verify(credential)
        if claims is None or claims.get("use") != use or claims.get("role") not in get_args(ApiRole):
            raise Unauthenticated("This credential is unknown, malformed or has expired; get a new one.")
        try:
            return Principal.model_validate(
                {
                    "subject": str(claims["sub"]),
                    "role": claims["role"],
                    "name": claims.get("name"),
                    "sessions": None if claims["sessions"] is None else frozenset(_texts(claims["sessions"])),
                    # A ticket lasts a moment; the connection it opens lasts as long as its owner's token.
                    "expires_at": claims["until"] if use == "ticket" else claims["exp"],
                }
            )
        except (KeyError, ValidationError) as error:
            raise Unauthenticated("This credential is malformed; get a new one.") from error

    async def _by_ticket(self, ticket: str, session_id: str | None) -> Principal:
        principal = self._by_token(ticket, "ticket")
        if session_id is None or principal.sessions != frozenset({session_id}):
            raise Unauthenticated("This ticket is for another session.")
        claims = self._verify(ticket) or {}
        if not await self._tickets.claim(f"ticket:{claims.get('jti')}", TICKET_LIFETIME_SECONDS):
            raise Unauthenticated("This ticket has been used; get a new one for each connection.")
        return principal

    def _verify(self, credential: str) -> dict[str, object] | None:
        for secret in self._secrets:
            with contextlib.suppress(jwt.InvalidTokenError):
                claims: dict[str, object] = jwt.decode(
                    credential,
                    secret,
                    algorithms=[_ALGORITHM],
                    audience=_AUDIENCE,
                    # Another host signed it, perhaps: its clock may be ahead of this one's.
                    options={"verify_iat": False},
                )
                return claims
        return None


def _own_claims(principal: Principal, session_id: str) -> dict[str, object]:
    return {
        "sub": principal.subject,
        "name": principal.name,
        "role": principal.role,
        "sessions": [session_id],
    }


def _texts(value: object) -> Iterable[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _require_reading(connection: HTTPConnection, credential: str) -> None:
    """Raises unless a credential that browsers send by themselves is used for reading."""
    if connection.scope["type"] == "http" and connection.scope["method"] not in ("GET", "HEAD"):
        raise Unauthenticated(
            f"A {credential} only opens streams and reads; send the token as a bearer token."
        )


def _require_same_origin(connection: HTTPConnection) -> None:
    """Raises if a cookie came with a request from another site: browsers send it there too."""
    origin = connection.headers.get("origin")
    if origin and origin.split("://", 1)[-1] != connection.headers.get("host"):
        raise Forbidden("This origin may not use the cookie.", code="wrong-origin")


def check_session_id(session_id: str) -> str:
    """Returns a session's id; refuses one that no session can have before anyone is asked about it."""
    try:
        return _SESSION_ID.validate_python(session_id)
    except ValidationError as error:
        raise Invalid(
            "A session id has 1 to 100 letters, digits, '.', '_' or '-'.", code="invalid-session-id"
        ) from error


def speaker(caller: Principal, actor: Actor | None) -> Actor:
    """Returns who speaks: the caller, or whom a service speaks for."""
    if actor is None:
        return caller.actor
    if caller.role != "service":
        raise Forbidden("Only the role 'service' speaks for others; leave 'actor' out.")
    return actor


def answers_as(caller: Principal, actor: Actor) -> AnswersAs:
    """Returns what somebody is who answers a question."""
    if caller.role == "approver":
        return "approver"
    return "operator" if actor.role == Role.OPERATOR else "user"


def decides_in_person(caller: Principal) -> bool:
    """Returns whether this caller may decide on a tool: a service can't do that for people."""
    return caller.role != "service"
