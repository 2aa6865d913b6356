"""A paid API in two processes that share a Redis journal, and the facilitator of both."""

import uuid
from pathlib import Path
from typing import Self

from tests.support import free_port
from tests.world.process import HttpProcess, python
from tests.world.sandbox import FacilitatorServer


class ReplicaProcess(HttpProcess):
    """Shares its journal by the prefix of its keys in Redis; notes its runs in a file."""

    def __init__(self, folder: Path, *, redis: str, prefix: str, facilitator: str, runs: Path) -> None:
        port = free_port()
        command = python(
            "tests.seller.paywall.replica_process", "--port", port, "--redis", redis, "--prefix", prefix,
            "--facilitator", facilitator, "--runs", runs,
        )  # fmt: skip
        super().__init__(*command, log=folder / f"replica-{port}.log", port=port)


class Replicas:
    """Each process can be killed; ``runs`` has a line for each time that a handler began."""

    def __init__(self, folder: Path, redis: str) -> None:
        self.runs = folder / "runs"
        self.runs.touch()
        self.facilitator = FacilitatorServer(folder)
        prefix, facilitator = uuid.uuid4().hex, self.facilitator.url
        self.apis = [
            ReplicaProcess(folder, redis=redis, prefix=prefix, facilitator=facilitator, runs=self.runs)
            for _ in range(2)
        ]
        self.urls = [api.url for api in self.apis]

    async def __aenter__(self) -> Self:
        try:
            for process in (self.facilitator, *self.apis):
                process.start()
            for process in (self.facilitator, *self.apis):
                await process.ready()
        except BaseException:
            self._kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._kill()

    def _kill(self) -> None:
        for process in (self.facilitator, *self.apis):
            process.kill()
