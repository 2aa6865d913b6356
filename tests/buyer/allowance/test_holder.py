"""Allowances that a process pays from by itself: budget, journal, lease, loss."""
# ruff: noqa: SIM117
# A process and, within it, its allowance.

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from tests.buyer.bench import AGENT, API, USDC, Bench, eventually, has_credential, times, usd
from tests.buyer.evil import EvilServer, ask, stripe_challenge
from waystation.buyer.allowance.journal import AllowanceJournal
from waystation.buyer.payer import Payer, PaymentRefusedError
from waystation.models.money import Money
from waystation.models.payments import AllowanceReport, Rail, ReportedPayment
from workflows import policies
from workflows.allowance import Allowance
from workflows.trail import verify


def journal_at(bench: Bench, path: Path) -> AllowanceJournal:
    return AllowanceJournal(path, bench.temporal.data_converter.payload_codec)


@contextlib.asynccontextmanager
async def holding(bench: Bench, mandate: str, path: Path, **more: Any) -> AsyncIterator[Payer]:
    """A process that can pay by itself, with its journal."""
    journal = journal_at(bench, path)
    agent = Payer(
        bench.temporal,
        mandate_id=mandate,
        agent=AGENT,
        task_queue=bench.task_queue,
        transport=bench.network,
        credentials=bench.credentials,
        journal=journal,
        **more,
    )
    try:
        yield agent
    finally:  # a test that has failed leaves nothing behind that goes on paying and reporting
        await crash(agent)


_left_open: list[Any] = []


def reported(number: int, amount: int) -> ReportedPayment:
    return ReportedPayment(
        number=number,
        key=f"k{number}",
        url=f"{API}/v1/reports/r",
        method="GET",
        rail=Rail.MPP_STRIPE,
        price=usd(amount),
        payee="bn_1",
        amount=amount,
        money_moved="yes",
    )


async def enter(agent: Payer, seller: str, **more: Any) -> None:
    """Opens an allowance that its process never comes to close."""
    opening = agent.allowance(seller, **more)
    await opening.__aenter__()
    _left_open.append(opening)  # or its block would end with the object


async def crash(agent: Payer) -> None:
    """What is left when a process dies: nothing in memory, its lock gone, its journal as it was."""
    for opened in [one for here in agent._allowances.values() for one in here]:
        assert opened.holder is not None
        paying = [task for _, task in opened.holder._paying.values()]
        running = [*opened.holder._tasks, *paying]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert agent._means is not None
    await agent._means.journal.close()


def all_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("journal*"))


async def workflow_events(bench: Bench, allowance: str) -> int:
    history = await bench.temporal.get_workflow_handle(allowance).fetch_history()
    return len(history.events)


async def test_payments_need_no_call_to_temporal(bench: Bench, tmp_path: Path) -> None:
    mandate = await bench.mandate(usd(2_000))
    async with holding(bench, mandate, tmp_path / "journal") as agent:
        async with agent.allowance(API, budget=usd(1_000), max_price=usd(50)) as allowance:
            await agent.fetch(f"{API}/v1/reports/r0", max_price=usd(50))
            before = await workflow_events(bench, allowance)
            for n in range(1, 6):
                paid = await agent.fetch(f"{API}/v1/reports/r{n}", max_price=usd(50))
                assert paid.response.json()["subject"] == f"reports/r{n}"
            assert await workflow_events(bench, allowance) == before
    view = await agent.settled(allowance)
    assert (view.spent, view.payments, view.held, view.holder) == (300, 6, 0, None)
    assert await bench.charges() == [50] * 6
    assert await bench.balance(mandate) == (300, 0)
    assert await bench.open_tokens() == []


