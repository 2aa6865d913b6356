"""Web Push on real parts: who is told what, once, and what a push service's answers do."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.responses import Response
from temporalio.client import Client as Temporal
from temporalio.contrib.pydantic import pydantic_data_converter

from api.gateways.push import PushGateway
from api.gateways.visible import NotFound
from tests.api.routes.test_attention import staff_token
from tests.api.routes.test_sessions import bearer, token_for
from tests.support import eventually
from tests.world.browser import Browser
from tests.world.keys import VAPID
from tests.world.receiver import Receiver, running_receiver
from tests.world.stack import KEYS, Stack
from waystation.client import Client
from waystation.models.push import MAX_BROWSERS, PushPerson


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.url, headers=bearer(KEYS["service"]), timeout=20) as http:
        yield http


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Receiver]:
    """The push service of all browsers here."""
    async with running_receiver() as receiver:
        yield receiver


class Person:
    """Somebody with a token, and a browser."""

    def __init__(self, http: httpx.AsyncClient, token: str, service: Receiver, name: str) -> None:
        self._http, self._headers = http, bearer(token)
        self.browser = Browser(service, f"{name}-{uuid.uuid4().hex[:8]}")

    async def view(self) -> dict[str, Any]:
        return dict((await self._http.get("/push", headers=self._headers)).json())

    async def put(self, subscription: dict[str, Any] | None = None) -> httpx.Response:
        body = self.browser.subscription if subscription is None else subscription
        return await self._http.put("/push/subscriptions", json=body, headers=self._headers)

    async def subscribe(self) -> str:
        answer = await self.put()
        assert answer.status_code == 200, answer.text
        [one] = [one for one in answer.json()["subscriptions"] if one["service"] == "127.0.0.1"][-1:]
        return str(one["subscription_id"])

    async def unsubscribe(self, subscription_id: str) -> dict[str, Any]:
        answer = await self._http.delete(f"/push/subscriptions/{subscription_id}", headers=self._headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


def question(question_id: str, **more: Any) -> dict[str, Any]:
    return {"question_id": question_id, "prompt": f"Which {question_id}?", **more}


async def test_people_are_told_once_of_what_waits_for_them_and_nobody_else(
    stack: Stack, http: httpx.AsyncClient, client: Client, service: Receiver
) -> None:
    session, other = await client.start("demo"), await client.start("demo")
    token = await token_for(http, session.id)
    ada = Person(http, token, service, "ada")
    eve = Person(http, await token_for(http, other.id), service, "eve")
    olga = Person(http, await staff_token(http, "operator", f"olga-{session.id}"), service, "olga")
    assert await ada.view() == {"public_key": VAPID.public_key, "subscriptions": [], "deliveries": []}
    await ask(stack, session.id, question("before"))
    ids = [await one.subscribe() for one in (ada, eve, olga)]
    assert ids[0] == await ada.subscribe(), "the same browser again is the same subscription"

    await ask(stack, session.id, question("size", expires_in_seconds=3600))
    [told] = await ada.browser.hears(1)
    mine = (await http.get("/attention", headers=bearer(token))).json()["items"]
    assert told == next(item for item in mine if item["id"] == "size")
    [heard] = service.heard[ada.browser.name]
    assert heard.headers["urgency"] == "high"
    assert 3_500 < int(heard.headers["ttl"]) <= 3_600, "nobody needs it after its deadline"
    assert len(heard.headers["topic"]) == 32
    [hers] = await olga.browser.hears(1)
    assert hers["id"] == "size", "what waited before isn't told"

    def delivered(view: dict[str, Any]) -> list[str]:
        return [one["id"] for one in view["deliveries"] if one["status"] == "delivered"]

    await eventually(lambda: _holds(ada, lambda view: delivered(view) == ["size"]))
    await session.answer("size", "42")
    assert (await ada.unsubscribe(ids[0]))["subscriptions"] == []
    await ask(stack, session.id, question("colour"))
    await ask(stack, other.id, question("shape"))
    assert [one["id"] for one in await eve.browser.hears(1)] == ["shape"]
    assert {one["id"] for one in await olga.browser.hears(3)} == {"size", "colour", "shape"}
    assert [one["id"] for one in ada.browser.pushed] == ["size"], "a browser that is gone is told nothing"
    for one, subscription_id in ((eve, ids[1]), (olga, ids[2])):
        await one.unsubscribe(subscription_id)


async def ask(stack: Stack, session_id: str, asked: dict[str, Any]) -> None:
    item = {"n": 1, "type": "input.requested", "data": asked}
    async with stack.client("agent") as agents:
        await agents.attach(session_id).write(f"asker-{uuid.uuid4().hex[:8]}", [item])


async def _holds(person: Person, holds: Any) -> bool:
    return bool(holds(await person.view()))


async def test_what_a_push_service_answers(
    stack: Stack, http: httpx.AsyncClient, client: Client, service: Receiver
) -> None:
    """It is away and comes back, it is away until the question is answered, it has forgotten the browser."""
    session = await client.start("demo")
    ada = Person(http, await token_for(http, session.id), service, "answers")
    await ada.subscribe()
    answers = service.answers[ada.browser.name]
    answers.append(Response(status_code=503))
    await ask(stack, session.id, question("again"))
    first, second = await ada.browser.hears(2)
    assert first == second
    one, two = service.heard[ada.browser.name]
    assert one.headers["topic"] == two.headers["topic"], "the later one takes the earlier one's place"

    answers.append(Response(status_code=429, headers={"retry-after": "120"}))
    await ask(stack, session.id, question("settled"))
    await ada.browser.hears(3)

    def waits(view: dict[str, Any]) -> bool:
        return any(one["id"] == "settled" and one["status"] == "waiting" for one in view["deliveries"])

    await eventually(lambda: _holds(ada, waits))
    await session.answer("settled", "yes")
    await eventually(lambda: _holds(ada, lambda view: not waits(view)), what="it needn't be told any more")

    answers.append(Response(status_code=410))
    await ask(stack, session.id, question("gone"))
    await ada.browser.hears(4)
    await eventually(lambda: _holds(ada, lambda view: view["subscriptions"] == []))


async def test_subscriptions_are_checked_and_counted(
    stack: Stack, http: httpx.AsyncClient, client: Client, service: Receiver
) -> None:
    session = await client.start("demo")
    ada = Person(http, await token_for(http, session.id), service, "checked")
    good = ada.browser.subscription
    off_curve = "B" + "A" * 85 + "E"
    wrong = [
        {**good, "endpoint": "http://push.example/x"},
        {**good, "endpoint": "https://user:secret@push.example/x"},
        {**good, "endpoint": "https://push.example/" + "x" * 2_000},
        {**good, "endpoint": "file:///etc/passwd"},
        {**good, "keys": {**good["keys"], "auth": "short"}},
        {**good, "keys": {**good["keys"], "p256dh": good["keys"]["p256dh"][:-2]}},
        {**good, "keys": {**good["keys"], "p256dh": off_curve}},
        {**good, "more": 1},
        {},
    ]
    answers = await asyncio.gather(*(ada.put(one) for one in wrong))
    assert {one.status_code for one in answers} == {422}
    assert {one.json()["code"] for one in answers} == {"invalid"}
    assert not any("secret" in one.text for one in answers)
    assert await ada.unsubscribe("push_" + "0" * 32) == {
        "public_key": VAPID.public_key,
        "subscriptions": [],
        "deliveries": [],
    }
    for key in ("service", "agent"):
        refused = await http.put("/push/subscriptions", json=good, headers=bearer(KEYS[key]))
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert (await http.get("/push", headers=bearer(KEYS[key]))).status_code == 403
    many = [{**good, "endpoint": f"{good['endpoint']}/{n}"} for n in range(MAX_BROWSERS + 1)]
    await ada.put(many[0])
    answers = await asyncio.gather(*(ada.put(one) for one in many[1:]))
    assert sorted(one.status_code for one in answers) == [200] * (MAX_BROWSERS - 1) + [409]
    [last] = [one for one in answers if one.status_code == 409]
    assert last.json()["code"] == "too-many-subscriptions"
    # Whoever has something to say learns at once that nobody is there any more.
    for one in (await ada.view())["subscriptions"]:
        await ada.unsubscribe(one["subscription_id"])
    temporal = await Temporal.connect(stack.temporal.address, data_converter=pydantic_data_converter)
    person = PushPerson(subject="ada", role="client", sessions=(session.id,), by_key=False)
    with pytest.raises(NotFound) as nobody:
        await PushGateway(temporal, 10.0).tell(person, ())
    assert nobody.value.code == "unknown-subscription"
