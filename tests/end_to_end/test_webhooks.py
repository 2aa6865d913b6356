"""Webhooks on real parts: who is told what, by whom, and that nothing but the receiver is needed for it."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response
from temporalio.client import WorkflowUpdateFailedError
from typer.testing import CliRunner

from tests.support import eventually
from tests.world.receiver import Receiver, running_breaking, running_receiver
from tests.world.stack import KEYS, Stack, running_stack
from tests.world.temporal import TemporalServer, running_temporal
from waystation.cli.main import app
from waystation.client import Client
from waystation.client.webhooks import Webhooks
from waystation.errors import ApiError
from waystation.models.webhooks import MAX_WEBHOOKS, CreatedWebhook, Subscription
from waystation.temporal.calls import update
from waystation.temporal.connect import open_client
from waystation.temporal.encryption import encrypting_data_converter, encryption_codec
from waystation.temporal.messages import WEBHOOKS_SUBSCRIBE
from waystation.temporal.names import SESSION_TASK_QUEUE, webhook_registry_id


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TemporalServer]:
    """Of its own: workers and API are killed here."""
    async with running_temporal(tmp_path_factory.mktemp("webhooks-temporal")) as server:
        yield server


@pytest.fixture(scope="module")
async def house(server: TemporalServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("webhooks"), server) as stack:
        yield stack


@pytest.fixture(scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
async def service(house: Stack) -> AsyncIterator[Client]:
    async with house.client() as client:
        yield client


@asynccontextmanager
async def webhook(
    service: Client, receiver: Receiver, path: str, *events: str, **more: Any
) -> AsyncIterator[CreatedWebhook]:
    webhooks = Webhooks(service)
    created = await webhooks.create(f"{receiver.url}/{path}", events=events or ["*"], **more)
    try:
        yield created
    finally:
        await deleted(webhooks, created.webhook.webhook_id)


NOT_FOUND = 404


async def deleted(webhooks: Webhooks, webhook_id: str) -> None:
    """Deletes it, however busy its worker is, or was when it was killed."""

    async def done() -> bool:
        try:
            await webhooks.delete(webhook_id)
        except ApiError as error:
            return error.status == NOT_FOUND  # an earlier try's answer was lost
        return True

    await eventually(done, what="the webhook is deleted")


def secret_of(created: CreatedWebhook) -> str:
    assert created.secret is not None
    assert created.secret not in repr(created)
    return created.secret


async def test_sessions_tell_what_happens(service: Client, house: Stack, receiver: Receiver) -> None:
    async with webhook(service, receiver, "all") as created:
        session = await service.start("demo")
        async with house.client("agent") as agent:
            asked = {"question_id": "t0:material", "prompt": "Which material, in secret?"}
            item = {"n": 1, "type": "input.requested", "data": asked}
            await agent.attach(session.id).write("docs", [item])
        async with house.client("operator") as operator:
            await operator.attach(session.id).take_over(reason="a private reason")
        await session.close()
        await receiver.hears("all", kind="session.closed")
        said = [one.checked(secret_of(created)) for one in receiver.heard["all"]]
    told = {one["type"]: one for one in said if one["data"].get("session_id") == session.id}
    assert {"input.requested", "takeover.started", "session.closed"} <= set(told)
    page = await session.replay()
    seqs = {event.type: event.seq for event in page.events}
    for kind, one in told.items():
        assert one["data"]["seq"] == seqs[kind]
        assert one["data"]["agent"] == "demo"
    assert told["input.requested"]["data"]["question_id"] == "t0:material"
    assert told["takeover.started"]["data"]["actor"]["role"] == "operator"
    assert "secret" not in str(said), "texts come with details only"
    assert "private" not in str(said)
    ids = [one.id for one in receiver.heard["all"]]
    assert len(ids) == len(set(ids))


async def test_a_turn_is_told_of_with_details_where_they_are_wanted(
    service: Client, receiver: Receiver
) -> None:
    async with (
        webhook(service, receiver, "details", "turn.*", details=True) as created,
        webhook(service, receiver, "thin", "turn.*"),
        webhook(service, receiver, "others", "purchase.*"),
    ):
        session = await service.start("demo", message="hello")
        [heard] = await receiver.hears("details", kind="turn.completed")
        [thin] = await receiver.hears("thin", kind="turn.completed")
    assert heard.checked(secret_of(created))["data"]["session_id"] == session.id
    assert heard.id == thin.id, "the same news has one id"
    assert b"details" not in thin.body
    assert receiver.heard["others"] == []
    await session.close()


@pytest.mark.thorough
async def test_the_worker_dies_and_nothing_is_lost(service: Client, house: Stack, receiver: Receiver) -> None:
    """The worker is killed while one message is under way, and more happens while there is none."""
    receiver.hanging["killed"] = asyncio.Event()
    async with webhook(service, receiver, "killed", "session.closed") as created:
        sessions = [await service.start("demo") for _ in range(4)]
        await sessions[0].close()
        await receiver.hears("killed")
        [worker] = [one for one in house.processes if one.log.name.startswith("worker") and not one.ended]
        for session in sessions[1:]:
            await house_close(service, session.id)
        worker.kill()
        receiver.hanging["killed"].set()
        house.run_worker(name=f"worker-{uuid.uuid4().hex[:6]}")

        def all_told() -> bool:
            said = [one.checked(secret_of(created)) for one in receiver.heard["killed"]]
            return {one["data"]["session_id"] for one in said} == {one.id for one in sessions}

        await eventually(all_told, within=60, what="everything is told")
    assert len({one.id for one in receiver.heard["killed"]}) == len(sessions), "a double has the same id"


async def house_close(service: Client, session_id: str) -> None:
    await service.attach(session_id).close()


@pytest.mark.thorough
async def test_the_api_is_not_needed_for_it(service: Client, house: Stack, receiver: Receiver) -> None:
    async with webhook(service, receiver, "no-api", "session.closed"):
        session = await service.start("demo")
        receiver.answers["no-api"].append(Response(status_code=500))
        await session.close()
        await receiver.hears("no-api")
        house.apis[house.ports[0]].kill()
        again = await receiver.hears("no-api", 2)
        assert again[0].id == again[1].id
        assert again[0].headers["webhook-timestamp"] <= again[1].headers["webhook-timestamp"]
        house.run_api(house.ports[0])
        await house.ready()


@pytest.mark.thorough
async def test_a_dead_receiver_slows_nobody_down(service: Client, receiver: Receiver) -> None:
    receiver.hanging["dead"] = asyncio.Event()
    async with webhook(service, receiver, "dead"), webhook(service, receiver, "alive", "session.closed"):
        sessions = [await service.start("demo") for _ in range(8)]
        await asyncio.gather(*(session.close() for session in sessions))
        await receiver.hears("alive", 8)
        receiver.hanging["dead"].set()


async def test_what_it_said_can_be_read_and_sent_again(service: Client, receiver: Receiver) -> None:
    webhooks = Webhooks(service)
    async with webhook(service, receiver, "log") as created:
        webhook_id = created.webhook.webhook_id
        test = await webhooks.test(webhook_id)
        await receiver.hears("log", kind="webhook.test")

        async def delivered() -> bool:
            return (await webhooks.delivery(webhook_id, test.delivery_id)).status == "delivered"

        await eventually(delivered, what="it is logged")
        found = await webhooks.delivery(webhook_id, test.delivery_id)
        assert [one.status for one in found.attempts] == [204]
        assert found.body is not None
        assert found.body.encode() == receiver.heard["log"][0].body
        listed = await webhooks.deliveries(webhook_id, status="delivered")
        assert test.delivery_id in [one.delivery_id for one in listed.deliveries]
        await webhooks.redeliver(webhook_id, test.delivery_id)
        first, second = await receiver.hears("log", 2, kind="webhook.test")
        assert (first.id, first.body) == (second.id, second.body)
        with pytest.raises(ApiError, match="no delivery"):
            await webhooks.redeliver(webhook_id, "msg_" + "0" * 32)


async def test_a_secret_is_shown_once_and_rotates_with_an_overlap(
    service: Client, receiver: Receiver
) -> None:
    webhooks = Webhooks(service)
    async with webhook(service, receiver, "rotates") as created:
        webhook_id, old = created.webhook.webhook_id, secret_of(created)
        new = secret_of(await webhooks.rotate(webhook_id, overlap_seconds=600))
        assert new != old
        await webhooks.test(webhook_id)
        [heard] = await receiver.hears("rotates", kind="webhook.test")
        assert heard.checked(old) == heard.checked(new)
        view = await webhooks.webhook(webhook_id)
        assert view.old_secrets_end is not None
        newest = secret_of(await webhooks.rotate(webhook_id, overlap_seconds=0))
        await webhooks.test(webhook_id)
        heard = (await receiver.hears("rotates", 2, kind="webhook.test"))[1]
        assert heard.checked(newest)
        for earlier in (old, new):
            with pytest.raises(Exception, match="No matching signature"):
                heard.checked(earlier)
        shown = await service.http.get(f"{service.url}/webhooks/{webhook_id}", headers=service.headers)
        assert "whsec" not in shown.text


async def test_creating_again_is_harmless_and_shows_no_secret(service: Client, receiver: Receiver) -> None:
    webhooks, webhook_id = Webhooks(service), f"webhook-{uuid.uuid4()}"
    async with webhook(service, receiver, "twice", "turn.*", webhook_id=webhook_id):
        again = await webhooks.create(f"{receiver.url}/twice", events=["turn.*"], webhook_id=webhook_id)
        assert again.secret is None
        assert again.webhook.webhook_id == webhook_id
        with pytest.raises(ApiError, match="other settings"):
            await webhooks.create(f"{receiver.url}/other", events=["turn.*"], webhook_id=webhook_id)
        assert webhook_id in [one.webhook_id for one in (await webhooks.list()).webhooks]
    with pytest.raises(ApiError, match="was deleted"):
        await webhooks.create(f"{receiver.url}/twice", events=["turn.*"], webhook_id=webhook_id)
    with pytest.raises(ApiError, match="no webhook"):
        await webhooks.webhook(webhook_id)
    session = await service.start("demo")
    with pytest.raises(ApiError, match="names something else"):
        await webhooks.create(f"{receiver.url}/twice", events=["*"], webhook_id=session.id)
    with pytest.raises(ApiError, match="no webhook"):
        await webhooks.change(session.id, enabled=False)
    await session.close()


@pytest.mark.thorough
async def test_one_too_many_is_none_and_its_id_is_free(
    service: Client, house: Stack, receiver: Receiver
) -> None:
    webhooks, webhook_id = Webhooks(service), f"webhook-{uuid.uuid4()}"
    async with webhook(service, receiver, "known", "turn.*"):  # so that there is a registry
        converter = encrypting_data_converter(encryption_codec([house.encryption_key]))
        temporal = await open_client(house.temporal.address, data_converter=converter)
        registry = temporal.get_workflow_handle(webhook_registry_id(SESSION_TASK_QUEUE))

        async def say(**known: Any) -> None:
            for number in range(MAX_WEBHOOKS):
                one = Subscription(webhook_id=f"many-{number}", events=("turn.*",), details=False, **known)
                await update(registry, WEBHOOKS_SUBSCRIBE, one)

        with pytest.raises(WorkflowUpdateFailedError):
            await say(enabled=False, revision=1)
        for _ in range(2):
            with pytest.raises(ApiError) as refused:
                await webhooks.create(f"{receiver.url}/late", events=["turn.*"], webhook_id=webhook_id)
            assert refused.value.code == "too-many-webhooks"
        for call in (webhooks.webhook, webhooks.test, webhooks.delete):
            with pytest.raises(ApiError) as unknown:
                await call(webhook_id)
            assert unknown.value.code == "unknown-webhook"
        await say(enabled=False, deleted=True, revision=2)
        async with webhook(service, receiver, "late", "turn.*", webhook_id=webhook_id) as created:
            await webhooks.test(webhook_id)
            [heard] = await receiver.hears("late")
            heard.checked(secret_of(created))


@pytest.mark.thorough
async def test_a_receiver_that_is_killed_in_mid_request_hears_it_again(service: Client) -> None:
    webhooks = Webhooks(service)
    async with running_breaking() as breaking:
        breaking.breaks = ["reset"]
        created = await webhooks.create(breaking.url, events=["session.closed"])
        webhook_id = created.webhook.webhook_id
        test = await webhooks.test(webhook_id)

        async def delivered() -> bool:
            return (await webhooks.delivery(webhook_id, test.delivery_id)).status == "delivered"

        await eventually(delivered, within=60, what="it is delivered after all")
        attempts = (await webhooks.delivery(webhook_id, test.delivery_id)).attempts
        assert [one.status for one in attempts] == [None, 204]
        assert attempts[0].error == "the connection ended without a whole answer (ReadError)"
        first, second = breaking.heard
        assert first == second
        await deleted(webhooks, webhook_id)


async def test_one_that_is_disabled_hears_nothing(service: Client, house: Stack, receiver: Receiver) -> None:
    webhooks = Webhooks(service)
    async with webhook(service, receiver, "off", "session.closed") as created:
        webhook_id = created.webhook.webhook_id
        url, headers = f"{house.url}/webhooks/{webhook_id}", {"authorization": f"Bearer {KEYS['service']}"}
        for given in ({"enabled": "no"}, {"details": 1}):
            refused = await service.http.patch(url, json=given, headers=headers)
            assert refused.status_code == 422
            assert "should be a valid boolean" in refused.text
        off = await webhooks.change(webhook_id, enabled=False, description="off for now")
        assert (off.status, off.description) == ("disabled", "off for now")
        with pytest.raises(ApiError, match="enable it first"):
            await webhooks.test(webhook_id)
        unheard = await service.start("demo")
        await unheard.close()
        await webhooks.change(webhook_id, enabled=True)
        heard = await service.start("demo")
        await heard.close()
        [only] = await receiver.hears("off", kind="session.closed")
        assert only.checked(secret_of(created))["data"]["session_id"] == heard.id


ROUTES = [
    ("POST", "/webhooks"),
    ("GET", "/webhooks"),
    ("GET", "/webhooks/w"),
    ("PATCH", "/webhooks/w"),
    ("DELETE", "/webhooks/w"),
    ("POST", "/webhooks/w/secret"),
    ("POST", "/webhooks/w/test"),
    ("GET", "/webhooks/w/deliveries"),
    ("GET", f"/webhooks/w/deliveries/msg_{'0' * 32}"),
    ("POST", f"/webhooks/w/deliveries/msg_{'0' * 32}/redeliver"),
]
BODIES = {
    ("POST", "/webhooks"): {"url": "https://receiver.example/", "events": ["*"]},
    ("PATCH", "/webhooks/w"): {},
    ("POST", "/webhooks/w/secret"): {},
}


@pytest.mark.parametrize("role", ["client", "agent", "approver", "operator of one session", "nobody"])
async def test_only_services_and_operators_manage_webhooks(service: Client, house: Stack, role: str) -> None:
    if role == "operator of one session":
        wanted = {"role": "operator", "sessions": ["s"], "subject": "olga"}
        answer = await service.http.post(f"{service.url}/tokens", json=wanted, headers=service.headers)
        key = answer.json()["token"]
    else:
        key = KEYS.get(role, "ws_of_nobody")
    for method, path in ROUTES:
        answer = await service.http.request(
            method,
            service.url + path,
            json=BODIES.get((method, path)),
            headers={"Authorization": f"Bearer {key}"},
        )
        assert answer.status_code == (401 if role == "nobody" else 403), (method, path, answer.text)


async def test_operators_may(house: Stack, receiver: Receiver) -> None:
    async with (
        house.client("operator") as operator,
        webhook(operator, receiver, "operator", "session.closed") as created,
    ):
        assert created.webhook.status == "enabled"


async def test_the_commands(
    service: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WAYSTATION_URL", service.url)
    monkeypatch.setenv("WAYSTATION_API_KEY", KEYS["service"])
    webhook_id = f"webhook-{uuid.uuid4()}"

    async def waystation(*arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, app, ["webhooks", *arguments])
        assert result.exit_code == 0, (arguments, result.output, result.exception)
        return result.output

    made = await waystation("create", f"{receiver.url}/cli", "--event", "turn.*", "--id", webhook_id)
    assert CreatedWebhook.model_validate_json(made).secret
    assert webhook_id in await waystation("list")
    assert '"enabled"' in await waystation("show", webhook_id)
    assert "for the pager" in await waystation("change", webhook_id, "--description", "for the pager")
    assert "whsec_" in await waystation("rotate", webhook_id)
    test = await waystation("test", webhook_id)
    [heard] = await receiver.hears("cli", kind="webhook.test")
    assert heard.id in test
    listed = ""
    while "delivered" not in listed:
        listed = await waystation("deliveries", webhook_id)
    assert heard.id in listed
    await waystation("redeliver", webhook_id, heard.id)
    await receiver.hears("cli", 2, kind="webhook.test")
    assert '"deleted"' in await waystation("delete", webhook_id)


async def test_no_secret_is_in_a_log_or_a_history(service: Client, house: Stack, receiver: Receiver) -> None:
    async with webhook(service, receiver, "sealed") as created:
        secret = secret_of(created)
        await Webhooks(service).test(created.webhook.webhook_id)
        await receiver.hears("sealed", kind="webhook.test")
        converter = encrypting_data_converter(encryption_codec([house.encryption_key]))
        temporal = await open_client(house.temporal.address, data_converter=converter)
        handle = temporal.get_workflow_handle(created.webhook.webhook_id)
        history = await handle.fetch_history()
        codec = encryption_codec([house.encryption_key])
        assert codec is not None
        opened = b""
        for event in history.events:
            for payload in payloads_of(event):
                for decoded in await codec.decode([payload]):
                    opened += decoded.data
    assert created.webhook.webhook_id.encode() in opened, "the history was read"
    core = secret.removeprefix("whsec_").rstrip("=")
    assert core.encode() not in opened
    assert core not in house.logs()


def payloads_of(message: Any) -> list[Any]:
    """Every payload within a message of Temporal's, however deep."""
    from temporalio.api.common.v1 import Payload

    if isinstance(message, Payload):
        return [message]
    found = []
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        if field.message_type.GetOptions().map_entry:
            values = value.values() if hasattr(value, "values") else []
        else:
            values = value if hasattr(value, "__len__") and not hasattr(value, "ListFields") else [value]
        for one in values:
            if hasattr(one, "ListFields"):
                found += payloads_of(one)
    return found
