"""A paywall in two processes over one Redis journal."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.seller.paywall.support import account, x402_payload
from tests.seller.paywall.test_journal import redis_url as redis_url
from tests.support import eventually
from tests.world.replicas import Replicas
from waystation.protocols.http402 import encode_json_header

AT_ONCE = 8


@pytest.fixture
async def replicas(tmp_path: Path, redis_url: str) -> AsyncIterator[Replicas]:
    async with Replicas(tmp_path, redis_url) as replicas:
        yield replicas


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=40) as http:
        yield http


async def unused_proof(http: httpx.AsyncClient, replicas: Replicas) -> dict[str, str]:
    """A credential that nobody has presented yet."""
    _, payload = await x402_payload(http, f"{replicas.urls[0]}/report", account())
    return {"payment-signature": encode_json_header(payload)}


async def test_identical_credentials_over_both_are_one_charge_one_run_one_answer(
    replicas: Replicas, http: httpx.AsyncClient
) -> None:
    proof = await unused_proof(http, replicas)
    answers = await asyncio.gather(
        *(http.get(f"{replicas.urls[n % 2]}/report", headers=proof) for n in range(AT_ONCE))
    )
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert len(replicas.runs.read_text().splitlines()) == 1
    assert len(replicas.facilitator.transfers()) == 1


async def test_when_one_dies_the_other_delivers(replicas: Replicas, http: httpx.AsyncClient) -> None:
    proof = await unused_proof(http, replicas)
    first = asyncio.create_task(http.get(f"{replicas.urls[0]}/report", headers=proof))
    await eventually(lambda: replicas.runs.read_text(), what="the handler runs")
    replicas.apis[0].kill()
    with pytest.raises(httpx.HTTPError):
        await first
    answer = await http.get(f"{replicas.urls[1]}/report", headers=proof)
    assert (answer.status_code, answer.json()) == (200, {"by": replicas.apis[1].popen.pid})
    assert len(replicas.facilitator.transfers()) == 1
