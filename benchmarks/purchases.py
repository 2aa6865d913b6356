"""What a purchase costs and where its time goes, compared with a bare ACP loop at the same shop.

Ours goes through the HTTP API as a client would: ``POST /purchases``, wait until a person is asked, approve
immediately, wait for the receipt; so the time includes everything but the person. The bare loop makes only
the calls that a script would make, at the same shop and processor: create, update, token, complete.
"""

import asyncio
import itertools
import statistics
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import stripe
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client as TemporalClient

from benchmarks.processes import cpu_seconds
from benchmarks.scenario import OURS, Aim, Chart, Column, Row, Say, Scenario, Size
from tests.workflows.purchase.support import BUYER, DETAILS
from tests.world.sandbox import Processor, Shop, running_processor, running_shop
from tests.world.stack import Stack
from tests.world.temporal import TemporalServer, running_temporal
from waystation.client.purchases import Buying
from waystation.models.mandates import MandateTerms
from waystation.models.money import Money
from waystation.protocols import acp
from waystation.stripe_http import STRIPE_API_VERSION, open_stripe
from waystation.temporal.connect import open_client
from workflows.purchase.order_events import order_events_id
from workflows.trail import verify

BARE = "bare ACP loop"
API_KEY = "key-of-the-agent"
ITEM = "mug_blue"
OPTION = "ship_standard"
AT_ONCE = 20
WARM_UP = 5
ROUNDS = 3
PURCHASES = {Size.QUICK: 3, Size.DEFAULT: 20, Size.LONG: 60}
"""Purchases made one after the other in each round."""
BATCHES = {Size.QUICK: 1, Size.DEFAULT: 2, Size.LONG: 6}
"""Batches of twenty purchases at once in each round."""
_COUNTED = {
    EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED: "workflow_tasks",
    EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED: "activities",
    EventType.EVENT_TYPE_MARKER_RECORDED: "markers",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED: "updates",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: "signals",
}

Purchase = Callable[[], Awaitable[str]]


@dataclass(frozen=True)
class Machine:
    """The processes under measurement."""

    temporal: TemporalServer
    processor: Processor
    shop: Shop
    stack: Stack

    def cpu_seconds(self) -> dict[str, float]:
        """Returns the user and system time of each process so far, in seconds."""
        api, worker = self.stack.processes
        named = {
            "temporal": self.temporal, "api": api, "worker": worker,
            "shop": self.shop, "processor": self.processor,
        }  # fmt: skip
        taken = {name: cpu_seconds(process) for name, process in named.items()}
        return {**taken, "client": time.process_time()}


@asynccontextmanager
async def machine() -> AsyncIterator[Machine]:
    """Starts all processes, yields them when they are ready, and stops them afterwards."""
    async with AsyncExitStack() as resources:
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory()))
        temporal = await resources.enter_async_context(running_temporal(folder))
        processor = resources.enter_context(running_processor(folder))
        shop = resources.enter_context(
            running_shop(folder, processor, "--recovery-after-seconds", "3", "--api-key", API_KEY)
        )
        shop.stock(ITEM, 1_000_000)
        stack = resources.enter_context(
            Stack(
                folder,
                temporal,
                stripe_key="sk_test_agent",
                stripe_api_base=processor.url,
                seller_default_credential=API_KEY,
            )
        )
        stack.run_api()
        stack.run_worker()
        await stack.ready()
        yield Machine(temporal, processor, shop, stack)


@asynccontextmanager
async def ours(running: Machine, purchases: int) -> AsyncIterator[Purchase]:
    """Makes a purchase through the API and approves it as soon as a person is asked."""
    async with (
        running.stack.client("service") as service,
        running.stack.client("agent") as agent,
        running.stack.client("approver") as person,
    ):
        mandate = await Buying(service).grant(_terms(running.shop.url, purchases))
        buyer, approver = Buying(agent), Buying(person)

        async def buy() -> str:
            started = await buyer.buy(
                mandate.mandate_id,
                running.shop.url,
                {ITEM: 1},
                agent="test-agent",
                purchase_id=f"bench-{uuid.uuid4()}",
                buyer=BUYER,
                fulfillment_details=DETAILS,
                fulfillment_option=OPTION,
            )
            asked = await approver.wait(started.purchase_id, or_for_a_person=True)
            if asked.digest is None or asked.status != "awaiting_approval":
                raise RuntimeError(f"the purchase is {asked.status}: {asked.refusal}")
            await approver.approve(started.purchase_id, asked.digest)
            view = await buyer.wait(started.purchase_id)
            if view.receipt is None:
                raise RuntimeError(f"the purchase ended as {view.status}: {view.refusal}")
            return started.purchase_id

        yield buy


def _terms(seller: str, purchases: int) -> MandateTerms:
    return MandateTerms(
        owner="test-approver",
        agent="test-agent",
        cap=Money(amount=purchases * 100_000, currency="usd"),
        valid_until=datetime.now(UTC) + timedelta(hours=1),
        sellers=(seller,),
        payment_methods=("pm_card_visa",),
    )


