"""A local chain, where anvil is installed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import free_port
from tests.world.process import Process

ANVIL = os.environ.get("WAYSTATION_ANVIL") or shutil.which("anvil")
NO_ANVIL = "anvil isn't installed (npm install @foundry-rs/anvil)"


class AnvilProcess(Process):
    """Mines every transaction at once. npm's command is a script that starts the program itself."""

    leads_others = True

    def __init__(self, binary: str, folder: Path, chain_id: int) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            binary, "--host", "127.0.0.1", "--port", str(port), "--chain-id", str(chain_id), "--silent",
            log=folder / "anvil.log",
        )  # fmt: skip


@contextmanager
def running_anvil(folder: Path, chain_id: int) -> Iterator[AnvilProcess]:
    """Starts a chain, yields it at once, and kills it.

    Raises:
        FileNotFoundError: There is none to start.
    """
    if ANVIL is None:
        raise FileNotFoundError(NO_ANVIL)
    with AnvilProcess(ANVIL, folder, chain_id) as process:
        yield process
