"""kill -9 at random points: worker, paid API, processor. At most one charge each, delivered, sums right.

A few payments within allowances by default, more by ``WAYSTATION_EXAMPLES``; single ones are slow.
``WAYSTATION_CRASH_RUNS=100`` for as many, and ``WAYSTATION_CRASH_SEED`` to repeat what went wrong.
"""

import asyncio
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle

from tests.buyer.bench import AGENT, USDC, usd
from tests.support import eventually, examples
from tests.world.payment_processes import PaymentProcesses
from tests.world.temporal import TemporalServer
from waystation.buyer.networks import read_networks
from waystation.buyer.payer import Payer
from waystation.models.mandates import MandateTerms, MandateView
from waystation.models.money import Money
from waystation.models.payments import AllowanceView, PaidHttpRequest, PaidRequestStart, PaidRequestView, Rail
from workflows.mandate import Mandate, MandateStart
from workflows.paid_request import PaidRequest

RUNS = int(os.environ.get("WAYSTATION_CRASH_RUNS", examples(4)))
SEED = int(os.environ.get("WAYSTATION_CRASH_SEED", str(random.SystemRandom().randrange(10**6))))
MARGIN_AFTER_THE_END = 1.2
"""Kills come within this much of what a payment takes, so that most of them hit it under way."""
OUTCOME_SECONDS = 90


@pytest.fixture(scope="module")
async def parts(
    tmp_path_factory: pytest.TempPathFactory, temporal_server: TemporalServer
) -> AsyncIterator[PaymentProcesses]:
    folder = tmp_path_factory.mktemp("payments")
    async with PaymentProcesses(folder, temporal_server.address, lease_seconds=1) as parts:
        yield parts


async def open_mandate(temporal: Client, parts: PaymentProcesses, cap: Money) -> str:
    terms = MandateTerms(
        owner="alice",
        agent=AGENT,
        cap=cap,
        approval_threshold=cap.amount,
        valid_until=datetime.now(UTC) + timedelta(hours=3),
        sellers=(parts.api.url,),
        payment_methods=("pm_card_visa",),
    )
    mandate_id = f"mandate-{uuid.uuid4().hex[:8]}"
    await temporal.start_workflow(
        Mandate.run, MandateStart(terms=terms), id=mandate_id, task_queue=parts.queue
    )
    return mandate_id


async def start(
    temporal: Client, parts: PaymentProcesses, mandate: str, path: str, price: Money
) -> WorkflowHandle[PaidRequest, PaidRequestView]:
    request = PaidHttpRequest(url=parts.api.url + path)
    begun = PaidRequestStart(
        request=request,
        max_price=price,
        mandate_id=mandate,
        agent=AGENT,
        rails=(Rail.MPP_STRIPE, Rail.X402_EXACT),
    )
    return await temporal.start_workflow(
        PaidRequest.run, begun, id=f"pay-{uuid.uuid4().hex[:8]}", task_queue=parts.queue
    )


async def how_long(temporal: Client, parts: PaymentProcesses, mandate: str, path: str, price: Money) -> float:
    """Seconds that a payment takes on this machine, now."""
    began = time.perf_counter()
    handle = await start(temporal, parts, mandate, f"{path}{uuid.uuid4().hex[:6]}", price)
    assert (await handle.result()).status == "delivered"
    return time.perf_counter() - began


async def balance(temporal: Client, mandate: str) -> MandateView:
    view: MandateView = await temporal.get_workflow_handle(mandate).query(Mandate.balance)
    return view


