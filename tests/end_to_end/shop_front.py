"""A whole Waystation beside the sandbox, and the people and agents in front of it."""

import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tests.stack import COMMAND, KEYS, Stack
from tests.support import START_SECONDS, Process, TemporalServer, eventually, free_port
from waystation.client import Client, Session
from waystation.client.payments import Payments
from waystation.client.purchases import Buying
from waystation.dev.sandbox import Sandbox
from waystation.models.events import Event

AGENTS = ("waystation.agents.shopper:agent", "tests.end_to_end.liar:agent")
PERSON = "test-approver"
"""Whose key the tests approve with."""


class MoneyStack(Stack):
    """Temporal, worker, API and agents as in ``Stack``, and the sandbox's three servers."""

    sandbox: Sandbox

    def _run(self, name: str, *command: str, port: int, role: str = "agent") -> Process:
        log = self.folder / f"{name}.log"
        extra = {
            "worker": self.sandbox.worker_environment,
            "agent": self.sandbox.agent_environment,
        }.get(command[0], self.sandbox.api_environment)()
        process = Process(*COMMAND, *command, log=log, env={**self.env(port, role), **extra})
        self.processes.append(process)
        return process

    def run_sandbox(self) -> None:
        for name, (command, env) in self.sandbox.commands().items():
            self.processes.append(Process(*command, log=self.folder / f"{name}.log", env=env))

    async def until_ready(self) -> None:
        await self.ready()
        async with httpx.AsyncClient() as http:

            async def answers(url: str) -> bool:
                try:
                    return (await http.get(url)).is_success
                except httpx.TransportError:
                    return False

            for url in self.sandbox.health_urls():
                await eventually(partial(answers, url), within=START_SECONDS, what=f"{url}\n{self.logs()}")

    # What the sandbox has seen

    async def ask(self, part: str, path: str) -> Any:
        async with httpx.AsyncClient() as http:
            return (await http.get(self.sandbox.url(part) + path)).json()

    async def behave(self, **behaviour: Any) -> None:
        async with httpx.AsyncClient() as http:
            url = f"{self.sandbox.url('shop')}/sandbox/behaviour"
            (await http.post(url, json=behaviour)).raise_for_status()

    async def entries(self, kind: str = "charge") -> list[dict[str, Any]]:
        ledger = await self.ask("processor", "/sandbox/ledger")
        return [entry for entry in ledger["entries"] if entry["kind"] == kind]

    # People and agents

    @asynccontextmanager
    async def buying(self, role: str = "approver") -> AsyncIterator[Buying]:
        async with self.client(role) as client:
            yield Buying(client)

    @asynccontextmanager
    async def payments(self, role: str = "approver") -> AsyncIterator[Payments]:
        async with self.client(role) as client:
            yield Payments(client)

    async def call(self, role: str, method: str, path: str, body: Any = None) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as http:
            headers = {"Authorization": f"Bearer {KEYS[role]}"}
            return await http.request(method, path, json=body, headers=headers)

    async def mandate(self, agent: str = "shopper", **changes: Any) -> str:
        terms = {
            "owner": PERSON,
            "agent": agent,
            "cap": {"amount": 100_000, "currency": "usd"},
            "valid_until": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
            "sellers": [self.sandbox.url("shop"), self.sandbox.url("paid-api")],
            "payment_methods": ["pm_card_visa"],
            **changes,
        }
        answer = await self.call("approver", "POST", "/mandates", {"terms": terms})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["mandate_id"])


async def start_money_stack(
    folder: Path, temporal: TemporalServer, agents: tuple[str, ...] = AGENTS
) -> MoneyStack:
    stack = MoneyStack(folder, temporal)
    port = free_port()
    stack.sandbox = Sandbox(folder, f"http://127.0.0.1:{port}")
    try:
        stack.run_api(port)
        stack.run_worker()
        stack.run_agent(*agents)
        stack.run_sandbox()
        await stack.until_ready()
    except BaseException:
        stack.stop()
        raise
    return stack


class Talk:
    """A session with an agent, as its readers see it."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @classmethod
    async def begin(cls, client: Client, agent: str) -> "Talk":
        return cls(await client.start(agent, session_id=f"s-{uuid.uuid4().hex}"))

    async def ask(self, text: str = "Please.", **data: Any) -> str:
        sent = await self.session.send(text, data=data)
        assert sent.turn_id
        return sent.turn_id

    async def events(self) -> list[Event]:
        return list((await self.session.replay()).events)

    async def until(self, type_: str, match: Callable[[Event], bool] = lambda event: True) -> Event:
        async def found() -> Event | None:
            return next((one for one in await self.events() if one.type == type_ and match(one)), None)

        seen: Event = await eventually(found, within=40, what=f"{type_} in the session")
        return seen


def wire(value: Any) -> str:
    return json.dumps(value, default=str)
