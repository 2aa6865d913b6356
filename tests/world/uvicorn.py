"""Applications on a real port: in this process, or in one of their own."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn

from tests.support import eventually
from tests.world.process import HttpProcess, python


@asynccontextmanager
async def served(app: Callable[..., Any]) -> AsyncIterator[str]:
    """Serves an application in this process, and yields its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            await eventually(lambda: server.started or task.done(), what="the application is served")
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


def serve(app: Callable[..., Any], port: int) -> None:
    """Serves an application until the process ends."""
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


class UvicornProcess(HttpProcess):
    """An application that is found by its name, in a process of its own."""

    def __init__(self, app: str, folder: Path, *, health: str, port: int, env: dict[str, str]) -> None:
        command = python("uvicorn", app, "--host", "127.0.0.1", "--port", port, "--log-level", "warning")
        super().__init__(*command, log=folder / "uvicorn.log", port=port, env=env, health=health)


@asynccontextmanager
async def running_uvicorn(
    app: str, folder: Path, *, health: str, port: int, env: dict[str, str]
) -> AsyncIterator[UvicornProcess]:
    """Starts the process, yields it once it answers at ``health``, and kills it."""
    with UvicornProcess(app, folder, health=health, port=port, env=env) as process:
        await process.ready()
        yield process
