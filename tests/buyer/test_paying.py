"""What an agent uses: fetch, the httpx transport, allowances."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.client import Client

from tests.buyer.bench import AGENT, API, USDC, Bench, eventually, has_credential, times, usd
from tests.buyer.evil import EvilServer, ask, stripe_challenge
from waystation.buyer.payer import PAYMENT_ID_EXTENSION, Payer, PayingTransport, PaymentRefusedError
from waystation.models.money import Money
from waystation.models.payments import AllowanceStart, PaidHttpRequest, PaidRequestStart, Rail
from waystation.temporal.digests import began_with
from waystation.temporal.messages import PAID_REQUEST_DIGEST
from workflows.allowance import Allowance, AllowanceRun


def payer(bench: Bench, mandate: str, **more: Any) -> Payer:
    return Payer(
        bench.temporal,
        mandate_id=mandate,
        task_queue=bench.task_queue,
        **{"agent": AGENT, "transport": bench.network, **more},
    )


class Streaming(httpx.AsyncBaseTransport):
    """A server whose answers come in pieces."""

    def __init__(self, body: Callable[[httpx.Request], AsyncIterator[bytes]]) -> None:
        self.body = body

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=self.body(request))


@pytest.fixture
async def rich(bench: Bench) -> Payer:
    return payer(bench, await bench.mandate(usd(10_000)))


async def test_fetch_pays_and_gives_the_answer(bench: Bench, rich: Payer) -> None:
    paid = await rich.fetch(f"{API}/v1/reports/rain", max_price=usd(60))
    assert paid.response.status_code == 200
    assert paid.response.json()["subject"] == "reports/rain"
    assert paid.receipt is not None
    assert await bench.charges() == [50]


async def test_what_needs_no_payment_is_one_round_trip_and_no_workflow(bench: Bench) -> None:
    agent = payer(bench, await bench.mandate(usd(1_000)))
    paid = await agent.fetch(f"{API}/v1/free", max_price=usd(60))
    assert (paid.response.status_code, paid.payment_id) == (200, None)
    assert len(bench.network.seen) == 1


async def test_an_endless_free_answer_is_not_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waystation.buyer.payer.MAX_STORED_ANSWER_BYTES", 100_000)
    given: list[int] = []

    async def endless(request: httpx.Request) -> AsyncIterator[bytes]:
        for number in range(1_000):
            given.append(number)
            yield bytes(10_000)

    agent = payer(bench, await bench.mandate(usd(1_000)), transport=Streaming(endless))
    with pytest.raises(PaymentRefusedError) as refused:
        await agent.fetch("https://endless.test/", max_price=usd(60))
    assert (refused.value.rule, refused.value.money_moved) == ("answer_too_large", "no")
    assert len(given) == 11


async def test_a_free_answer_that_drips_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waystation.buyer.payer.WHOLE_ANSWER_TIMEOUT_SECONDS", 0.2)

    async def dripping(request: httpx.Request) -> AsyncIterator[bytes]:
        yield b"a drop"
        await asyncio.Event().wait()

    agent = payer(bench, await bench.mandate(usd(1_000)), transport=Streaming(dripping))
    with pytest.raises(httpx.ReadTimeout, match="nothing was paid"):
        await agent.fetch("https://dripping.test/", max_price=usd(60))


async def test_the_same_payment_id_is_paid_once_and_answered_again(bench: Bench, rich: Payer) -> None:
    payment_id = f"turn-{uuid.uuid4().hex[:6]}-pay-1"
    url = f"{API}/v1/reports/rain"
    first, second = await asyncio.gather(
        *(rich.fetch(url, max_price=usd(60), payment_id=payment_id) for _ in range(2))
    )
    await bench.temporal.get_workflow_handle(payment_id).result()
    third = await rich.fetch(url, max_price=usd(60), payment_id=payment_id)
    assert first.response.content == second.response.content == third.response.content
    assert await bench.charges() == [50]
    assert bench.deliveries() == {"reports/rain": 1}


async def test_a_refusal_is_an_error_that_says_whether_money_moved(bench: Bench, rich: Payer) -> None:
    with pytest.raises(PaymentRefusedError) as refused:
        await rich.fetch(f"{API}/v1/reports/rain", max_price=usd(10))
    assert (refused.value.rule, refused.value.money_moved) == ("price_too_high", "no")


async def test_existing_httpx_code_pays_without_knowing_it(bench: Bench, rich: Payer) -> None:
    transport = PayingTransport(rich, max_price=usd(80), inner=bench.network)
    async with httpx.AsyncClient(transport=transport, base_url=API) as client:
        free = await client.get("/v1/free")
        report = await client.get("/v1/reports/rain")
        summary = await client.post("/v1/summaries", json={"text": "hello"})
        extensions = {PAYMENT_ID_EXTENSION: f"p-{uuid.uuid4().hex[:8]}"}
        again = [await client.get("/v1/reports/snow", extensions=dict(extensions)) for _ in range(2)]
    assert free.status_code == 200
    assert report.json()["subject"] == "reports/rain"
    assert summary.json()["content"] == "hello"
    assert again[0].content == again[1].content
    assert sorted(await bench.charges()) == [50, 50, 75]


async def test_a_large_answer_is_read_from_the_store(bench: Bench, temporal: Client) -> None:
    mandate = await bench.mandate(usd(1_000))
    url = f"{API}/v1/archive?kilobytes=1000"
    paid = await payer(bench, mandate).fetch(url, max_price=usd(60))
    assert len(paid.response.content) == 1_024_000
    blind = Payer(
        temporal, mandate_id=mandate, agent=AGENT, task_queue=bench.task_queue, transport=bench.network
    )
    with pytest.raises(LookupError, match="WAYSTATION_STORAGE_DIR"):
        await blind.fetch(url, max_price=usd(60), payment_id=paid.payment_id)


async def test_a_large_answer_lies_encrypted_in_the_store(tmp_path: Path, encrypted: Client) -> None:
    async with Bench(tmp_path, encrypted).working() as bench:
        agent = payer(bench, await bench.mandate(usd(1_000)))
        paid = await agent.fetch(f"{API}/v1/archive?kilobytes=3000", max_price=usd(60))
        stored = [path.read_bytes() for path in bench.payloads.rglob("*") if path.is_file()]
    assert len(paid.response.content) == 3_072_000
    assert len(stored) >= 3
    sample = paid.response.content[1_500_000:1_500_032]
    assert all(sample not in piece for piece in stored)


async def test_nothing_is_sent_to_a_seller_that_the_mandate_does_not_name(bench: Bench) -> None:
    agent = payer(bench, await bench.mandate(usd(1_000), sellers=("https://other.test",)))
    with pytest.raises(PaymentRefusedError) as refused:
        await agent.fetch(f"{API}/v1/free", max_price=usd(60))
    assert (refused.value.rule, refused.value.money_moved) == ("seller_not_allowed", "no")
    transport = PayingTransport(agent, max_price=usd(80), inner=bench.network)
    async with httpx.AsyncClient(transport=transport, base_url=API) as client:
        with pytest.raises(PaymentRefusedError, match="nothing was sent"):
            await client.get("/v1/free")
    assert bench.network.seen == []


# Allowances


async def test_many_payments_within_one_reservation(bench: Bench) -> None:
    mandate = await bench.mandate(usd(1_000))
    agent = payer(bench, mandate)
    async with agent.allowance(API, budget=usd(300), max_price=usd(50)) as allowance:
        for n in range(5):
            paid = await agent.fetch(f"{API}/v1/reports/r{n}", max_price=usd(50))
            assert paid.response.json()["subject"] == f"reports/r{n}"
        assert await bench.balance(mandate) == (0, 300)
    view = await agent.settled(allowance)
    assert (view.spent, view.payments, view.held) == (250, 5, 0)
    assert await bench.charges() == [50] * 5
    assert await bench.balance(mandate) == (250, 0)
    assert await bench.open_tokens() == []


async def test_an_allowance_in_tokens(bench: Bench) -> None:
    mandate = await bench.mandate(Money(amount=100_000, currency=USDC))
    agent = payer(bench, mandate)
    budget, most = Money(amount=10_000, currency=USDC), Money(amount=1_000, currency=USDC)
    async with agent.allowance(API, budget=budget, max_price=most) as allowance:
        for n in range(3):
            assert (await agent.fetch(f"{API}/v1/quotes/q{n}", max_price=most)).response.status_code == 200
    assert (await agent.settled(allowance)).spent == 3_000
    assert await bench.transfers() == 3
    assert await bench.balance(mandate) == (3_000, 0)


async def test_parallel_payments_never_exceed_the_budget(bench: Bench) -> None:
    mandate = await bench.mandate(usd(1_000))
    agent = payer(bench, mandate)
    async with agent.allowance(API, budget=usd(220), max_price=usd(50)) as allowance:
        outcomes = await asyncio.gather(
            *(agent.fetch(f"{API}/v1/reports/r{n}", max_price=usd(50)) for n in range(8)),
            return_exceptions=True,
        )
    refused = [one for one in outcomes if isinstance(one, PaymentRefusedError)]
    assert [one.rule for one in refused] == ["AllowanceExhausted"] * 4
    assert (await agent.settled(allowance)).spent == 200
    assert await bench.charges() == [50] * 4


async def test_a_budget_above_the_mandate_pays_nothing(bench: Bench) -> None:
    mandate = await bench.mandate(usd(100))
    agent = payer(bench, mandate)
    async with agent.allowance(API, budget=usd(101), max_price=usd(50)) as allowance:
        with pytest.raises(PaymentRefusedError) as refused:
            await agent.fetch(f"{API}/v1/reports/r", max_price=usd(50))
    assert (refused.value.rule, refused.value.money_moved) == ("AllowanceClosed", "no")
    view = await agent.settled(allowance)
    assert view.refusal is not None
    assert await bench.charges() == []
    assert await bench.balance(mandate) == (0, 0)


async def test_a_budget_that_a_person_would_have_to_approve_is_refused_and_held_by_nobody(
    bench: Bench,
) -> None:
    mandate = await bench.mandate(usd(1_000), approval_threshold=100)
    agent = payer(bench, mandate)
    async with agent.allowance(API, budget=usd(101), max_price=usd(50)) as allowance:
        with pytest.raises(PaymentRefusedError, match="at most the mandate's approval_threshold"):
            await agent.fetch(f"{API}/v1/reports/r", max_price=usd(50))
        assert await bench.balance(mandate) == (0, 0)
    view = await agent.settled(allowance)
    assert view.refusal is not None
    assert view.refusal.rule == "approval_required"
    async with agent.allowance(API, budget=usd(100), max_price=usd(50)):
        await agent.fetch(f"{API}/v1/reports/r", max_price=usd(50))
    assert await bench.charges() == [50]


async def test_an_allowance_that_nobody_settles_settles_itself(bench: Bench) -> None:

    mandate = await bench.mandate(usd(1_000))
    agent = payer(bench, mandate)
    context = agent.allowance(API, budget=usd(100), max_price=usd(50), lifetime=timedelta(seconds=1))
    allowance = await context.__aenter__()
    await agent.fetch(f"{API}/v1/reports/r", max_price=usd(50))
    view = await agent.settled(allowance)  # the block is never left, as after a crash of the agent
    assert view.spent == 50
    assert await bench.balance(mandate) == (50, 0)


async def test_the_same_key_within_an_allowance_is_one_payment(bench: Bench) -> None:
    mandate = await bench.mandate(usd(1_000))
    agent = payer(bench, mandate)
    async with agent.allowance(API, budget=usd(300), max_price=usd(50)):
        url = f"{API}/v1/reports/r"
        answers = [await agent.fetch(url, max_price=usd(50), payment_id="call-1") for _ in range(3)]
    assert len({answer.response.content for answer in answers}) == 1
    assert await bench.charges() == [50]


async def test_a_lost_answer_within_an_allowance_is_one_charge(bench: Bench) -> None:
    mandate = await bench.mandate(usd(1_000))
    agent = payer(bench, mandate)
    bench.network.lose = times(2, has_credential)
    async with agent.allowance(API, budget=usd(300), max_price=usd(50)):
        paid = await agent.fetch(f"{API}/v1/reports/r", max_price=usd(50))
    assert paid.response.status_code == 200
    assert await bench.charges() == [50]
    assert len(await bench.all_tokens()) == 1


async def test_a_cheating_server_within_an_allowance_gets_one_token_and_no_more(bench: Bench) -> None:
    server = EvilServer(
        lambda request, n: ask(stripe_challenge("50")),
        lambda request, n: ask(stripe_challenge("5000")),
    )
    bench.network.add("evil.test", server.app)
    mandate = await bench.mandate(usd(10_000))
    agent = payer(bench, mandate)
    async with agent.allowance("https://evil.test", budget=usd(9_000), max_price=usd(6_000)) as allowance:
        with pytest.raises(PaymentRefusedError) as refused:
            await agent.fetch("https://evil.test/", max_price=usd(6_000))
    assert refused.value.money_moved == "no"
    assert (await agent.settled(allowance)).spent == 0
    assert await bench.open_tokens() == []
    tokens = (await bench.ledger())["tokens"]
    assert [token["usage_limits"]["max_amount"] for token in tokens] == [50]


async def test_revoking_the_mandate_closes_the_allowance(bench: Bench) -> None:
    mandate = await bench.mandate(usd(1_000))
    agent = payer(bench, mandate)
    async with agent.allowance(API, budget=usd(300), max_price=usd(50)) as allowance:
        await agent.fetch(f"{API}/v1/reports/r", max_price=usd(50))
        await bench.temporal.get_workflow_handle(mandate).signal("revoke", {"by": "alice"})
        view = await agent.settled(allowance)
        assert view.spent == 50
        with pytest.raises(PaymentRefusedError, match="has ended"):
            await agent.fetch(f"{API}/v1/reports/r2", max_price=usd(50))
    assert await bench.charges() == [50]


async def test_a_long_allowance_continues_as_new_and_forgets_nothing(
    quick_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.allowance.workflow.MAX_CALLS_PER_RUN", 2)
    mandate = await quick_bench.mandate(usd(1_000))
    agent = payer(quick_bench, mandate)
    async with agent.allowance(API, budget=usd(300), max_price=usd(50)) as allowance:
        handle = quick_bench.temporal.get_workflow_handle(allowance)
        first = (await handle.describe()).run_id
        for n in range(5):
            key = f"call-{n}"
            await agent.fetch(f"{API}/v1/reports/r{n}", max_price=usd(50), payment_id=key)

        async def renewed() -> bool:
            return (await handle.describe()).run_id != first

        await eventually(renewed)
        again = await agent.fetch(f"{API}/v1/reports/r0", max_price=usd(50), payment_id="call-0")
        assert again.response.json() == {
            "subject": "reports/r0",
            "content": again.response.json()["content"],
            "run": 1,
        }
        view = await handle.query(Allowance.status)
        assert (view.spent, view.payments) == (250, 5)
    assert (await agent.settled(allowance)).spent == 250
    assert await quick_bench.balance(mandate) == (250, 0)


async def test_the_lower_limit_holds_within_an_allowance(bench: Bench) -> None:
    agent = payer(bench, await bench.mandate(usd(1_000)))
    async with agent.allowance(API, budget=usd(300), max_price=usd(60)):
        for limit, rule in (
            (usd(10), "price_too_high"),
            (Money(amount=60, currency="eur"), "AllowanceLimitRefused"),
        ):
            with pytest.raises(PaymentRefusedError) as refused:
                await agent.fetch(f"{API}/v1/reports/r", max_price=limit)
            assert (refused.value.rule, refused.value.money_moved) == (rule, "no")
        await agent.fetch(f"{API}/v1/reports/r", max_price=usd(50))
    assert await bench.charges() == [50]


async def test_the_end_of_an_inner_allowance_leaves_the_outer_one_open(bench: Bench) -> None:
    mandate = await bench.mandate(usd(1_000))
    agent = payer(bench, mandate)
    async with agent.allowance(API, budget=usd(200), max_price=usd(50)) as outer:
        async with agent.allowance(API, budget=usd(100), max_price=usd(50)) as inner:
            await agent.fetch(f"{API}/v1/reports/inner", max_price=usd(50))
        for subject in ("a", "b"):
            await agent.fetch(f"{API}/v1/reports/{subject}", max_price=usd(50))
    assert (await agent.settled(inner)).spent == 50
    assert (await agent.settled(outer)).spent == 100
    assert await bench.balance(mandate) == (150, 0)


@pytest.mark.parametrize(
    ("terms", "start", "rule"),
    [
        ({"constraints": ({"type": "max_payments", "count": 3},)}, {}, "max_payments"),
        (
            {"constraints": ({"type": "allowed_protocols", "protocols": ("acp",)},)},
            {},
            "protocol_not_allowed",
        ),
        ({}, {"payment_method": "pm_card_stolen"}, "payment_method_not_allowed"),
    ],
)
async def test_an_allowance_is_held_to_the_mandates_terms(
    bench: Bench, terms: dict[str, Any], start: dict[str, Any], rule: str
) -> None:
    mandate = await bench.mandate(usd(1_000), **terms)
    given = {"mandate_id": mandate, "agent": AGENT, "seller": API, "budget": usd(300), "max_price": usd(50)}
    handle = await bench.temporal.start_workflow(
        Allowance.run,
        AllowanceRun(start=AllowanceStart.model_validate(given | start)),
        id=f"allowance-{uuid.uuid4().hex}",
        task_queue=bench.task_queue,
    )
    view = await handle.result()
    assert view.refusal is not None
    assert (view.refusal.rule, view.spent) == (rule, 0)
    assert await bench.balance(mandate) == (0, 0)


async def test_an_allowance_pays_over_the_protocols_that_the_mandate_allows(bench: Bench) -> None:
    only_mpp = {"constraints": ({"type": "allowed_protocols", "protocols": ("mpp",)},)}
    agent = payer(bench, await bench.mandate(usd(1_000), **only_mpp))
    async with agent.allowance(API, budget=usd(300), max_price=usd(50)):
        await agent.fetch(f"{API}/v1/reports/r", max_price=usd(50))
    assert await bench.charges() == [50]


async def test_an_id_stands_for_one_request_of_one_agent(bench: Bench) -> None:
    mandate = await bench.mandate(usd(1_000))
    agent, name = payer(bench, mandate), f"p-{uuid.uuid4().hex[:8]}"
    url = f"{API}/v1/reports/r"
    first = await agent.fetch(url, max_price=usd(50), payment_id=name)
    again = await agent.fetch(url, max_price=usd(50), payment_id=name)
    assert again.response.content == first.response.content
    theirs = await bench.mandate(usd(1_000), agent="rival")
    rival = payer(bench, theirs, agent="rival")
    for who, other, more in (
        (agent, f"{API}/v1/reports/other", {}),
        (agent, url, {"headers": {"accept-language": "fr"}}),
        (agent, url, {"max_price": usd(40)}),
        (payer(bench, mandate, rails=[Rail.MPP_STRIPE]), url, {}),
        (payer(bench, mandate, session_id="s", turn_id="t1"), url, {}),
        (rival, url, {}),
    ):
        with pytest.raises(PaymentRefusedError) as refused:
            await who.fetch(other, **{"max_price": usd(50), "payment_id": name, **more})
        assert (refused.value.rule, refused.value.money_moved) == ("id_taken", "no")
    assert await bench.charges() == [50]


async def test_while_two_releases_run_each_knows_what_the_other_says_of_an_id(bench: Bench) -> None:
    mandate = await bench.mandate(usd(1_000))
    request = PaidHttpRequest(url=f"{API}/v1/reports/r")
    start = PaidRequestStart(request=request, max_price=usd(50), mandate_id=mandate, agent=AGENT)
    view = await (await bench.start("/v1/reports/r", usd(50), mandate)).result()
    assert view.start_digest == start.earlier_digest()  # what an older payer looks for
    without_the_query = bench.temporal.get_workflow_handle(mandate)
    for shown, same in ((start.earlier_digest(), True), ("another", False), (None, False)):
        assert await began_with(without_the_query, PAID_REQUEST_DIGEST, start, shown=shown) is same


async def test_an_allowances_id_and_its_keys_stand_for_one_thing_each(bench: Bench) -> None:
    mandate, name = await bench.mandate(usd(1_000)), f"a-{uuid.uuid4().hex[:8]}"
    agent = payer(bench, mandate)
    rival = payer(bench, await bench.mandate(usd(1_000), agent="rival"), agent="rival")
    async with agent.allowance(API, budget=usd(300), max_price=usd(50), allowance_id=name):
        await agent.fetch(f"{API}/v1/reports/r", max_price=usd(50), payment_id="call-1")
        for other, limit in (("other", usd(50)), ("r", usd(40))):
            with pytest.raises(PaymentRefusedError) as refused:
                await agent.fetch(f"{API}/v1/reports/{other}", max_price=limit, payment_id="call-1")
            assert refused.value.rule == "key_reused"
        for who, budget in ((rival, usd(300)), (payer(bench, mandate), usd(200))):
            with pytest.raises(PaymentRefusedError) as refused:
                async with who.allowance(API, budget=budget, max_price=usd(50), allowance_id=name):
                    raise AssertionError("it is another allowance")
            assert refused.value.rule == "id_taken"
    assert await bench.charges() == [50]
