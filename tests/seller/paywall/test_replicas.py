"""A paywall in two processes over one Redis journal."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import httpx
import pytest

from tests.seller.paywall.support import account, x402_payload
from tests.seller.paywall.test_journal import redis_url as redis_url
from tests.support import eventually
from tests.world.replica import ReplicaProcess
from tests.world.sandbox import Facilitator
from waystation.protocols.http402 import encode_json_header

AT_ONCE = 8


class Replicas:
    """Two processes of one API, and the sandbox's facilitator."""

    def __init__(self, folder: Path, redis: str) -> None:
        self.runs = folder / "runs"
        self.runs.touch()
        self.facilitator = Facilitator(folder)
        prefix = uuid.uuid4().hex
        self.apis = [
            ReplicaProcess(
                folder, redis=redis, prefix=prefix, facilitator=self.facilitator.url, runs=self.runs
            )
            for _ in range(2)
        ]
        self.urls = [api.url for api in self.apis]
        self.http = httpx.AsyncClient(trust_env=False, timeout=40)

    async def __aenter__(self) -> Self:
        try:
            for process in (self.facilitator, *self.apis):
                process.start()
            for process in (self.facilitator, *self.apis):
                await process.ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()
        for process in (self.facilitator, *self.apis):
            process.kill()

    async def proof(self) -> dict[str, str]:
        """A credential that nobody has presented yet."""
        _, payload = await x402_payload(self.http, f"{self.urls[0]}/report", account())
        return {"payment-signature": encode_json_header(payload)}


@pytest.fixture
async def replicas(tmp_path: Path, redis_url: str) -> AsyncIterator[Replicas]:
    async with Replicas(tmp_path, redis_url) as replicas:
        yield replicas


async def test_identical_credentials_over_both_are_one_charge_one_run_one_answer(replicas: Replicas) -> None:
    proof = await replicas.proof()
    answers = await asyncio.gather(
        *(replicas.http.get(f"{replicas.urls[n % 2]}/report", headers=proof) for n in range(AT_ONCE))
    )
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert len(replicas.runs.read_text().splitlines()) == 1
    assert len(replicas.facilitator.transfers()) == 1


async def test_when_one_dies_the_other_delivers(replicas: Replicas) -> None:
    proof = await replicas.proof()
    first = asyncio.create_task(replicas.http.get(f"{replicas.urls[0]}/report", headers=proof))
    await eventually(lambda: replicas.runs.read_text(), what="the handler runs")
    replicas.apis[0].kill()
    with pytest.raises(httpx.HTTPError):
        await first
    answer = await replicas.http.get(f"{replicas.urls[1]}/report", headers=proof)
    assert (answer.status_code, answer.json()) == (200, {"by": replicas.apis[1].popen.pid})
    assert len(replicas.facilitator.transfers()) == 1
