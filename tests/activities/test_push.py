"""One attempt at telling a browser, at push services that are slow, wrong, elsewhere or hostile."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from pydantic import SecretStr, ValidationError
from starlette.responses import RedirectResponse, Response
from temporalio.testing import ActivityEnvironment

import activities.posting
from activities.contract import PushCall, PushOutcome
from activities.posting import MAX_ANSWER_BYTES
from activities.push import Pushes, open_pushes
from tests.world.browser import Browser
from tests.world.keys import VAPID
from tests.world.receiver import Receiver, endless, running_receiver
from waystation.buyer.networks import checked_client, read_networks
from waystation.errors import StartError
from waystation.settings import Settings
from waystation.web_push import VapidSigner

LOOPBACK = ("127.0.0.0/8", "::1/128")
ENVIRONMENT = ActivityEnvironment()


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


def call_of(browser: Browser, endpoint: str | None = None, body: str = '{"line":"ü"}') -> PushCall:
    subscription = browser.subscription
    return PushCall(
        endpoint=endpoint or subscription["endpoint"],
        **subscription["keys"],
        body=body,
        topic="t" * 32,
        keep_seconds=60,
    )


async def push(
    call: PushCall, *, networks: Sequence[str] = LOOPBACK, signer: VapidSigner | None = VAPID
) -> PushOutcome:
    async with checked_client(read_networks(networks), setting="WAYSTATION_PUSH_NETWORKS") as http:
        return await ENVIRONMENT.run(Pushes(http, signer).deliver_push, call)


async def test_the_browser_reads_it_and_nothing_secret_is_shown(service: Receiver) -> None:
    browser = Browser(service, "reads")
    outcome = await push(call_of(browser))
    assert (outcome.delivered, outcome.attempt.status, outcome.attempt.error) == (True, 204, None)
    assert browser.pushed == [{"line": "ü"}]
    assert browser.subscription["endpoint"] not in repr(call_of(browser))
    assert browser.subscription["keys"]["auth"] not in repr(call_of(browser))


@pytest.mark.parametrize(
    ("answer", "gone", "final", "wait"),
    [
        (Response(status_code=500), False, False, None),
        (Response(status_code=429, headers={"retry-after": "60"}), False, False, timedelta(seconds=60)),
        (Response(status_code=404), True, True, None),
        (Response(status_code=410), True, True, None),
        (Response(status_code=403), False, True, None),
        (Response(status_code=413), False, True, None),
        (RedirectResponse("http://127.0.0.1:9/"), False, True, None),
    ],
)
async def test_what_is_tried_again(
    service: Receiver, answer: Response, gone: bool, final: bool, wait: timedelta | None
) -> None:
    browser = Browser(service, f"answers-{answer.status_code}")
    service.answers[browser.name].append(answer)
    outcome = await push(call_of(browser))
    assert (outcome.delivered, outcome.gone, outcome.final, outcome.retry_after) == (False, gone, final, wait)
    assert outcome.attempt.status == answer.status_code
    assert len(service.heard[browser.name]) == 1, "redirects are not followed"


async def test_nobody_waits_for_a_slow_or_endless_one(
    service: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless_one = Browser(service, "endless")
    service.answers["endless"].append(endless())
    began = time.monotonic()
    assert (await push(call_of(endless_one))).delivered
    assert time.monotonic() - began < activities.posting.POST_TIMEOUT_SECONDS, f"more than {MAX_ANSWER_BYTES}"
    monkeypatch.setattr(activities.posting, "POST_TIMEOUT_SECONDS", 0.2)
    service.hanging["slow"] = asyncio.Event()
    slow = await push(call_of(Browser(service, "slow")))
    assert (slow.delivered, slow.final, slow.attempt.status) == (False, False, None)
    assert slow.attempt.error == "no answer within 0 seconds"


async def test_no_subscription_leads_into_a_private_network(service: Receiver) -> None:
    browser = Browser(service, "private")
    for endpoint, networks in (
        (None, ()),
        ("http://localhost:9/", ()),
        ("https://10.0.0.1/", LOOPBACK),
        ("https://169.254.169.254/latest", ("169.254.0.0/16",)),
    ):
        outcome = await push(call_of(browser, endpoint), networks=networks)
        assert (outcome.delivered, outcome.final, outcome.attempt.status) == (False, True, None), endpoint
    assert service.heard["private"] == []


async def test_what_cannot_be_sent_is_said(service: Receiver) -> None:
    browser = Browser(service, "unsent")
    without = await push(call_of(browser), signer=None)
    assert (without.delivered, without.final) == (False, False), "somebody may set it"
    assert "WAYSTATION_VAPID_PRIVATE_KEY" in str(without.attempt.error)
    assert not (await push(call_of(browser, body="x" * 5_000))).delivered
    assert not (await push(call_of(browser, "http://127.0.0.1:9/"))).delivered
    assert service.heard["unsent"] == []


async def test_the_settings_are_checked() -> None:
    async with AsyncExitStack() as resources:
        await open_pushes(Settings(), resources)
        key = SecretStr("A" * 42)
        with pytest.raises(StartError, match="set together"):
            await open_pushes(Settings(vapid_private_key=key), resources)
        with pytest.raises(StartError, match="is no key"):
            await open_pushes(Settings(vapid_private_key=key, vapid_subject="mailto:a@b.example"), resources)
    for wrong in ({"vapid_public_key": "AAAA"}, {"vapid_subject": "somebody"}, {"push_networks": ("x",)}):
        with pytest.raises(ValidationError):
            Settings.model_validate(wrong)
