"""A whole Waystation of real processes, for tests that kill parts of it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from tests.support import free_port
from tests.world.agent import AgentProcess, PayingProcess, RawAgentProcess
from tests.world.api import ApiProcess
from tests.world.keys import api_keys, worker_keys
from tests.world.process import LOGGED_CHARACTERS, Process
from tests.world.temporal import TemporalServer
from tests.world.worker import WorkerProcess
from waystation.client import Client
from waystation.settings import hash_api_key
from waystation.temporal.encryption import generate_key

ROLES = ("service", "agent", "operator", "approver", "client")
KEYS = {role: f"ws_{role}_key_for_tests_only" for role in ROLES}
AGENTS = ("waystation.agents.demo:agent", "waystation.agents.demo:researcher")

Part = Literal["api", "worker", "agent"]
Started = TypeVar("Started", bound=Process)


class Stack:
    """Worker, API processes and an agent process beside a Temporal; each can be killed and started.

    As a context manager it ends all that it started, but not Temporal.
    """

    def __init__(self, folder: Path, temporal: TemporalServer, **settings: Any) -> None:
        self.folder, self.temporal = folder, temporal
        self.processes: list[Process] = []
        self.apis: dict[int, ApiProcess] = {}
        self.settings = {f"WAYSTATION_{name.upper()}": str(value) for name, value in settings.items()}
        self.ports: list[int] = []
        self.encryption_key = f"tests:{generate_key()}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    def env(self, port: int, role: str) -> dict[str, str]:
        keys = [
            {"id": f"test-{role}", "role": role, "sha256": hash_api_key(KEYS[role]), "agents": ["*"]}
            for role in ROLES
        ]
        return {
            "TEMPORAL_ADDRESS": self.temporal.address,
            "WAYSTATION_URL": f"http://127.0.0.1:{port}",
            "WAYSTATION_API_KEY": KEYS[role],
            "WAYSTATION_API_KEYS": json.dumps(keys),
            "WAYSTATION_TOKEN_SECRETS": json.dumps(["a secret of thirty-two bytes or more"]),
            "WAYSTATION_STORAGE_DIR": str(self.folder / "payloads"),
            "WAYSTATION_ALLOWED_NETWORKS": json.dumps(["127.0.0.0/8", "::1/128"]),
            "WAYSTATION_PUSH_NETWORKS": json.dumps(["127.0.0.0/8", "::1/128"]),
            "WAYSTATION_WEBHOOK_NETWORKS": json.dumps(["127.0.0.0/8", "::1/128"]),
            "WAYSTATION_ALLOWANCE_JOURNAL": str(self.folder / "allowances.sqlite3"),
            "WAYSTATION_ENCRYPTION_KEYS": json.dumps([self.encryption_key]),
            "WAYSTATION_SELLER_DEFAULT_CREDENTIAL": "no seller knows this one",
            "PYTHONWARNINGS": "default",
            **self.settings,
        }

    def more_env(self, part: Part) -> dict[str, str]:
        """Returns what one part gets beside what all have."""
        return {}

    def keys(self, part: Part) -> dict[str, str]:
        """Returns the keys that only this kind of process has."""
        return {"api": api_keys(), "worker": worker_keys(), "agent": dict[str, str]()}[part]

    def run_api(self, port: int | None = None) -> ApiProcess:
        port = port or free_port()
        if port not in self.ports:
            self.ports.append(port)
        env = {**self.env(port, "service"), **self.keys("api"), **self.more_env("api")}
        self.apis[port] = self._run(ApiProcess(self.folder, env=env, port=port, name=f"api-{port}"))
        return self.apis[port]

    def run_worker(self, *, name: str = "worker") -> WorkerProcess:
        env = {**self.env(self.ports[0], "agent"), **self.keys("worker"), **self.more_env("worker")}
        return self._run(WorkerProcess(self.folder, env=env, name=name))

    def run_agent(self, *references: str, port: int | None = None, name: str = "agent") -> AgentProcess:
        env = self.agent_env(name, port)
        return self._run(AgentProcess(self.folder, *(references or AGENTS), env=env, name=name))

    def run_raw_agent(self, *, name: str) -> RawAgentProcess:
        return self._run(RawAgentProcess(self.folder, env=self.agent_env(name), name=name))

    def run_paying_program(self, *, name: str, orders: dict[str, object]) -> PayingProcess:
        return self._run(PayingProcess(self.folder, env=self.agent_env(name), name=name, orders=orders))

    def agent_env(self, name: str, port: int | None = None) -> dict[str, str]:
        """Returns the environment of an agent process of this name."""
        return {**self.env(port or self.ports[0], "agent"), **self.more_env("agent")}

    def _run(self, process: Started) -> Started:
        self.processes.append(process)
        return process.start()

    async def ready(self, port: int | None = None) -> None:
        """Waits until an API serves, its live bus is up, and the workers and agents that run take tasks."""
        try:
            await self.apis[port or self.ports[0]].ready()
            for process in self.processes:
                if isinstance(process, WorkerProcess | AgentProcess) and not process.ended:
                    await process.ready()
        except AssertionError as error:
            error.add_note(self.logs())
            raise

    def logs(self) -> str:
        return "\n".join(f"--- {p.log.name}\n{p.output[-LOGGED_CHARACTERS:]}" for p in self.processes)

    def client(self, role: str = "service", port: int | None = None) -> Client:
        return Client(f"http://127.0.0.1:{port or self.ports[0]}", KEYS[role])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            process.kill()


@asynccontextmanager
async def running_stack(
    folder: Path, temporal: TemporalServer, *agents: str, **settings: Any
) -> AsyncIterator[Stack]:
    """Starts one of each, yields them once the API serves, and kills them."""
    with Stack(folder, temporal, **settings) as stack:
        stack.run_api()
        stack.run_worker()
        stack.run_agent(*agents)
        await stack.ready()
        yield stack
