"""Whatever comes as a credential or a cursor: who calls, or a refusal that says what to do."""

import base64
import json
import time
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from api.auth import COOKIE, Authenticator, Principal
from api.cursors import read_cursor
from api.errors import Forbidden, Invalid, Unauthenticated
from api.live.bus import MemoryBus
from tests.api.test_auth import SETTINGS
from tests.odd import ANYTHING, BROKEN_JSON, TEXTS, altered
from tests.world.stack import KEYS
from waystation.whole_numbers import MAX_DIGITS

SECRET = SETTINGS.token_secrets[0].get_secret_value()
CLAIMS = {
    "sub": "ada",
    "name": None,
    "role": "client",
    "sessions": ["s"],
    "use": "token",
    "aud": "waystation",
    "iat": int(time.time()),
    "exp": int(time.time()) + 3_600,
    "until": int(time.time()) + 3_600,
    "jti": "j",
}
HEADER = {"alg": "HS256", "typ": "JWT", "kid": "k", "crit": []}


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def signed(claims: Any) -> str:
    """A token with our signature: a team's own server may hold the secret, too."""
    body = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}"
    key = jwt.get_algorithm_by_name("HS256")
    mac = key.sign(body.encode(), key.prepare_key(SECRET))
    return f"{body}.{part(mac)}"


OF_OURS = (altered(CLAIMS) | ANYTHING | BROKEN_JSON).map(signed)
FORGED = st.builds(
    lambda header, claims, mac: f"{part(header)}.{part(claims)}.{part(mac)}",
    altered(HEADER) | ANYTHING | BROKEN_JSON,
    altered(CLAIMS) | ANYTHING | BROKEN_JSON,
    st.binary(max_size=40),
)
LATIN = st.text(st.characters(max_codepoint=255), max_size=20)
CREDENTIALS = OF_OURS | FORGED | LATIN


def connection(headers: dict[str, str], query: str = "") -> HTTPConnection:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return HTTPConnection({"type": "http", "method": "GET", "headers": raw, "query_string": query.encode()})


async def caller(one: HTTPConnection) -> Principal | None:
    try:
        return await Authenticator(SETTINGS, MemoryBus()).authenticate(one, session_id="s")
    except (Unauthenticated, Forbidden) as problem:
        assert problem.detail  # noqa: PT017 - what else it raises is what this looks for
        return None


@given(CREDENTIALS, st.sampled_from(["Bearer ", "bearer ", "Basic ", ""]))
async def test_every_bearer_is_known_or_refused(credential: str, scheme: str) -> None:
    principal = await caller(connection({"authorization": scheme + credential}))
    if principal is not None:
        assert scheme.lower() == "bearer "
        assert principal.expires_at is not None
        assert principal.expires_at > time.time() - 60
        assert Principal.model_validate_json(principal.model_dump_json()) == principal


@given(CREDENTIALS)
async def test_every_cookie_and_ticket_is_known_or_refused(credential: str) -> None:
    await caller(connection({"cookie": f"{COOKIE}={credential}", "host": "h", "origin": "http://h"}))
    principal = await caller(connection({}, f"ticket={credential}"))
    assert principal is None or principal.sessions == frozenset({"s"})


@given(FORGED | LATIN)
async def test_nobody_gets_in_without_our_signature(credential: str) -> None:
    assert await caller(connection({"authorization": f"Bearer {credential}"})) is None


async def test_these_credentials_would_count() -> None:
    for credential in (signed(CLAIMS), KEYS["service"]):
        assert await caller(connection({"authorization": f"Bearer {credential}"})) is not None


@given(TEXTS | st.text(st.characters(categories=["N"]), max_size=MAX_DIGITS + 1))
def test_every_cursor_is_digits_or_refused(given: str) -> None:
    plain = given.isascii() and given.isdigit() and len(given) <= MAX_DIGITS
    if plain:
        assert read_cursor(given) == int(given)
        return
    with pytest.raises(Invalid, match="is not a number"):
        read_cursor(given)


@given(st.integers(0, 10**MAX_DIGITS - 1))
def test_every_cursor_that_is_given_out_is_taken(seq: int) -> None:
    assert read_cursor(str(seq)) == seq
