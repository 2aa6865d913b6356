"""What tests share: real processes, free ports, waiting for a condition with a deadline."""

import asyncio
import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from waystation.dev.ports import free_ports
from waystation.dev.processes import DEV_SERVER_OPTIONS

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 30.0
"""After this long something will not happen any more, whatever else the machine has to do."""
START_SECONDS = 90.0
"""The same for servers: they import much before they answer, and several start at once."""
TEMPORAL = str(Path(sys.executable).with_name("temporal"))


def free_port() -> int:
    return free_ports(1)[0]


async def eventually(
    condition: Callable[[], Any], *, within: float = PATIENCE_SECONDS, what: str = ""
) -> Any:
    """Waits until the condition holds and returns its value; fails after ``within`` seconds."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what or inspect.getsource(condition).strip()}")
        await asyncio.sleep(0.01)


class Process:
    """A child process with its output in a file; killed for good at the end."""

    def __init__(self, *command: str, log: Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
        self.command, self.log, self.env, self.cwd = command, log, env or {}, cwd
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                self.command, stdout=output, stderr=output, env={**os.environ, **self.env}, cwd=self.cwd
            )

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """kill -9, as a power cut would."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGKILL)
            self.popen.wait()

    def terminate(self, within: float = PATIENCE_SECONDS) -> int:
        self.popen.terminate()
        return self.popen.wait(within)


class TemporalServer(Process):
    """Temporal's dev server; with a database file its state survives kill -9."""

    def __init__(self, folder: Path, *, durable: bool = False, options: Sequence[str] = ()) -> None:
        self.port = free_port()
        command = [
            TEMPORAL,
            "server",
            "start-dev",
            "--headless",
            "--port",
            str(self.port),
            "--log-level",
            "error",
        ]
        command += [*DEV_SERVER_OPTIONS, *options]
        if durable:
            command += ["--db-filename", str(folder / "temporal.db")]
        super().__init__(*command, log=folder / "temporal.log")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def ready(self) -> None:
        from temporalio.client import Client

        async def answers() -> bool:
            try:
                client = await Client.connect(self.address)
                return await client.count_workflows("") is not None
            except Exception:
                if self.popen.poll() is not None:
                    raise AssertionError(f"Temporal has ended:\n{self.output[-2000:]}") from None
                return False

        await eventually(answers, within=START_SECONDS, what="Temporal's dev server answers")


def redis_server() -> str | None:
    return shutil.which("redis-server")


def environment(**values: Any) -> dict[str, str]:
    return {key: str(value) for key, value in values.items() if value is not None}


def anonymous(recorded: str) -> str:
    """Returns a recorded history without the names and paths of the machine on which it was recorded."""
    recorded = re.sub(r'"stackTrace": "(?:[^"\\]|\\.)*"', '"stackTrace": ""', recorded)
    return re.sub(r'"identity": "[^"]*"', '"identity": "worker"', recorded)
