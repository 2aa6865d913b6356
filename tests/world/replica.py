"""One of several processes of a paid API."""

from pathlib import Path

from tests.support import free_port
from tests.world.process import HttpProcess, python


class ReplicaProcess(HttpProcess):
    """Shares its journal with the others by the prefix of its keys in Redis; notes its runs in a file."""

    def __init__(self, folder: Path, *, redis: str, prefix: str, facilitator: str, runs: Path) -> None:
        port = free_port()
        command = python(
            "tests.seller.paywall.replica_process", "--port", port, "--redis", redis, "--prefix", prefix,
            "--facilitator", facilitator, "--runs", runs,
        )  # fmt: skip
        super().__init__(*command, log=folder / f"replica-{port}.log", port=port)
