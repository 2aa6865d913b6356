"""Tokens between hosts whose clocks differ."""

import time

import pytest
from pydantic import SecretStr, ValidationError
from starlette.requests import HTTPConnection

from api.auth import Authenticator, TokenRequest
from api.errors import Unauthenticated
from api.live.bus import MemoryBus
from tests.world.stack import KEYS
from waystation.settings import ApiKey, Settings, hash_api_key

SETTINGS = Settings(
    api_keys=(ApiKey(id="service", role="service", sha256=hash_api_key(KEYS["service"])),),
    token_secrets=(SecretStr("a secret of thirty-two bytes or more"),),
)


def connection(token: str) -> HTTPConnection:
    headers = [(b"authorization", f"Bearer {token}".encode())]
    return HTTPConnection({"type": "http", "method": "GET", "headers": headers, "query_string": b""})


@pytest.mark.parametrize(("ahead_seconds", "valid"), [(0.4, True), (30, True), (-30, True), (-90, False)])
async def test_a_token_of_a_host_whose_clock_differs_is_good_until_it_expires(
    monkeypatch: pytest.MonkeyPatch, ahead_seconds: float, valid: bool
) -> None:
    authenticator, now = Authenticator(SETTINGS, MemoryBus()), time.time()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(time, "time", lambda: now + ahead_seconds)
        minted = authenticator.mint(
            TokenRequest(role="client", subject="ada", sessions=("s",), ttl_seconds=60)
        )
    if valid:
        assert (await authenticator.authenticate(connection(minted.token))).subject == "ada"
    else:
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate(connection(minted.token))


@pytest.mark.parametrize("seconds", [True, "60", 1.0])
def test_a_tokens_lifetime_is_a_number(seconds: object) -> None:
    with pytest.raises(ValidationError, match="ttl_seconds"):
        TokenRequest.model_validate(
            {"role": "client", "subject": "ada", "sessions": ["s"], "ttl_seconds": seconds}
        )
