"""What a paid request costs over a bare 402 client on the same paid API.

python -m benchmarks --only paid_requests
"""

import tempfile
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from eth_account import Account
from mpp.client import Mpp
from mpp.methods.stripe import client as stripe_method
from pydantic import SecretStr
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from benchmarks.figures import percentile, rounded
from benchmarks.scenario import OURS, Aim, Chart, Column, Row, Say, Scenario, Size
from tests.world.payment_processes import WALLET_KEY, PaymentProcesses
from tests.world.temporal import running_temporal
from waystation.buyer.allowance.journal import AllowanceJournal
from waystation.buyer.credentials import Credentials
from waystation.buyer.networks import read_networks
from waystation.buyer.payer import Payer
from waystation.buyer.wallet import Wallet
from waystation.models.mandates import MandateTerms
from waystation.models.money import Money
from waystation.models.payments import Rail
from waystation.protocols.http402.eip3009 import USDC_BASE_SEPOLIA
from waystation.sandbox.paid_api import NETWORK_ID
from waystation.settings import WalletSettings
from waystation.stripe_http import STRIPE_API_VERSION, open_stripe
from waystation.temporal.connect import open_client
from workflows.mandate import Mandate, MandateStart

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from x402.client import x402Client
    from x402.http.clients.httpx import x402AsyncTransport
    from x402.mechanisms.evm.exact import ExactEvmClientScheme

AIM_WORKFLOW, AIM_ALLOWANCE = 3.0, 1.3
WARM_UP = 5
ROUND = 10
"""Requests of each column in a turn; the columns take turns, so that all see the same machine."""
REQUESTS = {Size.QUICK: ROUND, Size.DEFAULT: 150, Size.LONG: 600}
Request = Callable[[str], Awaitable[str | None]]
"""Makes the request of this name; returns the payment's id if it has its own workflow."""

BARE, EACH, HOLDER, WORKFLOW = "bare", "workflow each", "within an allowance", "allowance, keys at the worker"


def bare_card(machine: PaymentProcesses) -> tuple[httpx.AsyncClient, Request]:
    """Returns pympp's own client, which issues a token for each challenge, and a request through it."""
    agent, _ = open_stripe("sk_test_agent", api_base=machine.processor.url)

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

    async def make(name: str) -> None:
        (await client.get(f"{machine.api.url}/v1/reports/{name}")).raise_for_status()

    return client, make


def bare_tokens(machine: PaymentProcesses) -> tuple[httpx.AsyncClient, Request]:
    """Returns x402's own client and a request through it."""
    x402 = x402Client()
    x402.register(USDC_BASE_SEPOLIA.network, ExactEvmClientScheme(Account.from_key(WALLET_KEY)))
    client = httpx.AsyncClient(transport=x402AsyncTransport(x402, httpx.AsyncHTTPTransport()))

    async def make(name: str) -> None:
        (await client.get(f"{machine.api.url}/v1/quotes/{name}")).raise_for_status()

    return client, make


async def open_mandate(client: Client, machine: PaymentProcesses, cap: Money) -> str:
    terms = MandateTerms(
        owner="bench",
        agent="agent",
        cap=cap,
        approval_threshold=cap.amount,
        valid_until=datetime.now(UTC) + timedelta(hours=1),
        sellers=(machine.api.url,),
        payment_methods=("pm_card_visa",),
    )
    mandate_id = f"mandate-{uuid.uuid4().hex[:8]}"
    await client.start_workflow(
        Mandate.run, MandateStart(terms=terms), id=mandate_id, task_queue=machine.queue
    )
    return mandate_id


