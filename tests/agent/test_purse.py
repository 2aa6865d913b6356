"""What a turn's payments and allowances are called: told apart in a turn, and found by its next attempt."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar, cast

import pytest
from temporalio.testing import ActivityEnvironment

from tests.buyer.bench import AGENT, API, Bench, usd
from tests.support import PATIENCE_SECONDS
from waystation.agent import money
from waystation.agent.money import Purse, Spender
from waystation.buyer import payer as payer_module
from waystation.buyer.allowance.opening import OpenAllowance, open_allowance
from waystation.buyer.payer import Payer, PaymentRefusedError
from waystation.client import Session
from waystation.settings import Settings

URL = f"{API}/v1/reports/rain"
T = TypeVar("T")


async def nothing_written() -> None:
    return None


class Turns:
    """Attempts of one turn."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.spender = Spender(f"s-{uuid.uuid4().hex[:8]}", "t1", AGENT)

    async def attempt(self, run: Callable[[Purse], Awaitable[T]], *, comes_back: bool = False) -> T:
        """Runs one attempt, whose process ends with it; another may go on with what it has begun."""
        purse = Purse(self.spender, cast(Session, None), nothing_written, Settings(), lambda _: comes_back)

        async def in_activity() -> T:
            try:
                return await run(purse)
            finally:
                await purse.close()

        environment = ActivityEnvironment(self.bench.temporal)
        found: T = await environment.run(in_activity)
        return found


@pytest.fixture
def turns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Turns:
    payer = partial(Payer, transport=bench.network, task_queue=bench.task_queue)
    monkeypatch.setattr(money, "Payer", payer)
    return Turns(bench)


async def paid(purse: Purse, mandate: str, url: str = URL, cents: int = 50, **more: str) -> str:
    answer = await purse.fetch(url, max_price=usd(cents), mandate_id=mandate, **more)
    return str(answer.response.json()["subject"])


# Paid requests


async def test_the_same_call_is_paid_once_in_a_turn_and_after_a_retry(turns: Turns) -> None:
    mandate = await turns.bench.mandate(usd(1_000))

    async def twice(purse: Purse) -> None:
        for _ in range(2):
            await paid(purse, mandate)

    await turns.attempt(twice)
    await turns.attempt(twice)
    assert await turns.bench.charges() == [50]


async def test_what_was_too_dear_is_paid_with_a_higher_limit_and_found_by_a_retry(turns: Turns) -> None:
    mandate = await turns.bench.mandate(usd(1_000))

    async def raising(purse: Purse) -> str:
        with pytest.raises(PaymentRefusedError) as refused:
            await paid(purse, mandate, cents=10)
        assert refused.value.rule == "price_too_high"
        return await paid(purse, mandate, cents=60)

    assert await turns.attempt(raising) == await turns.attempt(raising) == "reports/rain"
    assert await turns.bench.charges() == [50]


async def test_other_headers_and_mandates_are_payments_of_their_own(turns: Turns) -> None:
    mandates = [await turns.bench.mandate(usd(1_000)) for _ in range(2)]

    async def each(purse: Purse) -> None:
        for mandate in mandates:
            for language in ("en", "fr"):
                headers = {"accept-language": language, "traceparent": uuid.uuid4().hex}
                await purse.fetch(URL, max_price=usd(50), mandate_id=mandate, headers=headers)

    await turns.attempt(each)
    await turns.attempt(each)
    assert await turns.bench.charges() == [50] * 4


async def test_a_retry_on_other_terms_is_told_so_and_pays_nothing(turns: Turns) -> None:
    mandate = await turns.bench.mandate(usd(1_000))
    for key in (None, "mine"):
        await turns.attempt(lambda purse, key=key: paid(purse, mandate, cents=60, key=key))
        with pytest.raises(PaymentRefusedError, match="its own 'key'") as refused:
            await turns.attempt(lambda purse, key=key: paid(purse, mandate, cents=70, key=key))
        assert (refused.value.rule, refused.value.money_moved) == ("id_taken", "no")
    assert await turns.bench.charges() == [50, 50]


# Allowances


async def test_nested_allowances_on_equal_terms_are_two_budgets(turns: Turns) -> None:
    mandate = await turns.bench.mandate(usd(1_000))
    terms = {"budget": usd(100), "max_price": usd(50), "mandate_id": mandate}

    async def nested(purse: Purse) -> list[str]:
        async with purse.allowance(API, **terms) as outer:
            async with purse.allowance(API, **terms) as inner:
                await paid(purse, mandate, f"{API}/v1/reports/inner")
            for subject in ("a", "b"):  # the inner one's end has not settled it
                await paid(purse, mandate, f"{API}/v1/reports/{subject}")
        return [outer, inner]

    first = await turns.attempt(nested)
    assert len(set(first)) == 2
    assert await turns.attempt(nested) == first  # both are settled, and still have their answers
    assert await turns.bench.charges() == [50] * 3


async def test_one_allowance_after_another_has_a_budget_of_its_own(turns: Turns) -> None:
    mandate = await turns.bench.mandate(usd(1_000))

    async def in_turn(purse: Purse) -> None:
        for subject in "abc":
            async with purse.allowance(API, budget=usd(50), max_price=usd(50), mandate_id=mandate):
                await paid(purse, mandate, f"{API}/v1/reports/{subject}")

    await turns.attempt(in_turn)
    assert await turns.bench.charges() == [50] * 3


