"""One attempt at a delivery, at receivers that are slow, wrong, elsewhere or hostile."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest
from starlette.responses import RedirectResponse, Response
from temporalio.testing import ActivityEnvironment

import activities.posting
from activities.contract import SecretCall, WebhookCall, WebhookOutcome
from activities.posting import MAX_ANSWER_BYTES
from activities.webhooks import WebhookDeliveries
from tests.world.keys import VAULT
from tests.world.receiver import Heard, Receiver, endless, running_breaking, running_receiver
from waystation.buyer.networks import checked_client, read_networks
from waystation.temporal.one_reader import NotForUsError, OneReader
from waystation.temporal.sealing import Vault

LOOPBACK = ("127.0.0.0/8", "::1/128")
ENVIRONMENT = ActivityEnvironment()
ID = "msg_" + "0" * 32


@pytest.fixture(scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


async def made(vault: Vault = VAULT) -> tuple[str, str]:
    """A secret as its owner sees it, and sealed."""
    async with httpx.AsyncClient() as http:
        reader = OneReader()
        call = SecretCall(recipient=reader.recipient)
        new = await ENVIRONMENT.run(WebhookDeliveries(http, vault).make_webhook_secret, call)
    assert new.made.box is not None
    return reader.open(new.made.box), new.sealed


async def deliver(url: str, *sealed: str, networks: Sequence[str] = LOOPBACK) -> WebhookOutcome:
    async with checked_client(read_networks(networks), setting="WAYSTATION_WEBHOOK_NETWORKS") as http:
        call = WebhookCall(url=url, delivery_id=ID, body='{"type":"webhook.test","x":"ü"}', secrets=sealed)
        return await ENVIRONMENT.run(WebhookDeliveries(http, VAULT).deliver_webhook, call)


async def test_it_is_signed_as_the_reference_library_checks(receiver: Receiver) -> None:
    secret, sealed = await made()
    outcome = await deliver(f"{receiver.url}/signed", sealed)
    assert (outcome.delivered, outcome.attempt.status, outcome.attempt.error) == (True, 204, None)
    [heard] = receiver.heard["signed"]
    assert heard.checked(secret) == {"type": "webhook.test", "x": "ü"}
    assert heard.id == ID
    assert heard.headers["content-type"] == "application/json"
    changed = Heard(heard.headers, heard.body.replace(b"test", b"tost"))
    with pytest.raises(Exception, match="No matching signature"):
        changed.checked(secret)


async def test_every_secret_signs(receiver: Receiver) -> None:
    (new, sealed_new), (old, sealed_old), (other, _) = await made(), await made(), await made()
    await deliver(f"{receiver.url}/both", sealed_new, sealed_old)
    [heard] = receiver.heard["both"]
    assert heard.checked(new) == heard.checked(old)
    with pytest.raises(Exception, match="No matching signature"):
        heard.checked(other)


async def test_a_secret_is_made_out_to_one_reader() -> None:
    secret, sealed = await made()
    assert secret.startswith("whsec_")
    assert secret not in sealed
    async with httpx.AsyncClient() as http:
        call = SecretCall(recipient=OneReader().recipient)
        new = await ENVIRONMENT.run(WebhookDeliveries(http, VAULT).make_webhook_secret, call)
    assert new.made.box is not None
    with pytest.raises(NotForUsError):
        OneReader().open(new.made.box)
    assert new.made.box not in repr(new)
    assert new.sealed not in repr(new)


async def test_without_a_key_no_secret_is_made() -> None:
    with pytest.raises(Exception, match="set WAYSTATION_TOKEN_KEYS"):
        await made(Vault())


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (Response(status_code=500), 500, "answered with 500"),
        (Response(status_code=404), 404, "answered with 404"),
        (RedirectResponse("/elsewhere"), 307, "redirects are not followed"),
        (RedirectResponse("http://169.254.169.254/"), 307, "redirects are not followed"),
        (Response(status_code=302, headers={"location": "http://[:"}), 302, "redirects are not followed"),
    ],
    ids=["500", "404", "redirect", "redirect to the metadata", "redirect to nowhere"],
)
async def test_a_wrong_answer_is_a_failed_attempt(
    receiver: Receiver, answer: Response, status: int, error: str
) -> None:
    path = f"wrong-{id(answer)}"
    receiver.answers[path].append(answer)
    outcome = await deliver(f"{receiver.url}/{path}", (await made())[1])
    assert not outcome.delivered
    assert outcome.attempt.status == status
    assert error in (outcome.attempt.error or "")
    assert len(receiver.heard[path]) == 1
    assert receiver.heard["elsewhere"] == []


async def test_a_receiver_may_ask_for_time_or_for_no_more(receiver: Receiver) -> None:
    receiver.answers["busy"] += [
        Response(status_code=503, headers={"retry-after": "7"}),
        Response(status_code=410),
    ]
    _, sealed = await made()
    outcome = await deliver(f"{receiver.url}/busy", sealed)
    assert outcome.retry_after is not None
    assert (outcome.retry_after.total_seconds(), outcome.gone) == (7, False)
    assert (await deliver(f"{receiver.url}/busy", sealed)).gone


async def test_an_answer_is_read_to_a_bound(receiver: Receiver) -> None:
    receiver.answers["endless"].append(endless())
    began = time.monotonic()
    outcome = await deliver(f"{receiver.url}/endless", (await made())[1])
    assert outcome.delivered, "its status says so"
    assert time.monotonic() - began < activities.posting.POST_TIMEOUT_SECONDS
    assert MAX_ANSWER_BYTES < 1_000_000


async def test_a_receiver_that_hangs_is_given_up(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activities.posting, "POST_TIMEOUT_SECONDS", 0.3)
    receiver.hanging["hangs"] = asyncio.Event()
    outcome = await deliver(f"{receiver.url}/hangs", (await made())[1])
    assert not outcome.delivered
    assert "no answer within" in (outcome.attempt.error or "")


async def test_a_receiver_that_is_down_is_a_failed_attempt() -> None:
    outcome = await deliver("http://127.0.0.1:9/", (await made())[1])
    assert (outcome.delivered, outcome.attempt.status) == (False, None)
    assert outcome.attempt.error == "no answer (ConnectError)"


async def test_a_receiver_that_is_killed_in_mid_request_is_a_failed_attempt() -> None:
    """It may have taken what was sent; nobody knows, so it is sent again, under the same id."""
    _, sealed = await made()
    async with running_breaking() as breaking:
        breaking.breaks = ["reset", "closed", "cut"]
        for error in ("ReadError", "RemoteProtocolError", "RemoteProtocolError"):
            outcome = await deliver(breaking.url, sealed)
            assert (outcome.delivered, outcome.gone, outcome.attempt.status) == (False, False, None)
            assert outcome.attempt.error == f"the connection ended without a whole answer ({error})"
        assert (await deliver(breaking.url, sealed)).delivered
        assert len(breaking.heard) == 4
        assert len(set(breaking.heard)) == 1


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "0.0.0.0",
        "[::]",
        "2130706433",
        "0x7f.1",
        "10.0.0.1",
        "[fd00::1]",
        "169.254.169.254",
        "[fd00:ec2::254]",
    ],
)
async def test_private_networks_are_closed_unless_a_setting_opens_them(receiver: Receiver, host: str) -> None:
    port = httpx.URL(receiver.url).port
    before = sum(map(len, receiver.heard.values()))
    outcome = await deliver(f"http://{host}:{port}/ssrf", (await made())[1], networks=())
    assert not outcome.delivered
    assert outcome.attempt.status is None
    assert sum(map(len, receiver.heard.values())) == before
    error = outcome.attempt.error or ""
    assert "is in a private network" in error or "is where a cloud answers" in error


async def test_a_name_that_leads_to_loopback_is_closed_too(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a name resolved to when the webhook was made: the address that is connected to counts."""
    loop = asyncio.get_running_loop()
    asked: list[str] = []

    async def rebound(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(loop, "getaddrinfo", rebound)
    url = f"http://receiver.example:{httpx.URL(receiver.url).port}/rebound"
    outcome = await deliver(url, (await made())[1], networks=())
    assert asked == ["receiver.example"]
    assert "name it in WAYSTATION_WEBHOOK_NETWORKS" in (outcome.attempt.error or "")
    assert receiver.heard["rebound"] == []


async def test_a_secret_of_another_webhook_signs_nothing() -> None:
    foreign = VAULT.seal("whsec_AAAA", workflow_id="another")
    with pytest.raises(Exception, match="belongs to another workflow"):
        await deliver("http://127.0.0.1:9/", foreign)
