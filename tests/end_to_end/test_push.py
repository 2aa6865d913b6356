"""Web Push where processes die: what begins to wait meanwhile is told once, however many say it."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from temporalio.client import Client as Temporal
from temporalio.contrib.pydantic import pydantic_data_converter

from tests.support import eventually, free_port
from tests.world.browser import Browser
from tests.world.receiver import Receiver, running_receiver
from tests.world.stack import KEYS, Stack, running_stack
from tests.world.temporal import running_temporal
from waystation.models.events import Actor, Item, Publish, Role, Write
from waystation.temporal.calls import tell
from waystation.temporal.messages import SESSION_PUBLISH


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """On a Temporal of its own: worker and API are killed here."""
    async with running_temporal(tmp_path_factory.mktemp("push-temporal")) as server:
        folder = tmp_path_factory.mktemp("push")
        async with running_stack(folder, server, idle_poll_seconds="1") as stack:
            yield stack


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


async def ask(house: Stack, session_id: str, name: str, port: int | None = None) -> None:
    item = {"n": 1, "type": "input.requested", "data": {"question_id": name, "prompt": f"Which {name}?"}}
    async with house.client("agent", port) as agents:
        await agents.attach(session_id).write(f"asker-{uuid.uuid4().hex[:8]}", [item])


@pytest.mark.thorough
async def test_processes_die_and_each_thing_is_told_once(house: Stack, service: Receiver) -> None:
    browser, port = Browser(service, "olga"), house.ports[0]
    headers = {"Authorization": f"Bearer {KEYS['operator']}"}
    async with house.client() as client, httpx.AsyncClient(base_url=house.url, headers=headers) as http:
        session = await client.start("demo")
        answer = await http.put("/push/subscriptions", json=browser.subscription)
        assert answer.status_code == 200, answer.text

        # The worker dies while a push is under way.
        service.hanging[browser.name] = asyncio.Event()
        await ask(house, session.id, "first")
        await browser.hears(1)
        [worker] = [one for one in house.processes if one.log.name.startswith("worker")]
        worker.kill()
        service.hanging.pop(browser.name).set()
        house.run_worker(name="worker-2")
        await browser.hears(2)
        one, two = service.heard[browser.name]
        assert one.headers["topic"] == two.headers["topic"], "a double takes the first one's place"

        # What begins to wait while no API process runs is told by one that begins.
        house.apis[port].kill()
    temporal = await Temporal.connect(house.temporal.address, data_converter=pydantic_data_converter)
    asked = Item(n=1, type="input.requested", data={"question_id": "second", "prompt": "Which?"})
    writer = Write(writer="alone", actor=Actor(id="demo", role=Role.AGENT), items=(asked,))
    await tell(temporal.get_workflow_handle(session.id), SESSION_PUBLISH, Publish(writes=(writer,)))
    other = free_port()
    house.run_api(other)
    await house.ready(other)
    await _told(browser, "first", "first", "second")

    # Two say it.
    house.run_api(port)
    await house.ready(port)
    await ask(house, session.id, "third", other)
    await ask(house, session.id, "fourth", port)
    await _told(browser, "first", "first", "second", "third", "fourth")
    async with httpx.AsyncClient(base_url=house.url, headers=headers) as http:

        async def view() -> Any:
            return (await http.get("/push")).json()

        async def all_delivered() -> bool:
            return [one["status"] for one in (await view())["deliveries"]] == ["delivered"] * 4

        await eventually(all_delivered)
        # Whatever would be told twice was said by both before the subscription ends.
        [subscription] = (await view())["subscriptions"]
        await http.delete(f"/push/subscriptions/{subscription['subscription_id']}")
    assert len(browser.pushed) == 5


async def _told(browser: Browser, *names: str) -> None:
    def told() -> bool:
        return sorted(one["id"] for one in browser.pushed) == sorted(names)

    await eventually(told, within=60, what=f"{names} are told: {browser.pushed}")