async def test_a_retry_goes_on_with_the_allowances_that_were_open(turns: Turns) -> None:
    mandate = await turns.bench.mandate(usd(1_000))
    terms = {"budget": usd(100), "max_price": usd(50), "mandate_id": mandate}
    opened: list[list[str]] = []
    left = []

    async def killed_in_the_inner_block(purse: Purse) -> None:
        left.extend(purse.allowance(API, **terms) for _ in range(2))  # whose ends never come
        opened.append([await block.__aenter__() for block in left])
        await paid(purse, mandate, f"{API}/v1/reports/inner")

    async def to_the_end(purse: Purse) -> None:
        async with purse.allowance(API, **terms) as outer:
            async with purse.allowance(API, **terms) as inner:
                opened.append([outer, inner])
                for subject in ("inner", "more"):
                    await paid(purse, mandate, f"{API}/v1/reports/{subject}")
            await paid(purse, mandate, f"{API}/v1/reports/outer")

    await turns.attempt(killed_in_the_inner_block)
    await turns.attempt(to_the_end)
    assert opened[0] == opened[1]
    assert await turns.bench.charges() == [50] * 3


@pytest.mark.parametrize("at_once", [False, True])
async def test_blocks_with_one_key_share_it_until_the_last_one_ends(turns: Turns, at_once: bool) -> None:
    mandate = await turns.bench.mandate(usd(1_000))
    ended = asyncio.Event()

    async def block(purse: Purse, subject: str) -> str:
        terms = {"budget": usd(200), "max_price": usd(50), "mandate_id": mandate}
        async with purse.allowance(API, key="mine", **terms) as allowance:
            if at_once and subject == "b":
                await ended.wait()
            elif not at_once and subject == "b":
                await block(purse, "a")
            await paid(purse, mandate, f"{API}/v1/reports/{subject}")
        ended.set()
        return allowance

    async def both(purse: Purse) -> set[str]:
        names = ("a", "b") if at_once else ("b",)
        return set(await asyncio.gather(*(block(purse, name) for name in names)))

    [allowance] = await turns.attempt(both)
    assert await turns.bench.charges() == [50, 50]

    async def settled(purse: Purse) -> int:
        payer = Payer(turns.bench.temporal, mandate_id=mandate, agent=AGENT, transport=turns.bench.network)
        return (await payer.settled(allowance)).spent

    assert await turns.attempt(settled) == 100


async def test_an_allowance_on_other_terms_in_the_same_place_is_told_so(turns: Turns) -> None:
    mandate = await turns.bench.mandate(usd(1_000))

    async def open_with(cents: int, purse: Purse) -> None:
        async with purse.allowance(API, budget=usd(cents), max_price=usd(50), mandate_id=mandate):
            pass

    await turns.attempt(partial(open_with, 100))
    with pytest.raises(PaymentRefusedError, match=r"turn\.allowance\(…, key='rain'\)") as refused:
        await turns.attempt(partial(open_with, 200))
    assert (refused.value.rule, refused.value.money_moved) == ("id_taken", "no")


async def test_an_attempt_that_another_follows_leaves_its_allowances_open(turns: Turns) -> None:
    mandate = await turns.bench.mandate(usd(1_000))
    terms = {"budget": usd(100), "max_price": usd(50), "mandate_id": mandate}
    opened: list[str] = []

    async def pays_for(purse: Purse, *subjects: str, then: Exception | None = None) -> None:
        async with purse.allowance(API, **terms) as allowance:
            opened.append(allowance)
            for subject in subjects:
                await paid(purse, mandate, f"{API}/v1/reports/{subject}")
            if then is not None:
                raise then

    with pytest.raises(ZeroDivisionError):
        await turns.attempt(lambda purse: pays_for(purse, "a", then=ZeroDivisionError()), comes_back=True)
    await turns.attempt(lambda purse: pays_for(purse, "a", "b"))
    assert len(set(opened)) == 1
    assert await turns.bench.charges() == [50, 50]
    with pytest.raises(PaymentRefusedError) as refused:  # now it is settled
        await turns.attempt(lambda purse: pays_for(purse, "c"))
    assert refused.value.rule == "AllowanceClosed"


@pytest.mark.parametrize("moment", ["opening", "opened", "settling"])
async def test_an_allowance_is_settled_whenever_its_block_is_canceled(
    turns: Turns, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    mandate = await turns.bench.mandate(usd(1_000))
    allowance: list[str] = []

    async def cancel_the_block() -> None:
        blocks[0].cancel()
        await asyncio.sleep(0)  # where the cancellation arrives

    async def opening(client: Any, allowance_id: str, *args: Any, **options: Any) -> OpenAllowance:
        allowance.append(allowance_id)
        opened = await open_allowance(client, allowance_id, *args, **options)
        if moment == "opening":
            await cancel_the_block()
        return opened

    async def settling(opened: OpenAllowance) -> None:
        if moment == "settling":
            await cancel_the_block()
        await settle(opened)

    settle = OpenAllowance.settle
    monkeypatch.setattr(payer_module, "open_allowance", opening)
    monkeypatch.setattr(OpenAllowance, "settle", settling)

    async def block(purse: Purse) -> None:
        async with purse.allowance(API, budget=usd(100), max_price=usd(50), mandate_id=mandate):
            if moment == "opened":
                await cancel_the_block()
            await paid(purse, mandate)

    blocks = [asyncio.ensure_future(turns.attempt(block))]
    with pytest.raises(asyncio.CancelledError):
        await blocks[0]
    payer = Payer(turns.bench.temporal, mandate_id=mandate, agent=AGENT)
    async with asyncio.timeout(PATIENCE_SECONDS):
        view = await payer.settled(allowance[0])
    assert not view.open
    await payer.close()
