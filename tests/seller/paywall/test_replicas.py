"""A paywall in two processes over one Redis journal."""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.seller.paywall.support import account, x402_payload
from tests.seller.paywall.test_journal import redis_url as redis_url
from tests.support import START_SECONDS, Process, eventually, free_port
from waystation.protocols.http402 import encode_json_header

AT_ONCE = 8


class Replicas:
    """Two processes of one API, and the sandbox's facilitator."""

    def __init__(self, folder: Path, redis: str) -> None:
        chain = free_port()
        self.facilitator = f"http://127.0.0.1:{chain}"
        self.runs = folder / "runs"
        self.runs.touch()
        ports = [free_port(), free_port()]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        python = (sys.executable, "-m")
        prefix = uuid.uuid4().hex
        self.processes = [
            Process(
                *python, "waystation.sandbox.facilitator", "--port", str(chain), "--data", str(folder),
                log=folder / "facilitator.log",
            ),
            *(
                Process(
                    *python, "tests.seller.paywall.replica_process", "--port", str(port), "--redis", redis,
                    "--prefix", prefix, "--facilitator", self.facilitator, "--runs", str(self.runs),
                    log=folder / f"replica-{port}.log",
                )
                for port in ports
            ),
        ]  # fmt: skip
        self.http = httpx.AsyncClient(trust_env=False, timeout=40)

    async def ready(self) -> None:
        for url in (*(f"{url}/health" for url in self.urls), f"{self.facilitator}/supported"):
            await eventually(lambda url=url: self._answers(url), within=START_SECONDS, what=f"{url} answers")

    async def _answers(self, url: str) -> bool:
        try:
            return (await self.http.get(url)).is_success
        except httpx.HTTPError:
            return False

    async def transfers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.http.get(f"{self.facilitator}/sandbox/transfers")).json()
        return found

    async def proof(self) -> dict[str, str]:
        """A credential that nobody has presented yet."""
        _, payload = await x402_payload(self.http, f"{self.urls[0]}/report", account())
        return {"payment-signature": encode_json_header(payload)}

    async def close(self) -> None:
        await self.http.aclose()
        for process in self.processes:
            process.kill()


@pytest.fixture
async def replicas(tmp_path: Path, redis_url: str) -> AsyncIterator[Replicas]:
    made = Replicas(tmp_path, redis_url)
    try:
        await made.ready()
        yield made
    finally:
        await made.close()


async def test_identical_credentials_over_both_are_one_charge_one_run_one_answer(replicas: Replicas) -> None:
    proof = await replicas.proof()
    answers = await asyncio.gather(
        *(replicas.http.get(f"{replicas.urls[n % 2]}/report", headers=proof) for n in range(AT_ONCE))
    )
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert len(replicas.runs.read_text().splitlines()) == 1
    assert len(await replicas.transfers()) == 1


async def test_when_one_dies_the_other_delivers(replicas: Replicas) -> None:
    proof = await replicas.proof()
    first = asyncio.create_task(replicas.http.get(f"{replicas.urls[0]}/report", headers=proof))
    await eventually(lambda: replicas.runs.read_text(), what="the handler runs")
    replicas.processes[1].kill()
    with pytest.raises(httpx.HTTPError):
        await first
    answer = await replicas.http.get(f"{replicas.urls[1]}/report", headers=proof)
    assert (answer.status_code, answer.json()) == (200, {"by": replicas.processes[2].popen.pid})
    assert len(await replicas.transfers()) == 1