@asynccontextmanager
async def bare(running: Machine) -> AsyncIterator[Purchase]:
    """Makes the same purchase as a script would: nothing is stored, nobody is asked, and a crash loses it."""
    processor, connections = open_stripe("sk_test_agent", api_base=running.processor.url)
    async with httpx.AsyncClient(base_url=running.shop.url, trust_env=False, timeout=60) as shop:

        async def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
            headers = {
                acp.HEADER_AUTHORIZATION: f"Bearer {API_KEY}",
                acp.HEADER_API_VERSION: acp.API_VERSION,
                acp.HEADER_IDEMPOTENCY_KEY: uuid.uuid4().hex,
            }
            answer = await shop.post(f"/checkout_sessions{path}", json=body, headers=headers)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found

        async def buy() -> str:
            created = await post(
                "",
                {
                    "line_items": [{"id": ITEM, "quantity": 1}],
                    "currency": "usd",
                    "buyer": BUYER,
                    "fulfillment_details": DETAILS,
                    "capabilities": {},
                },
            )
            at = f"/{created['id']}"
            chosen = {
                "type": "shipping",
                "option_id": OPTION,
                "item_ids": [line["id"] for line in created["line_items"]],
            }
            stated = await post(at, {"selected_fulfillment_options": [chosen]})
            completed = await post(f"{at}/complete", await _payment(processor, stated))
            if completed["status"] != "completed":
                raise RuntimeError(f"the checkout is {completed['status']}: {completed['messages']}")
            return str(created["id"])

        yield buy
    await connections.close_async()


async def _payment(processor: stripe.StripeClient, checkout: dict[str, Any]) -> dict[str, Any]:
    """Returns the body of a completion, with a token for exactly the checkout's total."""
    handler = checkout["capabilities"]["payment"]["handlers"][0]
    total = next(one["amount"] for one in checkout["totals"] if one["type"] == "total")
    answer = await processor.raw_request_async(
        "post",
        "/v1/shared_payment/issued_tokens",
        payment_method="pm_card_visa",
        seller_details={"network_business_profile": handler["config"]["merchant_id"]},
        usage_limits={"currency": "usd", "max_amount": total, "expires_at": int(time.time()) + 900},
        stripe_version=STRIPE_API_VERSION,
        idempotency_key=uuid.uuid4().hex,
    )
    token: Any = answer.data
    return {
        "buyer": BUYER,
        "payment_data": {
            "handler_id": handler["id"],
            "instrument": {"type": "card", "credential": {"type": "spt", "token": token["id"]}},
        },
    }


@asynccontextmanager
async def systems(running: Machine, purchases: int) -> AsyncIterator[dict[str, Purchase]]:
    """Yields the ways to buy, ours and the peer's, by system."""
    async with ours(running, purchases) as one, bare(running) as other:
        yield {OURS: one, BARE: other}


class Readings:
    """The measurements of one system at one degree of parallelism."""

    def __init__(self, running: Machine) -> None:
        self._running = running
        self.taken_ms: list[float] = []
        self.ids: list[str] = []
        self.seconds = 0.0
        self.cpu: Counter[str] = Counter()

    async def buy(self, buy: Purchase, parallel: int, batches: int) -> None:
        """Makes batches of purchases, one batch after the other; those of a batch run at the same time."""
        before, began = self._running.cpu_seconds(), time.perf_counter()
        for _ in range(batches):
            await asyncio.gather(*(self._one(buy) for _ in range(parallel)))
        self.seconds += time.perf_counter() - began
        after = self._running.cpu_seconds()
        self.cpu.update({name: after[name] - before[name] for name in after})

    async def _one(self, buy: Purchase) -> None:
        began = time.perf_counter()
        self.ids.append(await buy())
        self.taken_ms.append((time.perf_counter() - began) * 1000)

    def row(self, system: str, parallel: int, bare_ms: float) -> Row:
        """Returns the row to record; ``cpu_<process>_ms`` is for one purchase."""
        ordered, count = sorted(self.taken_ms), len(self.taken_ms)
        p50 = statistics.median(ordered)
        cpu = {f"cpu_{name}_ms": round(seconds * 1000 / count, 1) for name, seconds in self.cpu.items()}
        return {
            "system": system,
            "parallel": parallel,
            "purchases": count,
            "p50_ms": round(p50, 1),
            "p95_ms": round(ordered[min(int(count * 0.95), count - 1)], 1),
            "per_second": round(count / self.seconds, 2),
            "times_bare": round(p50 / bare_ms, 1),
            "cpu_ms": round(sum(self.cpu.values()) * 1000 / count, 1),
            **cpu,
        }


