"""Starting the sandbox's servers as real processes, so that they can be killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.support import PATIENCE_SECONDS, START_SECONDS, free_port

# Making a client loads the machine's certificates, which takes longer than all that a test asks. It keeps no
# connection, for the servers are killed.
HTTP = httpx.Client(trust_env=False, timeout=10, limits=httpx.Limits(max_keepalive_connections=0))


def wait_until(met: Callable[[], bool], what: str, deadline_seconds: float = PATIENCE_SECONDS) -> None:
    """Polls a condition until it holds; fails with ``what`` after the deadline."""
    end = time.monotonic() + deadline_seconds
    while time.monotonic() < end:
        if met():
            return
        time.sleep(0.02)
    raise AssertionError(f"not within {deadline_seconds} s: {what}")


class Server:
    """A module run as ``python -m``; can be killed with SIGKILL and started again on the same data."""

    def __init__(self, module: str, data: Path, *options: str) -> None:
        self.module = module
        self.data = data
        self.options = options
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        command = [sys.executable, "-m", self.module, "--port", str(self.port), "--data", str(self.data)]
        self._process = subprocess.Popen(
            [*command, *self.options], env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        wait_until(self._healthy, f"{self.module} answers", START_SECONDS)
        return self

    def _healthy(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.module} ended with {self._process.returncode}"
        with contextlib.suppress(httpx.HTTPError):
            return HTTP.get(f"{self.url}/sandbox/health").is_success
        return False

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def wait_dead(self, deadline_seconds: float = PATIENCE_SECONDS) -> None:
        assert self._process is not None
        self._process.wait(deadline_seconds)

    def trouble(self, **trouble: object) -> None:
        HTTP.post(f"{self.url}/sandbox/troubles", json=trouble).raise_for_status()

    def striking(self) -> int:
        """How many requests are being kept in trouble right now."""
        return int(HTTP.get(f"{self.url}/sandbox/health").json()["striking"])

    def armed(self) -> list[object]:
        found: list[object] = HTTP.get(f"{self.url}/sandbox/troubles").json()
        return found

    def heal(self) -> None:
        HTTP.delete(f"{self.url}/sandbox/troubles").raise_for_status()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def ledger_of(processor: Server) -> dict[str, object]:
    answer = HTTP.get(f"{processor.url}/sandbox/ledger")
    answer.raise_for_status()
    found: dict[str, object] = answer.json()
    return found


def processor(data: Path) -> Iterator[Server]:
    with Server("waystation.sandbox.processor", data) as server:
        yield server
