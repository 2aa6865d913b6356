"""``waystation dev``, which starts its own servers."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.support import START_SECONDS, eventually, free_port
from tests.world.process import Process

COMMAND = (sys.executable, "-m", "waystation")


class Dev:
    """It can be killed and started again in the same folder; each time with a log of its own."""

    def __init__(self, folder: Path, *options: str, command: Sequence[str] = COMMAND) -> None:
        self.folder = folder
        self.port, self.temporal_port = free_port(), free_port()
        ports = ("--port", str(self.port), "--temporal-port", str(self.temporal_port))
        self._command = (*command, "dev", *ports, *options)
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        assert self._process is not None, "it was never started"
        return self._process

    async def start(self) -> Self:
        """Starts it, and waits until it runs."""
        log = self.folder / f"dev-{time.monotonic_ns()}.log"
        process = self._process = Process(*self._command, log=log, cwd=self.folder).start()

        def runs() -> bool:
            if process.ended:
                raise AssertionError(f"waystation dev has ended:\n{process.output}")
            return "Waystation is running" in process.output

        await eventually(runs, within=START_SECONDS, what="waystation dev runs")
        return self

    def pid(self, name: str) -> int | None:
        """Returns the process id of one of its children."""
        path = self.folder / ".waystation" / "run" / f"{name}.pid"
        return int(path.read_text()) if path.exists() and path.read_text().strip() else None

    def agents_beside(self, *references: str) -> Process:
        """Another process with agents, in the same folder; not yet started."""
        return Process(*COMMAND, "agent", *references, log=self.folder / "beside.log", cwd=self.folder)

    async def __aenter__(self) -> Self:
        try:
            return await self.start()
        except BaseException:
            self.end()
            raise

    async def __aexit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Sends SIGTERM, upon which it ends its children."""
        if self._process is not None and not self._process.ended:
            self._process.terminate()