@pytest.mark.slow
@pytest.mark.timeout(120 + RUNS * OUTCOME_SECONDS)
async def test_kill_9_at_random_points_charges_once_and_delivers(
    temporal: Client, parts: PaymentProcesses
) -> None:
    dice = random.Random(SEED)
    print(f"{RUNS} runs, WAYSTATION_CRASH_SEED={SEED}")
    warming = await open_mandate(temporal, parts, usd(50 * 2))
    await how_long(temporal, parts, warming, "/v1/reports/", usd(50))  # the worker is up
    latest = MARGIN_AFTER_THE_END * await how_long(temporal, parts, warming, "/v1/reports/", usd(50))
    dollars = await open_mandate(temporal, parts, usd(50 * RUNS))
    tokens = await open_mandate(temporal, parts, Money(amount=1_000 * RUNS, currency=USDC))
    paid_before = parts.charges()
    by_card: list[str] = []
    in_tokens = hits = 0
    failed: Counter[str] = Counter()
    for run in range(RUNS):
        card = dice.random() < 0.7
        victim, delay = dice.choice(["worker", "api", "processor"]), dice.uniform(0, latest)
        where = f"run {run}: {victim} killed after {delay:.3f} s, {'card' if card else 'tokens'}, seed {SEED}"
        path = f"/v1/reports/r{run}" if card else f"/v1/quotes/q{run}"
        price = usd(50) if card else Money(amount=1_000, currency=USDC)
        handle = await start(temporal, parts, dollars if card else tokens, path, price)
        await asyncio.sleep(delay)  # not to wait for something, but to hit any point
        parts.crash(victim)
        hits += (await handle.describe()).status == WorkflowExecutionStatus.RUNNING
        view = await asyncio.wait_for(handle.result(), OUTCOME_SECONDS)
        if (view.status, view.money_moved) == ("failed", "no"):
            assert view.refusal is not None, where
            failed[view.refusal.rule] += 1  # the server was away too long before anything was paid
            continue
        assert (view.status, view.money_moved) == ("delivered", "yes"), where
        if card:
            by_card.append(handle.id)
        else:
            in_tokens += 1
    paid = len(by_card) + in_tokens
    print(f"{hits} under way when killed; {paid} paid and delivered, failed without money: {dict(failed)}")
    await parts.ready()
    charges = {payment: amounts for payment, amounts in parts.charges().items() if amounts}
    ours = {payment: amounts for payment, amounts in charges.items() if payment not in paid_before}
    assert ours == {payment: [50] for payment in by_card}
    assert len(parts.api.transfers()) == in_tokens
    assert [token["id"] for token in parts.tokens() if token["status"] != "deactivated"] == []
    for mandate, spent in ((dollars, 50 * len(by_card)), (tokens, 1_000 * in_tokens)):
        view_of = await balance(temporal, mandate)
        assert (view_of.spent.amount, view_of.reserved.amount) == (spent, 0)
    assert failed.total() <= max(1, RUNS // 20)
    assert hits >= RUNS // 2


@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("server", "match"),
    [
        ("processor", r"POST /v1/shared_payment/issued_tokens$"),
        ("processor", r"POST /v1/payment_intents$"),
        ("processor", r"GET /v1/shared_payment/issued_tokens/"),
        ("api", r"GET /v1/reports/"),
    ],
)
async def test_a_server_that_dies_in_the_middle_of_a_call(
    temporal: Client, parts: PaymentProcesses, server: str, match: str, when: str
) -> None:
    await parts.ready()
    mandate = await open_mandate(temporal, parts, usd(50))
    process = parts.processor if server == "processor" else parts.api
    process.trouble(match=match, kind="die", when=when)
    handle = await start(temporal, parts, mandate, f"/v1/reports/{uuid.uuid4().hex[:6]}", usd(50))
    await eventually(lambda: process.ended, what=f"{server} has died")
    process.start()
    view = await asyncio.wait_for(handle.result(), OUTCOME_SECONDS)
    assert (view.status, view.money_moved) == ("delivered", "yes")
    await parts.ready()
    assert parts.charges()[handle.id] == [50]
    assert [token["id"] for token in parts.tokens() if token["status"] != "deactivated"] == []
    assert (await balance(temporal, mandate)).spent.amount == 50


