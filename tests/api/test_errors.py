"""Whatever ends a request, its caller gets a problem that says what to do."""

import asyncio

import pytest
from fastapi import FastAPI

from api import errors
from api.errors import CarriedOut, Unavailable
from waystation.errors import TryLater, problem


async def test_a_request_that_is_cut_off_when_the_process_ends_is_told_to_try_again() -> None:
    app, sent = FastAPI(), []
    errors.install(app)

    @app.get("/waits")
    async def waits() -> None:
        await asyncio.Event().wait()

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": "/waits", "raw_path": b"/waits", "query_string": b"",
        "headers": [], "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80), "root_path": "",
    }  # fmt: skip
    serving = asyncio.create_task(app(scope, receive, send))  # type: ignore[arg-type]
    await asyncio.sleep(0.05)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert sent[0]["status"] == 503
    assert (b"retry-after", b"2") in [(name, value) for name, value in sent[0]["headers"]]  # type: ignore[attr-defined]
    assert b'"code": "unavailable"' in sent[1]["body"]  # type: ignore[operator]


@pytest.mark.parametrize("known", CarriedOut)
def test_a_client_learns_whether_its_request_may_have_been_carried_out(known: CarriedOut) -> None:
    said = Unavailable("Nobody answers.", known)
    heard = problem(said.status, said.body(), "2")
    assert isinstance(heard, TryLater)
    assert heard.carried_out == ("unknown" if known is CarriedOut.UNKNOWN else "no")
    assert known.value in heard.detail
