"""What a paid request costs over a bare 402 client on the same paid API, side by side.

    python -m benchmarks.paid_requests --requests 60

Real processes on this machine: Temporal's dev server, a worker, the sandbox processor, the
sandbox paid API. Each column makes the same requests one after the other; times are from the
call to the answer in hand, in milliseconds.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from eth_account import Account
from mpp.client import Mpp
from mpp.methods.stripe import client as stripe_method
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from tests.support import Process, TemporalServer, eventually, free_port
from waystation.models.mandates import MandateTerms
from waystation.models.money import Money
from waystation.models.payments import Rail
from waystation.paying import Payer
from waystation.protocols.eip3009 import USDC_BASE_SEPOLIA
from waystation.sandbox.paid_api import NETWORK_ID
from waystation.stripe_http import STRIPE_API_VERSION, open_stripe
from workflows.mandate import Mandate, MandateStart

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from x402.client import x402Client
    from x402.http.clients.httpx import x402AsyncTransport
    from x402.mechanisms.evm.exact import ExactEvmClientScheme

KEY = "0x" + "22" * 32
AIM_WORKFLOW, AIM_ALLOWANCE = 3.0, 1.3
WARM_UP = 5
Request = Callable[[int], Awaitable[None]]


class Machine:
    """The processes under measurement."""

    def __init__(self, folder: Path) -> None:
        processor, api = free_port(), free_port()
        self.queue = f"bench-{uuid.uuid4().hex[:6]}"
        self.processor_url, self.api_url = f"http://127.0.0.1:{processor}", f"http://127.0.0.1:{api}"
        self.temporal = TemporalServer(folder)
        python = (sys.executable, "-m")
        self.processes = [
            Process(
                *python, "waystation.sandbox.processor", "--port", str(processor),
                "--data", str(folder / "processor"), log=folder / "processor.log",
            ),
            Process(
                *python, "waystation.sandbox.paid_api", "--port", str(api), "--data", str(folder / "paid"),
                "--processor", self.processor_url, log=folder / "api.log",
            ),
        ]  # fmt: skip
        self._worker = (
            *python, "tests.paid.worker_process", "--temporal", self.temporal.address,
            "--processor", self.processor_url, "--queue", self.queue, "--key", KEY,
            "--rpc", f"{self.api_url}/facilitator/rpc",
        )  # fmt: skip
        self._log = folder / "worker.log"

    async def ready(self) -> Client:
        await self.temporal.ready()
        self.processes.append(Process(*self._worker, log=self._log))
        async with httpx.AsyncClient(trust_env=False) as http:
            for url in (self.processor_url, self.api_url):

                async def answers(url: str = url) -> bool:
                    try:
                        return (await http.get(f"{url}/sandbox/health")).is_success
                    except httpx.HTTPError:
                        return False

                await eventually(answers, within=30)
        return await Client.connect(self.temporal.address, data_converter=pydantic_data_converter)

    def stop(self) -> None:
        for process in (*self.processes, self.temporal):
            process.kill()


async def measure(make: Request, requests: int) -> list[float]:
    """Milliseconds of each request, after a warm-up."""
    for number in range(WARM_UP):
        await make(-1 - number)
    taken = []
    for number in range(requests):
        began = time.perf_counter()
        await make(number)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def bare_card(machine: Machine) -> tuple[httpx.AsyncClient, Request]:
    """pympp's own client, issuing a token for each challenge."""
    agent, _ = open_stripe("sk_test_agent", api_base=machine.processor_url)

    async def create_token(parameters: Any) -> str:
        answer = await agent.raw_request_async(
            "post",
            "/v1/shared_payment/issued_tokens",
            payment_method="pm_card_visa",
            seller_details={"network_business_profile": NETWORK_ID},
            usage_limits={
                "currency": "usd",
                "max_amount": int(parameters.amount),
                "expires_at": int((datetime.now(UTC) + timedelta(minutes=10)).timestamp()),
            },
            stripe_version=STRIPE_API_VERSION,
            idempotency_key=uuid.uuid4().hex,
        )
        return str(answer.data["id"])

    client = Mpp(
        methods=[stripe_method.charge(create_token=create_token, payment_method="pm_card_visa")]
    ).client(trust_env=False)

    async def make(number: int) -> None:
        (await client.get(f"{machine.api_url}/v1/reports/bare{number}")).raise_for_status()

    return client, make