@pytest.mark.thorough
@pytest.mark.timeout(120 + RUNS * OUTCOME_SECONDS)
async def test_kill_9_within_an_allowance_keeps_the_budget_and_the_sums(
    temporal: Client, parts: PaymentProcesses
) -> None:
    dice = random.Random(SEED + 1)
    payments = max(2, RUNS // 2)
    await parts.ready()
    warming = await open_mandate(temporal, parts, usd(50 * 2))
    await how_long(temporal, parts, warming, "/v1/reports/", usd(50))  # the worker is up
    latest = await how_long(temporal, parts, warming, "/v1/reports/", usd(50))
    before = sum(map(sum, parts.charges().values()))
    mandate = await open_mandate(temporal, parts, usd(50 * payments))
    agent = Payer(
        temporal,
        mandate_id=mandate,
        agent=AGENT,
        task_queue=parts.queue,
        rails=(Rail.MPP_STRIPE,),
        allowed_networks=read_networks(["127.0.0.0/8"]),
    )
    budget = usd(50 * payments)
    async with agent.allowance(parts.api.url, budget=budget, max_price=usd(50)) as allowance:
        for number in range(payments):
            url = f"{parts.api.url}/v1/reports/{allowance}-{number}"
            await parts.api.ready()
            paying = asyncio.create_task(agent.fetch(url, max_price=usd(50), payment_id=f"call-{number}"))
            await asyncio.sleep(dice.uniform(0, latest))  # to hit any point
            victim = dice.choice(["worker", "worker", "processor"])
            parts.crash(victim)
            paid = await asyncio.wait_for(paying, OUTCOME_SECONDS)
            assert paid.response.status_code == 200, f"payment {number}, {victim} killed, seed {SEED}"
    view = await asyncio.wait_for(agent.settled(allowance), OUTCOME_SECONDS)
    await parts.ready()
    assert view.spent == 50 * payments
    assert sum(map(sum, parts.charges().values())) - before == 50 * payments
    assert [token["id"] for token in parts.tokens() if token["status"] != "deactivated"] == []
    final = await balance(temporal, mandate)
    assert (final.spent.amount, final.reserved.amount) == (50 * payments, 0)
    await agent.close()


@pytest.mark.thorough
@pytest.mark.timeout(180 + RUNS * OUTCOME_SECONDS)
@pytest.mark.parametrize("card", [True, False], ids=["card", "tokens"])
async def test_kill_9_of_the_holder_of_an_allowance(
    temporal: Client, parts: PaymentProcesses, tmp_path: Path, card: bool
) -> None:
    """It is killed and started again until all its payments are made: each is charged once."""
    dice = random.Random(SEED + 2 + card)
    payments = max(4, RUNS // 2)
    await parts.ready()
    price = usd(50) if card else Money(amount=1_000, currency=USDC)
    budget = Money(amount=price.amount * payments, currency=price.currency)
    mandate = await open_mandate(temporal, parts, budget)
    allowance = f"held-{uuid.uuid4().hex[:8]}"
    transfers = len(parts.api.transfers())
    holder = parts.holder(
        tmp_path,
        mandate=mandate,
        agent=AGENT,
        path="/v1/reports/" if card else "/v1/quotes/",
        allowance=allowance,
        rail=Rail.MPP_STRIPE if card else Rail.X402_EXACT,
        price=price,
        payments=payments,
    )
    kills = 0
    with holder:
        while not holder.ended:
            await asyncio.sleep(dice.uniform(0.8, 3.0))  # to hit any point, its start included
            if kills < payments and not holder.ended:
                kills += 1
                holder.kill()
                if dice.random() < 0.2:
                    parts.crash("processor")
                    await parts.ready()
                holder.start()
        assert holder.popen.returncode == 0, holder.output[-2000:]
    view: AllowanceView = await temporal.get_workflow_handle(allowance, result_type=AllowanceView).result()
    print(f"{payments} payments, {kills} kills, seed {SEED}")
    assert (view.spent, view.held) == (budget.amount, 0)
    if card:
        charged = {key: sums for key, sums in parts.charges().items() if key.startswith(allowance)}
        assert charged == {f"{allowance}:call-{n}": [50] for n in range(payments)}
        assert [token["id"] for token in parts.tokens() if token["status"] != "deactivated"] == []
    else:
        assert len(parts.api.transfers()) - transfers == payments
    final = await balance(temporal, mandate)
    assert (final.spent.amount, final.reserved.amount) == (budget.amount, 0)
