"""A child process, which tests kill and start again."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar, Self

import httpx

from tests.support import PATIENCE_SECONDS, ROOT, START_SECONDS, eventually
from tests.world.forks import Fork

LOOK_SECONDS = 0.02
LOGGED_CHARACTERS = 3_000
"""How much of its log a server that doesn't come up leaves with the error."""


def python(module: str, *arguments: object) -> tuple[str, ...]:
    """Returns the command that runs a module."""
    return (sys.executable, "-m", module, *map(str, arguments))


class Process:
    """A child process with its output in a file; as a context manager it is killed for good at the end."""

    leads_others: ClassVar[bool] = False
    """Whether the command starts further processes, which have to end with it."""
    forks: ClassVar[bool] = False
    """Whether Python programs are forked from a process that has imported them; see ``tests.world.forks``."""

    def __init__(self, *command: str, log: Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
        self.command, self.log, self.env, self.cwd = command, log, env or {}, cwd
        self._popen: subprocess.Popen[bytes] | Fork | None = None
        self._logged_bytes = 0

    def start(self) -> Self:
        env = {**os.environ, **self.env}
        self.log.touch()
        self._logged_bytes = self.log.stat().st_size
        if self.forks and self.cwd == ROOT and self.command[:2] == (sys.executable, "-m"):
            self._popen = Fork(*self.command[2:], log=self.log, env=env, cwd=self.cwd)
            return self
        with self.log.open("ab") as output:
            self._popen = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=output,
                env=env,
                cwd=self.cwd,
                start_new_session=self.leads_others,
            )
        return self

    @property
    def popen(self) -> subprocess.Popen[bytes] | Fork:
        assert self._popen is not None, "it was never started"
        return self._popen

    @property
    def ended(self) -> bool:
        return self.popen.poll() is not None

    def signal(self, number: int) -> None:
        """Sends a signal; nothing if it has ended."""
        if not self.ended:
            self.popen.send_signal(number)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    async def says(self, words: str) -> None:
        """Waits until it has written this since its last start; fails at once when it has ended."""

        def said() -> bool:
            if self.ended:
                raise AssertionError(f"{self.command} has ended:\n{self.output[-LOGGED_CHARACTERS:]}")
            return words.encode() in self.log.read_bytes()[self._logged_bytes :]

        await eventually(said, within=START_SECONDS, what=f"{self.log.name} says {words!r}")

    def kill(self) -> None:
        """kill -9, as a power cut would; nothing if it was never started."""
        if self._popen is not None and not self.ended:
            if self.leads_others:
                os.killpg(self.popen.pid, signal.SIGKILL)
            else:
                self.popen.send_signal(signal.SIGKILL)
            self.popen.wait()

    def terminate(self, within: float = PATIENCE_SECONDS) -> int:
        self.popen.terminate()
        return self.popen.wait(within)

    def seconds_without_processor(self) -> float:
        """Returns for how long it could have run, but the machine had other things to do."""
        with contextlib.suppress(OSError, ValueError):  # it has ended, or the system doesn't count this
            return int(Path(f"/proc/{self.popen.pid}/schedstat").read_text().split()[1]) / 1e9
        return 0.0

    async def seconds_until_ended(self, *, within: float = PATIENCE_SECONDS) -> float | None:
        """Waits for its end; returns how long it took itself, None if it hasn't ended in time."""
        began = time.monotonic()
        waited = waited_before = self.seconds_without_processor()
        while time.monotonic() < began + within:
            if self.ended:
                return max(0.0, time.monotonic() - began - (waited - waited_before))
            waited = max(waited, self.seconds_without_processor())
            await asyncio.sleep(LOOK_SECONDS)
        return None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


class HttpProcess(Process):
    """A process that serves HTTP on a port of its own, and says when it does."""

    health: ClassVar[str] = "/health"

    def __init__(
        self,
        *command: str,
        log: Path,
        port: int,
        env: dict[str, str] | None = None,
        health: str | None = None,
    ) -> None:
        super().__init__(*command, log=log, env=env)
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._health_url = self.url + (health or self.health)

    async def ready(self) -> None:
        """Waits until it serves; fails at once when it has ended."""
        # Loading the certificates of the machine costs more than the processes that start can spare.
        async with httpx.AsyncClient(verify=False, trust_env=False) as http:

            async def answers() -> bool:
                if self.ended:
                    raise AssertionError(f"{self.command} has ended")
                try:
                    return (await http.get(self._health_url)).is_success
                except httpx.TransportError:
                    return False

            try:
                await eventually(answers, within=START_SECONDS, what=f"{self._health_url} answers")
            except AssertionError as error:
                error.add_note(self.output[-LOGGED_CHARACTERS:])
                raise
