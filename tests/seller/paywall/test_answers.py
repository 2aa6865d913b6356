"""What a paid handler answers reaches whoever paid as FastAPI would send it, with a receipt."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, HTTPException, Request, Response
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from pydantic import BaseModel, Field
from starlette.types import Message

from tests.seller.paywall.support import EvmSeller, Payer, usdc
from tests.support import goes_away_while_sending
from waystation.models.money import Money
from waystation.seller.paywall.asking import Visit
from waystation.seller.paywall.entries import EntryState
from waystation.seller.paywall.recording import MAX_ANSWER_BYTES
from waystation.seller.paywall.work import Presented

Endpoint = Callable[..., Any]


class Item(BaseModel):
    name: str = Field(serialization_alias="theName")
    secret: str = "hidden"


class OddError(Exception):
    pass


def file_response(folder: Path) -> Endpoint:
    path = folder / "report.txt"
    path.write_text("a whole file")

    async def endpoint() -> FileResponse:
        return FileResponse(path, filename="r.txt")

    return endpoint


async def streamed() -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        for part in ("one ", "two"):
            yield part

    return StreamingResponse(parts(), media_type="text/plain")


async def redirected() -> RedirectResponse:
    return RedirectResponse("/elsewhere")


def plain_from_a_thread() -> PlainTextResponse:
    return PlainTextResponse("sync")


async def injected(response: Response, tasks: BackgroundTasks) -> dict[str, str]:
    response.headers["x-mine"] = "1"
    response.headers.append("link", "<a>")
    response.headers.append("link", "<b>")
    response.status_code = 201
    tasks.add_task(lambda: None)
    return {"made": "yes"}


async def modelled() -> Item:
    return Item(name="tea")


async def failing_by_http() -> None:
    raise HTTPException(404, "no such report", headers={"x-why": "gone"})


async def failing_oddly() -> None:
    raise OddError


async def set_a_header(response: Response) -> None:
    response.headers["x-from-dependency"] = "1"


ROUTES: dict[str, tuple[Endpoint, dict[str, Any]]] = {
    "stream": (streamed, {}),
    "redirect": (redirected, {}),
    "sync": (plain_from_a_thread, {}),
    "injected": (injected, {}),
    "model": (modelled, {"response_model_exclude": {"secret"}}),
    "html": (lambda: "<b>html</b>", {"response_class": HTMLResponse}),
    "status": (lambda: {"a": 1}, {"status_code": 202}),
    "nothing": (lambda: None, {"status_code": 204}),
    "not found": (failing_by_http, {}),
    "own error": (failing_oddly, {}),
    "dependency": (lambda: {"a": 1}, {"dependencies": [Depends(set_a_header)]}),
    "any json": (lambda: [1, {"b": None}], {"response_model": None}),
}


def offer(seller: EvmSeller, path: str, endpoint: Endpoint, **options: Any) -> None:
    """The same endpoint for money, and for nothing under ``/plain``."""
    seller.app.add_exception_handler(OddError, _on_odd_error)
    seller.app.get(path, **options)(seller.paywall.charge(seller.price)(endpoint))
    seller.app.get(f"/plain{path}", **options)(endpoint)


async def _on_odd_error(_: Request, __: Exception) -> JSONResponse:
    return JSONResponse({"odd": True}, 418)


def seen(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    paid = ("cache-control", "payment-receipt", "payment-response", "access-control-expose-headers")
    headers = [(n, v) for n, v in answer.headers.multi_items() if n not in (*paid, "content-length")]
    return answer.status_code, answer.content, headers


@pytest.mark.parametrize("kind", [*ROUTES, "file"])
async def test_a_paid_answer_is_the_one_that_fastapi_sends(
    payer: Payer, seller: EvmSeller, tmp_path: Path, kind: str
) -> None:
    endpoint, options = (file_response(tmp_path), {}) if kind == "file" else ROUTES[kind]
    offer(seller, "/it", endpoint, **options)
    async with seller.http() as client:
        free = await client.get("/plain/it")
        paid = await payer.client.get("/it")
        again = await client.get("/it", headers=payer.proof())
    assert seen(paid) == seen(free)
    assert seen(again) == seen(free)
    assert "payment-receipt" in paid.headers or "payment-response" in paid.headers
    assert len(await seller.chain.transfers()) == 1


async def test_a_part_of_a_file_is_not_sold_as_the_file(
    payer: Payer, seller: EvmSeller, tmp_path: Path
) -> None:
    offer(seller, "/it", file_response(tmp_path))
    answer = await payer.client.get("/it", headers={"range": "bytes=0-3"})
    assert (answer.status_code, answer.text) == (200, "a whole file")


async def test_a_refund_that_only_people_can_make_is_listed_until_they_have(
    payer: Payer, seller: EvmSeller
) -> None:
    seller.app.get("/gone")(seller.paywall.charge(seller.price, refund_errors=True)(failing_by_http))
    assert (await payer.client.get("/gone")).status_code == 404
    await seller.paywall.reconcile()
    [due] = await seller.paywall.refunds_due()
    assert await seller.paywall.note_refunded(due, "0xsent-back")
    assert await seller.paywall.refunds_due() == []


async def test_a_price_of_0_in_one_currency_gives_nothing_away(seller: EvmSeller) -> None:
    cent = Money(amount=0, currency="usd")
    seller.app.get("/cheap")(seller.paywall.charge(lambda _: (cent, usdc(10)))(injected))
    async with seller.http() as client:
        assert (await client.get("/cheap")).status_code == 402


@pytest.mark.parametrize("price", [None, usdc(0), (usdc(0),)])
async def test_a_free_request_of_a_paid_route_is_left_to_fastapi(
    seller: EvmSeller, price: Money | tuple[Money] | None
) -> None:
    seller.app.get("/free", status_code=203)(seller.paywall.charge(lambda _: price)(injected))
    async with seller.http() as client:
        answer = await client.get("/free")
    assert (answer.status_code, answer.headers["x-mine"]) == (201, "1")
    assert "cache-control" not in answer.headers


async def test_a_generator_is_refused_when_the_app_is_made(seller: EvmSeller) -> None:
    async def parts() -> AsyncIterator[str]:
        yield "x"

    with pytest.raises(TypeError, match="StreamingResponse"):
        seller.paywall.charge(seller.price)(parts)


def large_body(*, breaks: list[bool] | None = None) -> Endpoint:
    chunk = b"x" * (1024 * 1024)

    async def endpoint() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(MAX_ANSWER_BYTES // len(chunk) + 3):
                yield chunk
            if breaks:
                raise RuntimeError("broke midway" if breaks.pop() else "")

        return StreamingResponse(parts(), headers={"x-large": "1"})

    return endpoint


async def test_an_answer_that_is_too_large_to_keep_is_delivered_all_the_same(
    payer: Payer, seller: EvmSeller
) -> None:
    offer(seller, "/large", large_body())
    answer = await payer.client.get("/large")
    assert (answer.status_code, answer.headers["x-large"]) == (200, "1")
    assert len(answer.content) == MAX_ANSWER_BYTES + 3 * 1024 * 1024
    assert "payment-receipt" in answer.headers or "payment-response" in answer.headers
    async with seller.http() as client:
        again = await client.get("/large", headers=payer.proof())
        assert (again.status_code, again.content) == (200, answer.content)
        payer_is_late(seller)
        late = await client.get("/large", headers=payer.proof())
    assert late.status_code == 410
    assert await seller.paywall.undelivered() == []
    assert len(await seller.chain.transfers()) == 1


def payer_is_late(seller: EvmSeller) -> None:
    """Lets every challenge that was issued count as expired."""
    read = seller.paywall._authenticate

    def late(visit: Visit) -> Presented | None:
        presented = read(visit)
        assert presented is not None
        return replace(presented, challenge=replace(presented.challenge, expires_at=datetime.now(UTC)))

    seller.paywall._authenticate = late  # type: ignore[method-assign]


async def test_a_large_answer_that_breaks_off_is_still_owed(payer: Payer, seller: EvmSeller) -> None:
    offer(seller, "/large", large_body(breaks=[True]))
    await payer.client.get("/large")  # a server cuts the connection off here
    [entry] = await seller.paywall.undelivered()
    assert entry.state is EntryState.CHARGED
    async with seller.http() as client:
        assert (await client.get("/large", headers=payer.proof())).status_code == 200


async def test_a_client_that_leaves_a_large_answer_is_still_owed_it(payer: Payer, seller: EvmSeller) -> None:
    offer(seller, "/large", large_body())
    [(name, value)] = (await payer.proof_for("/large")).items()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/large",
        "raw_path": b"/large",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"api.test"), (name.encode(), value.encode())],
        "server": ("api.test", 80),
        "client": ("127.0.0.1", 1),
    }
    left, received = asyncio.Event(), 0
    asked = False

    async def receive() -> Message:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal received
        received += len(message.get("body", b""))
        if received:
            left.set()
            await asyncio.sleep(0)

    await seller.app(scope, receive, send)
    await asyncio.gather(*seller.paywall._running.values())
    [owed] = await seller.paywall.undelivered()
    assert (owed.state, owed.lease) == (EntryState.CHARGED, None)
    async with seller.http() as client:
        again = await client.get("/large", headers={name: value})
    assert len(again.content) > MAX_ANSWER_BYTES


async def test_a_client_that_goes_away_while_it_sends_is_no_error_of_the_apis(seller: EvmSeller) -> None:
    async def endpoint() -> dict[str, str]:
        return {}

    offer(seller, "/it", endpoint)
    sent = await goes_away_while_sending(seller.app, "GET", "/it")
    assert sent[0]["status"] == 400


@pytest.mark.parametrize("status", [402, 408, 425, 429, 500, 503])
@pytest.mark.parametrize("raised", [True, False])
async def test_a_handler_that_says_not_now_runs_again_for_the_same_payment(
    payer: Payer, seller: EvmSeller, status: int, raised: bool
) -> None:
    answers = [status, 200]

    async def endpoint() -> JSONResponse:
        now = answers.pop(0)
        if raised and now != 200:
            raise HTTPException(now, headers={"retry-after": "7"})
        return JSONResponse({}, now, {"retry-after": "7"})

    offer(seller, "/it", endpoint)
    first = await payer.client.get("/it")
    assert (first.status_code, first.headers["retry-after"]) == (500, "7")
    assert first.json()["type"].endswith("/delivery-pending")
    assert "payment-receipt" in first.headers or "payment-response" in first.headers
    assert "www-authenticate" not in first.headers
    async with seller.http() as client:
        assert (await client.get("/it", headers=payer.proof())).status_code == 200
    assert len(await seller.chain.transfers()) == 1
