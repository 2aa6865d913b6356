"""Temporal's dev server."""

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.support import START_SECONDS, eventually, free_port
from tests.world.process import Process
from waystation.dev.processes import DEV_SERVER_OPTIONS
from waystation.temporal.search_attributes import SERVER_OPTIONS

TEMPORAL = str(Path(sys.executable).with_name("temporal"))
"""Its command line, which is the server as well."""

COLLECTS_SELDOM: Final = {"GOGC": os.environ.get("GOGC", "400")}
"""A fifth of a server's processor time went into looking for garbage, of which it has little."""


class TemporalServer(Process):
    """With a database file its state survives kill -9."""

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = False,
        search_attributes: bool = True,
        options: Sequence[str] = (),
    ) -> None:
        usual = DEV_SERVER_OPTIONS if search_attributes else DEV_SERVER_OPTIONS[: -len(SERVER_OPTIONS)]
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        database = ("--db-filename", str(folder / "temporal.db")) if durable else ()
        super().__init__(
            TEMPORAL, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(self.port),
            "--log-level", "error", *usual, *options, *database,
            log=folder / "temporal.log",
            env=COLLECTS_SELDOM,
        )  # fmt: skip

    async def ready(self) -> None:
        from temporalio.client import Client  # a library that benchmarks of other systems do without

        async def answers() -> bool:
            try:
                client = await Client.connect(self.address)
                return await client.count_workflows("") is not None
            except Exception:
                if self.ended:
                    raise AssertionError(f"Temporal has ended:\n{self.output[-2000:]}") from None
                return False

        await eventually(answers, within=START_SECONDS, what="Temporal's dev server answers")


@asynccontextmanager
async def running_temporal(
    folder: Path,
    *,
    durable: bool = False,
    search_attributes: bool = True,
    options: Sequence[str] = (),
) -> AsyncIterator[TemporalServer]:
    """Starts a server, yields it once it answers, and kills it."""
    with TemporalServer(
        folder, durable=durable, search_attributes=search_attributes, options=options
    ) as server:
        await server.ready()
        yield server
