"""Paid routes that take forms: the payment is bound to the bytes of the form."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, File, Form, UploadFile

from tests.seller.paywall.support import BASE_URL, EvmSeller, Payer, paid_header, stock_mpp, stock_x402
from waystation.seller.paywall.forms import KeepForms


class FormSeller(EvmSeller):
    """Sells routes with an urlencoded and with a multipart form."""

    keep = True

    def _app(self) -> FastAPI:
        app = FastAPI()
        if self.keep:
            app.add_middleware(KeepForms, max_bytes=100_000)
        self.got: Counter[str] = Counter()

        @app.post("/words")
        @self.paywall.charge(self.price)
        async def words(text: Annotated[str, Form()]) -> dict[str, Any]:
            self.got[text] += 1
            return {"words": len(text.split())}

        @app.post("/file")
        @self.paywall.charge(self.price)
        async def file(upload: Annotated[UploadFile, File()]) -> dict[str, Any]:
            content = await upload.read()
            self.got[content.decode()] += 1
            return {"bytes": len(content)}

        return app


@pytest.fixture(params=["mpp", "x402"])
async def buyer(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    seller = FormSeller(tmp_path)
    made = Payer(seller, stock_mpp if request.param == "mpp" else stock_x402)
    yield seller, made
    await made.client.aclose()
    await seller.close()


async def test_a_form_is_paid_for_once(buyer: tuple[FormSeller, Payer]) -> None:
    seller, payer = buyer
    answer = await payer.client.post("/words", data={"text": "one two three"})
    assert (answer.status_code, answer.json()) == (200, {"words": 3})
    again = await payer.wire.handle_async_request(payer.wire.seen[-1])
    assert (await again.aread(), again.status_code) == (answer.content, 200)
    assert seller.got == {"one two three": 1}
    assert len(await seller.chain.transfers()) == 1


async def test_a_file_is_paid_for(buyer: tuple[FormSeller, Payer]) -> None:
    seller, payer = buyer
    answer = await payer.client.post("/file", files={"upload": ("a.txt", b"some bytes")})
    assert (answer.status_code, answer.json()) == (200, {"bytes": 10})
    assert seller.got == {"some bytes": 1}


async def test_a_payment_for_one_form_buys_no_other(buyer: tuple[FormSeller, Payer]) -> None:
    seller, payer = buyer
    await payer.client.post("/words", data={"text": "cheap"})
    proof = paid_header(payer.wire.seen)
    async with seller.http() as plain:
        other = await plain.post("/words", data={"text": "dear"}, headers=proof)
    assert other.status_code == 402
    assert seller.got == {"cheap": 1}


async def test_a_form_too_large_is_a_413_and_costs_nothing(buyer: tuple[FormSeller, Payer]) -> None:
    seller, payer = buyer
    answer = await payer.client.post("/words", data={"text": "x" * 200_000})
    assert answer.status_code == 413
    assert await seller.chain.transfers() == []


async def test_without_the_middleware_nothing_is_charged(tmp_path: Path) -> None:
    class Careless(FormSeller):
        keep = False

    seller = Careless(tmp_path)
    inner = httpx.ASGITransport(seller.app)
    async with httpx.AsyncClient(transport=inner, base_url=BASE_URL) as client:
        with pytest.raises(RuntimeError, match="KeepForms"):
            await client.post("/words", data={"text": "x"})
    assert await seller.chain.transfers() == []
    await seller.close()