def bare_tokens(machine: Machine) -> tuple[httpx.AsyncClient, Request]:
    """x402's own client."""
    x402 = x402Client()
    x402.register(USDC_BASE_SEPOLIA.network, ExactEvmClientScheme(Account.from_key(KEY)))
    client = httpx.AsyncClient(transport=x402AsyncTransport(x402, httpx.AsyncHTTPTransport()))

    async def make(number: int) -> None:
        (await client.get(f"{machine.api_url}/v1/quotes/bare{number}")).raise_for_status()

    return client, make


async def open_mandate(client: Client, machine: Machine, cap: Money) -> str:
    terms = MandateTerms(
        owner="bench",
        agent="agent",
        cap=cap,
        approval_threshold=cap.amount,
        valid_until=datetime.now(UTC) + timedelta(hours=1),
        sellers=(machine.api_url,),
        payment_methods=("pm_card_visa",),
    )
    mandate_id = f"mandate-{uuid.uuid4().hex[:8]}"
    await client.start_workflow(
        Mandate.run, MandateStart(terms=terms), id=mandate_id, task_queue=machine.queue
    )
    return mandate_id


async def columns(machine: Machine, client: Client, requests: int, *, card: bool) -> dict[str, list[float]]:
    """The three columns of one way to pay."""
    currency = "usd" if card else USDC_BASE_SEPOLIA.currency
    price, path = (50, "/v1/reports/") if card else (1_000, "/v1/quotes/")
    most = Money(amount=price, currency=currency)
    cap = Money(amount=price * (requests + WARM_UP) * 4, currency=currency)
    bare_client, bare = bare_card(machine) if card else bare_tokens(machine)
    mandate = await open_mandate(client, machine, cap)
    payer = Payer(
        client, mandate_id=mandate, agent="agent", task_queue=machine.queue,
        rails=(Rail.MPP_STRIPE, Rail.X402_EXACT),
    )  # fmt: skip

    def paying(name: str) -> Request:
        async def make(number: int) -> None:
            paid = await payer.fetch(f"{machine.api_url}{path}{name}{number}", max_price=most)
            paid.response.raise_for_status()

        return make

    measured = {"bare client": await measure(bare, requests)}
    measured["workflow each"] = await measure(paying("each"), requests)
    budget = Money(amount=price * (requests + WARM_UP + 1), currency=currency)
    async with payer.allowance(machine.api_url, budget=budget, max_price=most):
        measured["within an allowance"] = await measure(paying("within"), requests)
    await bare_client.aclose()
    await payer.close()
    return measured


def show(title: str, measured: dict[str, list[float]]) -> None:
    base = statistics.median(measured["bare client"])
    aims = {"workflow each": AIM_WORKFLOW, "within an allowance": AIM_ALLOWANCE}
    print(f"\n{title}\n{'':22}{'p50 ms':>9}{'p95 ms':>9}{'times bare':>12}{'aim':>8}")
    for name, taken in measured.items():
        p95 = statistics.quantiles(taken, n=20)[-1]
        p50 = statistics.median(taken)
        aim = f"<= {aims[name]}" if name in aims else ""
        print(f"{name:22}{p50:9.1f}{p95:9.1f}{p50 / base:12.2f}{aim:>8}")


async def run(requests: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        try:
            client = await machine.ready()
            show(
                "MPP, shared payment token (50 cents)",
                await columns(machine, client, requests, card=True),
            )
            show("x402, EIP-3009 (0.1 cent of USDC)", await columns(machine, client, requests, card=False))
        finally:
            machine.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=60)
    asyncio.run(run(parser.parse_args().requests))


if __name__ == "__main__":
    main()