async def measure(
    columns: dict[str, Request], requests: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Returns each request's milliseconds and the last payment id, by column. The columns take turns."""
    taken_ms: dict[str, list[float]] = {name: [] for name in columns}
    last: dict[str, str] = {}
    for number in range(-WARM_UP, requests, ROUND):
        for name, make in columns.items():
            for one in range(number, min(number + ROUND, requests)):
                began = time.perf_counter()
                payment = await make(f"{name.replace(' ', '').replace(',', '')}{one + WARM_UP}")
                if one >= 0:
                    taken_ms[name].append((time.perf_counter() - began) * 1000)
                if payment:
                    last[name] = payment
    return taken_ms, last


async def counts(client: Client, workflow_ids: list[str]) -> Counter[str]:
    """Returns how many events and bytes the histories hold in total, and how many of the events that cost."""
    found: Counter[str] = Counter()
    kinds = {
        EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED: "workflow_tasks",
        EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED: "activities",
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED: "updates",
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: "signals",
    }
    for workflow_id in workflow_ids:
        history = await client.get_workflow_handle(workflow_id).fetch_history()
        found["history_events"] += len(history.events)
        for event in history.events:
            found["history_bytes"] += event.ByteSize()
            if event.event_type in kinds:
                found[kinds[event.event_type]] += 1
    return found


async def way_to_pay(
    machine: PaymentProcesses, client: Client, rail: str, requests: int, folder: Path
) -> list[Row]:
    """Returns the rows of one way to pay."""
    card = rail == "card"
    currency = "usd" if card else USDC_BASE_SEPOLIA.currency
    price, path = (50, "/v1/reports/") if card else (1_000, "/v1/quotes/")
    most = Money(amount=price, currency=currency)
    budget = Money(amount=price * (requests + 2 * WARM_UP), currency=currency)
    cap = Money(amount=budget.amount * 8, currency=currency)
    agent, connections = open_stripe("sk_test_agent", api_base=machine.processor.url)
    settings = WalletSettings(private_key=SecretStr(WALLET_KEY), rpc_url=machine.api.rpc)
    wallet = Wallet.from_settings(settings)
    async with AsyncExitStack() as stack:
        bare_client, bare = bare_card(machine) if card else bare_tokens(machine)
        stack.push_async_callback(bare_client.aclose)
        stack.push_async_callback(connections.close_async)
        journal = AllowanceJournal(folder / f"{rail}.sqlite3", None)
        stack.push_async_callback(journal.close)
        mandates: dict[str, str] = {}

        async def payer(name: str, **more: Any) -> Payer:
            mandates[name] = await open_mandate(client, machine, cap)
            made = Payer(
                client, mandate_id=mandates[name], agent="agent", task_queue=machine.queue,
                rails=(Rail.MPP_STRIPE, Rail.X402_EXACT), allowed_networks=read_networks(["127.0.0.0/8"]),
                **more,
            )  # fmt: skip
            stack.push_async_callback(made.close)
            return made

        def paying(payer: Payer) -> Request:
            async def make(name: str) -> str | None:
                paid = await payer.fetch(f"{machine.api.url}{path}{name}", max_price=most)
                paid.response.raise_for_status()
                return paid.payment_id

            return make

        credentials = Credentials(processor=agent, wallet=wallet)
        alone, asking = await payer(EACH), await payer(WORKFLOW)
        holding = await payer(HOLDER, credentials=credentials, journal=journal)
        in_holder = await stack.enter_async_context(
            holding.allowance(machine.api.url, budget=budget, max_price=most)
        )
        in_workflow = await stack.enter_async_context(
            asking.allowance(machine.api.url, budget=budget, max_price=most)
        )
        columns = {BARE: bare, HOLDER: paying(holding), WORKFLOW: paying(asking), EACH: paying(alone)}
        taken_ms, last = await measure(columns, requests)
    await client.get_workflow_handle(last[EACH]).result()
    made = requests + WARM_UP
    histories = {
        EACH: (await counts(client, [last[EACH]]), await counts(client, [mandates[EACH]])),
        HOLDER: (Counter[str](), await counts(client, [in_holder, mandates[HOLDER]])),
        WORKFLOW: (Counter[str](), await counts(client, [in_workflow, mandates[WORKFLOW]])),
    }
    rows: list[Row] = []
    base = percentile(taken_ms[BARE], 0.5)
    for how, milliseconds in taken_ms.items():
        peer = "pympp" if card else "x402"
        p50 = percentile(milliseconds, 0.5)
        row: Row = {
            "system": peer if how == BARE else OURS,
            "rail": rail,
            "how": how,
            "p50_ms": rounded(p50),
            "p95_ms": rounded(percentile(milliseconds, 0.95)),
            "times_bare": rounded(p50 / base),
        }
        own, shared = histories.get(how, (Counter[str](), Counter[str]()))
        row |= {key: rounded(own[key] + shared[key] / made) for key in sorted(own | shared)}
        rows.append(row)
    return rows


async def run(size: Size, say: Say) -> list[Row]:
    """Measures both ways to pay, each on its own processes."""
    requests = REQUESTS[size]
    async with AsyncExitStack() as resources:
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory()))
        temporal = await resources.enter_async_context(running_temporal(folder))
        machine = await resources.enter_async_context(PaymentProcesses(folder, temporal.address))
        client = await open_client(temporal.address, data_converter=pydantic_data_converter)
        rows: list[Row] = []
        for rail in ("card", "x402"):
            say(f"{requests} requests by {rail}, four columns taking turns")
            rows += await way_to_pay(machine, client, rail, requests, folder)
        return rows


SCENARIO = Scenario(
    name="paid_requests",
    title="Paid requests",
    shows="""From the call to the received answer, one request after the other, for an API that returns 402:
        with a workflow for each payment, within an allowance whose holder has the keys to pay, within one
        that the worker pays from, and with the bare client (`pympp` for cards, `x402` for tokens) on the
        same sandbox. All processes run on the same machine and the variants take turns.""",
    does_not_show=(
        "A network: each hop here costs a fraction of a millisecond, and all have the same hops to make.",
        "A real processor or chain, which take hundreds of milliseconds and would make the ratios smaller.",
        "Throughput: requests are made one at a time.",
    ),
    keys=(Column("rail", "rail"), Column("how", "how")),
    columns=(
        Column("p50_ms", "p50 ms", "lower", grain=5),
        Column("p95_ms", "p95 ms", "lower", grain=15),
        Column("times_bare", "times bare", "lower", grain=0.3),
        Column("history_events", "history events"),
    ),
    aims=tuple(
        Aim({"rail": rail, "how": how}, "times_bare", limit)
        for rail in ("card", "x402")
        for how, limit in ((EACH, AIM_WORKFLOW), (HOLDER, AIM_ALLOWANCE))
    ),
    charts=(Chart("Time of a paid request, p50 ms", x="how", y="p50_ms", kind="bars", by="rail"),),
    run=run,
)