async def test_in_tokens_too(bench: Bench, tmp_path: Path) -> None:
    mandate = await bench.mandate(Money(amount=100_000, currency=USDC))
    most = Money(amount=1_000, currency=USDC)
    async with holding(bench, mandate, tmp_path / "journal") as agent:
        budget = Money(amount=10_000, currency=USDC)
        async with agent.allowance(API, budget=budget, max_price=most) as allowance:
            for n in range(3):
                await agent.fetch(f"{API}/v1/quotes/q{n}", max_price=most)
    assert (await agent.settled(allowance)).spent == 3_000
    assert await bench.transfers() == 3


async def test_parallel_payments_share_the_budget(bench: Bench, tmp_path: Path) -> None:
    mandate = await bench.mandate(usd(1_000))
    async with holding(bench, mandate, tmp_path / "journal") as agent:
        async with agent.allowance(API, budget=usd(220), max_price=usd(50)) as allowance:
            outcomes = await asyncio.gather(
                *(agent.fetch(f"{API}/v1/reports/r{n}", max_price=usd(50)) for n in range(8)),
                return_exceptions=True,
            )
    refused = [one for one in outcomes if isinstance(one, PaymentRefusedError)]
    assert [(one.rule, one.money_moved) for one in refused] == [("AllowanceExhausted", "no")] * 4
    assert (await agent.settled(allowance)).spent == 200
    assert await bench.charges() == [50] * 4


