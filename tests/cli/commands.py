"""Commands run beside a ``waystation dev``, in a terminal or not."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path
from typing import Any

import httpx

from tests.support import START_SECONDS
from tests.world.dev import COMMAND, Dev
from tests.world.forks import run_to_end
from waystation.dev.local import read_dev_environment

COLUMNS, LINES = 110, 40
MAX_ASKED = 6
"""An API that waited ten seconds for a worker answers 503, try again; a busy machine takes longer."""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def clean_environment() -> dict[str, str]:
    """What tests set elsewhere must not lead these commands astray."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WAYSTATION_")}


def run(
    *arguments: str, cwd: Path, within: float = START_SECONDS, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=within,
        stdin=subprocess.DEVNULL,
        check=False,
    )


class DevProcess(Dev):
    """A ``waystation dev``, and what its sessions hold."""

    def session(self, *arguments: str) -> str:
        """The output of ``waystation session …``, which must succeed; asked again while nobody is ready."""
        for _ in range(MAX_ASKED):
            with tempfile.TemporaryDirectory() as folder:
                errors = Path(folder, "errors")
                code, output = run_to_end(
                    "waystation", "session", *arguments,
                    log=Path(folder, "output"), errors=errors,
                    env=clean_environment(), cwd=self.folder, within=START_SECONDS,
                )  # fmt: skip
                refused = errors.read_text()
            if "(503 " not in refused:
                break
        assert code == 0, refused
        return output

    def events(self, session_id: str) -> list[dict[str, Any]]:
        """All durable events, asked of the API itself: a process for each look would be slow."""
        found = read_dev_environment(self.folder / ".waystation")
        events: list[dict[str, Any]] = []
        page: dict[str, Any] = {"more": True, "next_after": 0}
        while page["more"]:
            for _ in range(MAX_ASKED):
                answer = self._replay(found, session_id, page["next_after"])
                if answer.status_code != 503:
                    break
            page = answer.raise_for_status().json()
            events += page["events"]
        return events

    @staticmethod
    def _replay(found: dict[str, str], session_id: str, after: int) -> httpx.Response:
        headers = {"Authorization": f"Bearer {found['WAYSTATION_API_KEY']}"}
        return httpx.get(
            f"{found['WAYSTATION_URL']}/sessions/{session_id}/replay",
            params={"after": after},
            headers=headers,
            timeout=30,
        )

    def count(self, session_id: str, event_type: str) -> int:
        return sum(event["type"] == event_type for event in self.events(session_id))


class Terminal:
    """A command in a pseudo-terminal."""

    def __init__(self, *command: str, cwd: Path, **environment: str) -> None:
        self.raw = b""
        pid, self._handle = pty.fork()
        if pid == 0:
            # Tests that a shell runs in the background inherit a Ctrl-C that does nothing.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.chdir(cwd)
            env = clean_environment() | {"TERM": "xterm-256color"} | environment
            os.execve(sys.executable, command, env)
        self.pid = pid
        self._code: int | None = None
        fcntl.ioctl(self._handle, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))

    @property
    def text(self) -> str:
        """Everything written so far, without the escape sequences."""
        while select.select([self._handle], [], [], 0)[0]:
            try:
                chunk = os.read(self._handle, 65_536)
            except OSError:
                break
            if not chunk:
                break
            self.raw += chunk
        return _ESCAPES.sub("", self.raw.decode(errors="replace")).replace("\r", "")

    def press_ctrl_c(self) -> None:
        os.write(self._handle, b"\x03")

    def ended(self) -> bool:
        if self._code is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if done else None
        return self._code is not None

    @property
    def code(self) -> int | None:
        return self._code

    def close(self) -> None:
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._handle)


def descendants(pid: int) -> set[int]:
    """The process ids of everything that a process has started, directly or not."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    parents = {int(child): int(parent) for child, parent in map(str.split, listing.stdout.splitlines())}
    found: set[int] = set()
    level = {pid}
    while level := {child for child, parent in parents.items() if parent in level}:
        found |= level
    return found


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(state.stdout.strip()) and not state.stdout.strip().startswith("Z")


def parent_of(pid: int) -> int:
    done = subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(done.stdout)
