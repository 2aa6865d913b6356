"""The HTTP API in a process of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import free_port
from tests.world.process import HttpProcess, python


class ApiProcess(HttpProcess):
    """``waystation api``; ready once its live bus is up."""

    health = "/ready"

    def __init__(
        self, folder: Path, *, env: dict[str, str], port: int | None = None, name: str = "api"
    ) -> None:
        port = port or free_port()
        super().__init__(
            *python("waystation", "api"),
            log=folder / f"{name}.log",
            port=port,
            env={**env, "WAYSTATION_PORT": str(port)},
        )


@contextmanager
def running_api(folder: Path, *, env: dict[str, str]) -> Iterator[ApiProcess]:
    """Starts one, whether it gets ready or not, and kills it."""
    with ApiProcess(folder, env=env) as api:
        yield api