async def histories(running: Machine, ids: Sequence[str]) -> Row:
    """Returns what Temporal did for a purchase: in its workflow, its order's, and part of the mandate's."""
    client = await open_client(running.temporal.address)
    async with running.stack.client("service") as service:
        views = [await Buying(service).purchase(one) for one in ids]
    mandate = views[0].request.mandate_id
    own = Counter[str]()
    for view in views:
        checkout = view.cart.checkout_id if view.cart else ""
        for workflow_id in (view.purchase_id, order_events_id(view.request.seller, checkout)):
            own += await _counts(client, workflow_id)
    shared = await _counts(client, mandate)
    async with running.stack.client("service") as service:
        payments = (await Buying(service).mandate(mandate)).payments
    names = ("history_events", "history_bytes", *_COUNTED.values())
    return {name: round(own[name] / len(ids) + shared[name] / payments, 1) for name in names}


async def _counts(client: TemporalClient, workflow_id: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    async for event in client.get_workflow_handle(workflow_id).fetch_history_events():
        counts["history_events"] += 1
        counts["history_bytes"] += event.ByteSize()
        if event.event_type in _COUNTED:
            counts[_COUNTED[event.event_type]] += 1
    return counts


async def steps(running: Machine, ids: Sequence[str]) -> Row:
    """Returns the median milliseconds before each step of the audit trail, in the trail's order."""
    taken: dict[str, list[float]] = {}
    async with running.stack.client("service") as service:
        for purchase_id in ids:
            entries = (await Buying(service).audit(purchase_id)).entries
            if not verify(entries):
                raise RuntimeError(f"the trail of {purchase_id} is broken")
            for before, entry in itertools.pairwise(entries):
                passed = (entry.time - before.time).total_seconds() * 1000
                taken.setdefault(f"step_{entry.action}_ms", []).append(passed)
    return {name: round(statistics.median(values), 1) for name, values in taken.items() if any(values)}


async def run(size: Size, say: Say) -> list[Row]:
    """Measures ours and the peer in turns, and returns the rows."""
    wanted = {1: PURCHASES[size], AT_ONCE: BATCHES[size]}
    total = WARM_UP + AT_ONCE + ROUNDS * sum(parallel * batches for parallel, batches in wanted.items())
    async with machine() as running, systems(running, total) as buying:
        measured = {(name, parallel): Readings(running) for parallel in wanted for name in buying}
        for buy in buying.values():
            await Readings(running).buy(buy, 1, WARM_UP)
            await Readings(running).buy(buy, AT_ONCE, 1)
        for number in range(ROUNDS):
            for (name, parallel), readings in measured.items():
                await readings.buy(buying[name], parallel, wanted[parallel])
            say(f"round {number + 1} of {ROUNDS}")
        rows = [
            readings.row(name, parallel, statistics.median(measured[BARE, parallel].taken_ms))
            for (name, parallel), readings in measured.items()
        ]
        ids = measured[OURS, 1].ids
        rows[0] |= await histories(running, ids) | await steps(running, ids)
        return rows


def notes(rows: Sequence[Row]) -> list[str]:
    """Returns lines that say where the time goes."""
    told = []
    for row in rows:
        parts = {name[4:-3]: ms for name, ms in row.items() if name.startswith("cpu_") and name != "cpu_ms"}
        spent = ", ".join(f"{name} {ms}" for name, ms in sorted(parts.items(), key=lambda one: -one[1]))
        told.append(
            f"Processor time of one purchase, {row['system']}, {row['parallel']} at once: "
            f"{row['cpu_ms']} ms ({spent})."
        )
    first = rows[0]
    told.append(
        "Temporal did for one of ours (its order's workflow and its share of the mandate's included): "
        + ", ".join(
            f"{first[name]} {name.replace('_', ' ')}" for name in ("history_events", *_COUNTED.values())
        )
        + "."
    )
    passed = ", ".join(f"{name[5:-3]} {ms}" for name, ms in first.items() if name.startswith("step_"))
    told.append(f"Milliseconds up to each step of the audit trail, one at a time: {passed}.")
    return told


SCENARIO = Scenario(
    name="purchases",
    title="Purchases",
    shows="""
        One purchase over ACP from `POST /purchases` to its receipt, through the HTTP API, approved as soon as
        a person is asked: everything except the person. The peer buys the same from the same shop with the
        same processor in a bare loop: create, update, token, complete. It records nothing, asks nobody, and a
        crash loses it.
        """,
    does_not_show=(
        "A network, or a real seller: the sandbox answers in milliseconds, real ones in hundreds.",
        "What a cluster does: all processes share this machine's cores, so many at once show summed work.",
    ),
    keys=(Column("parallel", "at once"),),
    columns=(
        Column("p50_ms", "p50 ms", "lower", grain=5, times_ours=True),
        Column("p95_ms", "p95 ms", "lower", grain=20),
        Column("per_second", "purchases/s", "higher", grain=0.5),
        Column("times_bare", "times the bare loop"),
        Column("cpu_ms", "CPU ms each", "lower", grain=5),
    ),
    aims=(Aim({"parallel": 1}, "p50_ms", 400), Aim({"parallel": 20}, "per_second", 15, "at least")),
    charts=(Chart("Purchases a second", x="parallel", y="per_second", kind="bars"),),
    notes=notes,
    run=run,
)
