"""A payment token whose issuing was never answered: it is found, and worthless when all is over."""

from datetime import timedelta

import httpx
import pytest
from temporalio.common import RetryPolicy

from tests.buyer.bench import Bench, eventually, times, usd
from workflows.paid_request import calls

ATTEMPTS = 2
AT_ONCE = 1
"""The first attempt, within the workflow's task."""


@pytest.fixture(autouse=True)
def gives_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    soon = RetryPolicy(maximum_attempts=ATTEMPTS, initial_interval=timedelta(milliseconds=10))
    monkeypatch.setitem(calls._MINT.options.call, "retry_policy", soon)


def issues(request: httpx.Request) -> bool:
    return request.method == "POST" and request.url.path.endswith("/issued_tokens")


async def reasons(bench: Bench) -> list[str]:
    return [token["deactivated_reason"] for token in (await bench.ledger())["tokens"]]


async def test_a_token_whose_answer_is_lost_is_revoked(quick_bench: Bench) -> None:
    quick_bench.network.lose = times(AT_ONCE + ATTEMPTS, issues)
    mandate = await quick_bench.mandate(usd(1_000))
    view = await quick_bench.pay("/v1/reports/rain", usd(60), mandate)
    assert (view.status, view.refusal.rule if view.refusal else None) == ("failed", "processor_unavailable")
    assert view.money_moved == "no"
    assert await reasons(quick_bench) == ["revoked"]
    assert await quick_bench.balance(mandate) == (0, 0)


async def test_a_payment_canceled_while_its_answer_is_lost_leaves_no_token(
    quick_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    patiently = RetryPolicy(initial_interval=timedelta(milliseconds=10), backoff_coefficient=1)
    monkeypatch.setitem(calls._MINT.options.call, "retry_policy", patiently)
    quick_bench.network.lose = issues
    mandate = await quick_bench.mandate(usd(1_000))
    handle = await quick_bench.start("/v1/reports/rain", usd(60), mandate)
    await eventually(lambda: len(quick_bench.network.sent_to("processor.test")) > ATTEMPTS, what="it tries")
    await handle.cancel()
    quick_bench.network.lose = lambda request: False
    view = await handle.result()
    assert (view.status, view.money_moved) == ("refused", "no")
    assert await reasons(quick_bench) == ["revoked"]
    assert await quick_bench.balance(mandate) == (0, 0)
