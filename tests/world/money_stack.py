"""A whole Waystation beside the sandbox, and the people in front of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tests.support import START_SECONDS, eventually, free_port
from tests.world.sandbox import dev_sandbox
from tests.world.stack import KEYS, Part, Stack
from tests.world.temporal import TemporalServer
from waystation.client.payments import Payments
from waystation.client.purchases import Buying
from waystation.dev.sandbox import Sandbox

PERSON = "test-approver"
"""Whose key the tests approve with."""


class MoneyStack(Stack):
    """Worker, API and agents as in ``Stack``, and the sandbox's three servers."""

    def __init__(self, folder: Path, temporal: TemporalServer, **settings: Any) -> None:
        super().__init__(folder, temporal, **settings)
        self.port = free_port()
        self.sandbox = Sandbox(folder, f"http://127.0.0.1:{self.port}")

    def more_env(self, part: Part) -> dict[str, str]:
        match part:
            case "api":
                return self.sandbox.api_environment()
            case "worker":
                return self.sandbox.worker_environment()
            case "agent":
                return self.sandbox.agent_environment()

    def run_sandbox(self) -> None:
        for process in dev_sandbox(self.sandbox, self.folder):
            self._run(process)

    async def ready(self, port: int | None = None) -> None:
        """Waits until an API and the sandbox serve."""
        await super().ready(port)
        async with httpx.AsyncClient(verify=False, trust_env=False) as http:

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


@asynccontextmanager
async def running_money_stack(
    folder: Path, temporal: TemporalServer, *agents: str, **settings: Any
) -> AsyncIterator[MoneyStack]:
    """Starts a stack and its sandbox, yields them once both serve, and kills them."""
    with MoneyStack(folder, temporal, **settings) as stack:
        stack.run_api(stack.port)
        stack.run_worker()
        stack.run_agent(*agents)
        stack.run_sandbox()
        await stack.ready()
        yield stack
