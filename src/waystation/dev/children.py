"""The child processes of ``waystation dev``, restarted when they die."""

import asyncio
import contextlib
import logging
import os
import sys
import time
from pathlib import Path

from waystation.dev.local import EXIT_MISCONFIGURED
from waystation.dev.state import DevState

logger = logging.getLogger(__name__)

MIN_RESTART_PAUSE_SECONDS = 1.0
MAX_RESTART_PAUSE_SECONDS = 15.0
HEALTHY_AFTER_SECONDS = 30.0
"""The restart delay is reset for a process that has run this long."""
STOP_TIMEOUT_SECONDS = 8.0
MAX_QUOTED_LOG_BYTES = 2_000


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