async def test_more_than_a_portion_is_asked_for_while_paying(
    quick_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.allowance.rules.PORTION_PAYMENTS", 2)
    mandate = await quick_bench.mandate(usd(1_000))
    async with holding(quick_bench, mandate, tmp_path / "journal") as agent:
        async with agent.allowance(API, budget=usd(300), max_price=usd(50)) as allowance:
            for n in range(6):
                await agent.fetch(f"{API}/v1/reports/r{n}", max_price=usd(50))
            with pytest.raises(PaymentRefusedError, match="0 of the budget is left"):
                await agent.fetch(f"{API}/v1/reports/r7", max_price=usd(50))
    assert (await agent.settled(allowance)).spent == 300


async def test_a_key_is_one_payment_however_often_and_when_it_is_repeated(
    bench: Bench, tmp_path: Path
) -> None:
    mandate = await bench.mandate(usd(5_000))
    path, url = tmp_path / "journal", f"{API}/v1/reports/r"
    async with holding(bench, mandate, path) as agent:
        async with agent.allowance(API, budget=usd(3_000), max_price=usd(50), allowance_id="a-keys") as _:
            at_once = await asyncio.gather(
                *(agent.fetch(url, max_price=usd(50), payment_id="call-1") for _ in range(3))
            )
            for n in range(25):
                await agent.fetch(f"{API}/v1/reports/n{n}", max_price=usd(50), payment_id=f"n{n}")
            late = await agent.fetch(url, max_price=usd(50), payment_id="call-1")
            with pytest.raises(PaymentRefusedError) as reused:
                await agent.fetch(f"{API}/v1/reports/other", max_price=usd(50), payment_id="call-1")
    assert reused.value.rule == "key_reused"
    await agent.settled("a-keys")
    async with holding(bench, mandate, path) as agent:  # a turn that is tried again, after all was settled
        async with agent.allowance(API, budget=usd(3_000), max_price=usd(50), allowance_id="a-keys"):
            after = await agent.fetch(url, max_price=usd(50), payment_id="call-1")
            with pytest.raises(PaymentRefusedError) as closed:
                await agent.fetch(f"{API}/v1/reports/new", max_price=usd(50), payment_id="call-2")
    assert (closed.value.rule, closed.value.money_moved) == ("AllowanceClosed", "no")
    assert len({paid.response.content for paid in (*at_once, late, after)}) == 1
    assert bench.deliveries()["reports/r"] == 1
    assert await bench.charges() == [50] * 26


async def test_a_lost_answer_is_one_charge(bench: Bench, tmp_path: Path) -> None:
    mandate = await bench.mandate(usd(1_000))
    bench.network.lose = times(2, has_credential)
    async with holding(bench, mandate, tmp_path / "journal") as agent:
        async with agent.allowance(API, budget=usd(300), max_price=usd(50)):
            paid = await agent.fetch(f"{API}/v1/reports/r", max_price=usd(50))
    assert paid.response.status_code == 200
    assert await bench.charges() == [50]
    assert len(await bench.all_tokens()) == 1
    sent = [request for request in bench.network.sent_to("paid.test") if has_credential(request)]
    assert len({(r.headers["authorization"], r.headers["idempotency-key"]) for r in sent}) == 1


async def test_a_cheating_server_gets_one_token_for_the_first_price(bench: Bench, tmp_path: Path) -> None:
    server = EvilServer(
        lambda request, n: ask(stripe_challenge("50")), lambda request, n: ask(stripe_challenge("5000"))
    )
    bench.network.add("evil.test", server.app)
    mandate = await bench.mandate(usd(10_000))
    async with holding(bench, mandate, tmp_path / "journal") as agent:
        most = usd(6_000)
        async with agent.allowance("https://evil.test", budget=usd(9_000), max_price=most) as allowance:
            with pytest.raises(PaymentRefusedError) as refused:
                await agent.fetch("https://evil.test/", max_price=most)
    assert refused.value.money_moved == "no"
    assert (await agent.settled(allowance)).spent == 0
    assert await bench.open_tokens() == []
    tokens = (await bench.ledger())["tokens"]
    assert [token["usage_limits"]["max_amount"] for token in tokens] == [50]


async def test_a_price_above_the_callers_own_limit_is_not_paid(bench: Bench, tmp_path: Path) -> None:
    mandate = await bench.mandate(usd(1_000))
    async with holding(bench, mandate, tmp_path / "journal") as agent:
        async with agent.allowance(API, budget=usd(300), max_price=usd(100)):
            with pytest.raises(PaymentRefusedError) as refused:
                await agent.fetch(f"{API}/v1/reports/r", max_price=usd(10))
    assert (refused.value.rule, refused.value.money_moved) == ("price_too_high", "no")
    assert await bench.all_tokens() == []


async def test_revoking_the_mandate_stops_the_holder_at_once(bench: Bench, tmp_path: Path) -> None:
    mandate = await bench.mandate(usd(1_000))
    async with holding(bench, mandate, tmp_path / "journal") as agent:
        async with agent.allowance(API, budget=usd(300), max_price=usd(50)) as allowance:
            await agent.fetch(f"{API}/v1/reports/r", max_price=usd(50))
            await bench.temporal.get_workflow_handle(mandate).signal("revoke", {"by": "alice"})
            view = await agent.settled(allowance)
            assert view.spent == 50
            with pytest.raises(PaymentRefusedError) as refused:
                await agent.fetch(f"{API}/v1/reports/r2", max_price=usd(50))
            assert (refused.value.rule, refused.value.money_moved) == ("AllowanceClosed", "no")
    assert await bench.charges() == [50]


async def test_every_payment_is_in_the_trail(bench: Bench, tmp_path: Path) -> None:
    mandate = await bench.mandate(usd(1_000))
    async with holding(bench, mandate, tmp_path / "journal") as agent:
        async with agent.allowance(API, budget=usd(300), max_price=usd(50)) as allowance:
            for n in range(3):
                await agent.fetch(f"{API}/v1/reports/r{n}", max_price=usd(50), payment_id=f"k{n}")
    await agent.settled(allowance)
    trail = await bench.temporal.get_workflow_handle(allowance).query(Allowance.audit)
    assert verify(trail.entries)
    paid = [entry.detail for entry in trail.entries if entry.action == "payment.reported"]
    assert [(one["key"], one["amount"], one["money_moved"]) for one in paid] == [
        (f"k{n}", 50, "yes") for n in range(3)
    ]
    actions = [entry.action for entry in trail.entries]
    assert actions[:2] == ["mandate.reserved", "holder.leased"]
    assert actions[-1] == "mandate.committed"
    for token in await bench.all_tokens():
        assert token not in trail.model_dump_json()


async def test_no_credential_lies_in_clear_in_the_journal(tmp_path: Path, encrypted: Any) -> None:
    async with Bench(tmp_path, encrypted).working() as bench:
        mandate = await bench.mandate(usd(1_000))
        async with holding(bench, mandate, tmp_path / "journal") as agent:
            async with agent.allowance(API, budget=usd(300), max_price=usd(50)):
                paid = await agent.fetch(f"{API}/v1/reports/r", max_price=usd(50))
                written = all_of(tmp_path)
        tokens = await bench.all_tokens()
    assert tokens
    assert (tmp_path / "journal").stat().st_mode & 0o077 == 0
    for secret in (*tokens, paid.response.json()["content"], "reports/r"):
        assert secret.encode() not in written


# Crashes and loss


async def test_after_a_crash_the_journal_goes_on_with_the_same_credential(
    bench: Bench, tmp_path: Path
) -> None:
    mandate = await bench.mandate(usd(1_000))
    path, url = tmp_path / "journal", f"{API}/v1/reports/r"
    bench.network.lose = has_credential  # charged, and the answer never arrives
    async with holding(bench, mandate, path) as agent:
        await enter(agent, API, budget=usd(300), max_price=usd(50), allowance_id="a-crash")
        paying = asyncio.create_task(agent.fetch(url, max_price=usd(50), payment_id="call-1"))

        async def charged() -> bool:
            return len(await bench.charges()) == 1

        await eventually(charged)
        await crash(agent)
        paying.cancel()
    bench.network.lose = lambda request: False
    async with holding(bench, mandate, path) as agent:
        async with agent.allowance(API, budget=usd(300), max_price=usd(50), allowance_id="a-crash"):
            paid = await agent.fetch(url, max_price=usd(50), payment_id="call-1")
    assert paid.response.json()["subject"] == "reports/r"
    assert (await agent.settled("a-crash")).spent == 50
    assert await bench.charges() == [50]
    assert len(await bench.all_tokens()) == 1


async def test_what_a_dead_process_left_is_reported_by_the_next_one_of_the_machine(
    bench: Bench, tmp_path: Path
) -> None:
    mandate = await bench.mandate(usd(1_000))
    path = tmp_path / "journal"
    async with holding(bench, mandate, path) as agent:
        await enter(agent, API, budget=usd(300), max_price=usd(50), allowance_id="a-left")
        await agent.fetch(f"{API}/v1/reports/r", max_price=usd(50))
        await crash(agent)
    await bench.temporal.get_workflow_handle("a-left").signal("settle", {"by": "alice"})
    async with holding(bench, mandate, path) as agent:
        async with agent.allowance(API, budget=usd(100), max_price=usd(50)):
            assert (await agent.settled("a-left")).spent == 50
    assert await bench.charges() == [50]


async def test_a_second_process_of_the_machine_is_kept_out(bench: Bench, tmp_path: Path) -> None:
    mandate = await bench.mandate(usd(1_000))
    path = tmp_path / "journal"
    async with holding(bench, mandate, path) as first, holding(bench, mandate, path) as second:
        more: dict[str, Any] = {"budget": usd(300), "max_price": usd(50), "allowance_id": "a-two"}
        async with first.allowance(API, **more):
            with pytest.raises(PaymentRefusedError) as refused:
                async with second.allowance(API, **more):
                    pass
    assert refused.value.rule == "AllowanceLeased"


async def test_another_machine_waits_for_the_lease_and_never_pays_a_key_twice(
    quick_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "LEASE_LIFETIME", timedelta(seconds=3))
    monkeypatch.setattr(policies, "LEASE_GRACE", timedelta(seconds=1))
    monkeypatch.setattr("workflows.allowance.rules.PORTION_PAYMENTS", 3)
    bench = quick_bench
    mandate = await bench.mandate(usd(1_000))
    more: dict[str, Any] = {"budget": usd(400), "max_price": usd(50), "allowance_id": "a-lost"}
    url = f"{API}/v1/reports/r"
    async with holding(bench, mandate, tmp_path / "journal-1") as agent:
        await enter(agent, API, **more)
        await agent.fetch(url, max_price=usd(50), payment_id="call-1")
        await crash(agent)  # and its disk is gone

    async with holding(bench, mandate, tmp_path / "journal-2") as agent:
        with pytest.raises(PaymentRefusedError, match="another process pays from it"):
            async with agent.allowance(API, **more):
                pass

        async def taken_over() -> bool:
            try:
                await enter(agent, API, **more)
            except PaymentRefusedError:
                return False
            return True

        await eventually(taken_over)
        with pytest.raises(PaymentRefusedError) as refused:
            await agent.fetch(url, max_price=usd(50), payment_id="call-1")
        assert (refused.value.rule, refused.value.money_moved) == ("payment_made_elsewhere", "unknown")
        await agent.fetch(f"{API}/v1/reports/r2", max_price=usd(50), payment_id="call-2")
        view = await bench.temporal.get_workflow_handle("a-lost").query(Allowance.status)
        assert view.spent == 150  # all that the lost holder may have spent
        await agent._allowances[API][0].holder.finish()  # type: ignore[union-attr]
    await bench.temporal.get_workflow_handle("a-lost").signal("settle", {"by": "alice"})
    assert (await agent.settled("a-lost")).spent == 200
    assert await bench.charges() == [50, 50]
    trail = await bench.temporal.get_workflow_handle("a-lost").query(Allowance.audit)
    assert "holder.lost" in [entry.action for entry in trail.entries]


async def test_in_tokens_the_chain_is_asked_before_a_lost_key_is_paid(
    quick_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "LEASE_LIFETIME", timedelta(seconds=3))
    monkeypatch.setattr(policies, "LEASE_GRACE", timedelta(seconds=0))
    bench = quick_bench
    mandate = await bench.mandate(Money(amount=1_000_000, currency=USDC))
    most = Money(amount=1_000, currency=USDC)
    more: dict[str, Any] = {
        "budget": Money(amount=100_000, currency=USDC),
        "max_price": most,
        "allowance_id": "a-lost-tokens",
    }
    rails: dict[str, Any] = {"rails": (Rail.X402_EXACT,)}
    async with holding(bench, mandate, tmp_path / "journal-1", **rails) as agent:
        await enter(agent, API, **more)
        await agent.fetch(f"{API}/v1/quotes/q", max_price=most, payment_id="call-1")
        await crash(agent)

    async with holding(bench, mandate, tmp_path / "journal-2", **rails) as agent:

        async def taken_over() -> bool:
            try:
                await enter(agent, API, **more)
            except PaymentRefusedError:
                return False
            return True

        await eventually(taken_over)
        with pytest.raises(PaymentRefusedError) as refused:
            await agent.fetch(f"{API}/v1/quotes/q", max_price=most, payment_id="call-1")
        assert refused.value.rule == "payment_made_elsewhere"
        await agent.fetch(f"{API}/v1/quotes/q2", max_price=most, payment_id="call-2")
        await agent._allowances[API][0].holder.finish()  # type: ignore[union-attr]
    assert await bench.transfers() == 2


async def test_a_holder_that_never_comes_back_counts_as_having_spent_its_portion(
    quick_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("LEASE_LIFETIME", 3), ("LEASE_GRACE", 0), ("LOST_HOLDER_PATIENCE", 1)):
        monkeypatch.setattr(policies, name, timedelta(seconds=seconds))
    monkeypatch.setattr("workflows.allowance.rules.PORTION_PAYMENTS", 2)
    monkeypatch.setattr("waystation.buyer.allowance.holder.REPORT_EVERY_SECONDS", 60)
    bench = quick_bench
    mandate = await bench.mandate(usd(1_000))
    async with holding(bench, mandate, tmp_path / "journal") as agent:
        await enter(agent, API, budget=usd(300), max_price=usd(50), allowance_id="a-gone")
        await agent.fetch(f"{API}/v1/reports/r", max_price=usd(50))
        await crash(agent)
    await bench.temporal.get_workflow_handle("a-gone").signal("settle", {"by": "alice"})
    assert (await agent.settled("a-gone")).spent == 100
    assert await bench.balance(mandate) == (100, 0)
    trail = await bench.temporal.get_workflow_handle("a-gone").query(Allowance.audit)
    [lost] = [entry.detail for entry in trail.entries if entry.action == "holder.lost"]
    assert lost["counted"] == 100


async def test_a_lease_that_is_about_to_end_is_renewed_before_a_payment(
    quick_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "LEASE_LIFETIME", timedelta(seconds=3))
    monkeypatch.setattr("waystation.buyer.allowance.holder.REPORT_EVERY_SECONDS", 60)
    bench = quick_bench
    mandate = await bench.mandate(usd(1_000))
    async with holding(bench, mandate, tmp_path / "journal") as agent:
        await enter(agent, API, budget=usd(300), max_price=usd(50), allowance_id="a-asleep")
        holder = agent._allowances[API][0].holder
        assert holder is not None

        async def ends_soon() -> bool:
            return holder._lease.ends_soon

        await eventually(ends_soon)
        paid = await agent.fetch(f"{API}/v1/reports/r", max_price=usd(50))
        assert paid.money_moved == "yes"
        await holder.finish()
    await bench.temporal.get_workflow_handle("a-asleep").signal("settle", {"by": "alice"})
    assert (await agent.settled("a-asleep")).spent == 50


async def test_with_a_holder_the_workflow_itself_does_not_pay(bench: Bench, tmp_path: Path) -> None:
    mandate = await bench.mandate(usd(1_000))
    blind = Payer(
        bench.temporal, mandate_id=mandate, agent=AGENT, task_queue=bench.task_queue, transport=bench.network
    )
    more: dict[str, Any] = {"budget": usd(300), "max_price": usd(50), "allowance_id": "a-both"}
    async with holding(bench, mandate, tmp_path / "journal") as agent, agent.allowance(API, **more):
        await enter(blind, API, **more)
        with pytest.raises(PaymentRefusedError) as refused:
            await blind.fetch(f"{API}/v1/reports/r", max_price=usd(50))
    assert refused.value.rule == "AllowanceLeased"


async def test_a_report_of_more_than_was_leased_is_refused_and_all_of_the_lease_counts(
    quick_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("LEASE_LIFETIME", 3), ("LEASE_GRACE", 0), ("LOST_HOLDER_PATIENCE", 1)):
        monkeypatch.setattr(policies, name, timedelta(seconds=seconds))
    monkeypatch.setattr("workflows.allowance.rules.PORTION_PAYMENTS", 2)
    bench = quick_bench
    mandate = await bench.mandate(usd(1_000))
    async with holding(bench, mandate, tmp_path / "journal") as agent:
        await enter(agent, API, budget=usd(300), max_price=usd(50), allowance_id="a-liar")
        await crash(agent)
    allowance = bench.temporal.get_workflow_handle("a-liar")
    too_much = AllowanceReport(lease=1, payments=(reported(1, 101),), final=True)
    for _ in range(2):
        with pytest.raises(WorkflowUpdateFailedError) as failed:
            await allowance.execute_update("report", too_much)
        assert isinstance(failed.value.cause, ApplicationError)
        assert failed.value.cause.type == "AllowanceReportRefused"
    await allowance.signal("settle", {"by": "alice"})
    assert (await agent.settled("a-liar")).spent == 100
    assert await bench.balance(mandate) == (100, 0)
    trail = await allowance.query(Allowance.audit)
    assert [entry.action for entry in trail.entries].count("report.refused") == 2
