"""Workers in processes of their own: the deployed one, and two with a queue that a test chooses."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.world.process import Process, python


class WorkerProcess(Process):
    """``waystation worker``."""

    def __init__(self, folder: Path, *, env: dict[str, str], name: str = "worker") -> None:
        super().__init__(*python("waystation", "worker"), log=folder / f"{name}.log", env=env)

    async def ready(self) -> None:
        """Waits until it takes tasks."""
        await self.says("Working on task queue")


@asynccontextmanager
async def running_worker(folder: Path, *, env: dict[str, str]) -> AsyncIterator[WorkerProcess]:
    """Starts one, yields it once it takes tasks, and kills it."""
    with WorkerProcess(folder, env=env) as worker:
        await worker.ready()
        yield worker


class PurchaseWorkerProcess(Process):
    """A worker for mandates and purchases, at its chattiest, with payloads encrypted."""

    def __init__(
        self, folder: Path, *, temporal: str, queue: str, processor: str, shop_key: str, encryption_key: str
    ) -> None:
        super().__init__(
            *python("tests.world.purchase_worker"),
            log=folder / "worker.log",
            env={
                "TEST_TEMPORAL": temporal,
                "TEST_QUEUE": queue,
                "TEST_PROCESSOR": processor,
                "TEST_SHOP_KEY": shop_key,
                "TEST_KEY": encryption_key,
            },
        )


class PaymentWorkerProcess(Process):
    """A worker for mandates and paid requests."""

    def __init__(
        self,
        folder: Path,
        *,
        temporal: str,
        queue: str,
        processor: str,
        wallet_key: str,
        rpc: str,
    ) -> None:
        options = (
            "--temporal", temporal, "--queue", queue, "--processor", processor, "--key", wallet_key,
            "--rpc", rpc,
        )  # fmt: skip
        super().__init__(*python("tests.world.payment_worker", *options), log=folder / "worker.log")
