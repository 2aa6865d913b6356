"""A whole Waystation of real processes, for tests that kill parts of it."""

import json
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.support import ROOT, START_SECONDS, Process, TemporalServer, eventually, free_port
from waystation.client import Client
from waystation.settings import hash_api_key
from waystation.temporal.encryption import generate_key

ROLES = ("service", "agent", "operator", "approver", "client")
KEYS = {role: f"ws_{role}_key_for_tests_only" for role in ROLES}
COMMAND = (sys.executable, "-m", "waystation")
AGENTS = ("waystation.agents.demo:agent", "waystation.agents.demo:researcher")


class Stack:
    """Temporal, worker, API processes and an agent process, each of which can be killed and started."""

    def __init__(self, folder: Path, temporal: TemporalServer, **settings: Any) -> None:
        self.folder, self.temporal = folder, temporal
        self.processes: list[Process] = []
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
            "WAYSTATION_PORT": str(port),
            "WAYSTATION_API_KEY": KEYS[role],
            "WAYSTATION_API_KEYS": json.dumps(keys),
            "WAYSTATION_TOKEN_SECRETS": json.dumps(["a secret of thirty-two bytes or more"]),
            "WAYSTATION_STORAGE_DIR": str(self.folder / "payloads"),
            "WAYSTATION_ALLOWED_NETWORKS": json.dumps(["127.0.0.0/8", "::1/128"]),
            "WAYSTATION_ALLOWANCE_JOURNAL": str(self.folder / "allowances.sqlite3"),
            "WAYSTATION_ENCRYPTION_KEYS": json.dumps([self.encryption_key]),
            "WAYSTATION_SELLER_DEFAULT_CREDENTIAL": "no seller knows this one",
            "PYTHONWARNINGS": "default",
            **self.settings,
        }

    def _run(self, name: str, *command: str, port: int, role: str = "agent") -> Process:
        log = self.folder / f"{name}.log"
        process = Process(*COMMAND, *command, log=log, env=self.env(port, role), cwd=ROOT)
        self.processes.append(process)
        return process

    def run_api(self, port: int | None = None) -> Process:
        port = port or free_port()
        if port not in self.ports:
            self.ports.append(port)
        return self._run(f"api-{port}", "api", port=port, role="service")

    def run_worker(self) -> Process:
        return self._run("worker", "worker", port=self.ports[0])

    def run_agent(self, *references: str, port: int | None = None) -> Process:
        return self._run("agent", "agent", *(references or AGENTS), port=port or self.ports[0])

    async def ready(self, port: int | None = None) -> None:
        """Waits until an API serves, and its live bus is up."""
        url = f"http://127.0.0.1:{port or self.ports[0]}/ready"

        # One client for all tries: making one costs more than the processes that start can spare.
        async with httpx.AsyncClient() as http:

            async def answers() -> bool:
                try:
                    return (await http.get(url)).is_success
                except httpx.TransportError:
                    return False

            await eventually(answers, within=START_SECONDS, what=f"{url} answers\n{self.logs()}")

    def logs(self) -> str:
        return "\n".join(f"--- {p.log.name}\n{p.output[-3000:]}" for p in self.processes)

    def client(self, role: str = "service", port: int | None = None) -> Client:
        return Client(f"http://127.0.0.1:{port or self.ports[0]}", KEYS[role])

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.kill()


async def start_stack(folder: Path, temporal: TemporalServer, **settings: Any) -> Stack:
    stack = Stack(folder, temporal, **settings)
    stack.run_api()
    stack.run_worker()
    stack.run_agent()
    try:
        await stack.ready()
    except BaseException:
        stack.stop()
        raise
    return stack
