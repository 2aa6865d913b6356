"""Worker, shop and processor, each in a process of its own."""

import asyncio
import random
import sys
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from temporalio.client import Client

from tests.purchases.support import Bought, Buyer, Processor
from tests.support import Process, TemporalServer, eventually, free_port
from waystation.encryption import encrypting_data_converter, encryption_codec, generate_key
from workflows.purchase import Purchase, PurchaseStart

API_KEY = "key-of-the-agent"


class Shop(Process):
    """The sandbox shop in a process of its own."""

    def __init__(self, folder: Path, processor: Processor) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            sys.executable, "-m", "waystation.sandbox.shop",
            "--port", str(self.port), "--data", str(folder / "shop"), "--processor", processor.url,
            "--recovery-after-seconds", "3", "--api-key", API_KEY,
            log=folder / "shop.log",
        )  # fmt: skip

    async def ready(self) -> None:
        await eventually(self._healthy, within=30, what="the shop answers")

    async def _healthy(self) -> bool:
        try:
            async with httpx.AsyncClient() as http:
                return (await http.get(f"{self.url}/sandbox/health")).is_success
        except httpx.HTTPError:
            return False

    async def state(self) -> dict[str, Any]:
        async with httpx.AsyncClient() as http:
            found: dict[str, Any] = (await http.get(f"{self.url}/sandbox/state", timeout=30)).json()
            return found

    async def tell(self, path: str, **body: Any) -> None:
        async with httpx.AsyncClient() as http:
            (await http.post(f"{self.url}{path}", json=body)).raise_for_status()


class WorkerProcess(Process):
    """A worker that can be killed."""

    def __init__(self, folder: Path, temporal: str, queue: str, processor: Processor, key: str) -> None:
        super().__init__(
            sys.executable, "-m", "tests.purchases.worker_process",
            log=folder / "worker.log",
            env={
                "TEST_TEMPORAL": temporal,
                "TEST_QUEUE": queue,
                "TEST_PROCESSOR": processor.url,
                "TEST_SHOP_KEY": API_KEY,
                "TEST_KEY": key,
            },
        )  # fmt: skip


class Town:
    """Worker, shop and processor, each in its own process."""

    def __init__(self, folder: Path, temporal: TemporalServer) -> None:
        self.folder = folder
        self.key = f"crash:{generate_key()}"
        self.queue = f"crash-{uuid.uuid4()}"
        self.temporal = temporal
        self.processor = Processor(folder)
        self.shop = Shop(folder, self.processor)
        self.worker = WorkerProcess(folder, temporal.address, self.queue, self.processor, self.key)

    async def open(self) -> None:
        await self.processor.ready()
        await self.shop.ready()
        codec = encryption_codec([self.key])
        self.client = await Client.connect(
            self.temporal.address, data_converter=encrypting_data_converter(codec)
        )
        self.buyer = Buyer(self.client, self.queue, self.shop.url)

    def close(self) -> None:
        for process in (self.worker, self.shop, self.processor):
            process.kill()

    async def strike(self, chance: random.Random) -> str:
        """Kill one of the three, leave it dead for a moment, start it again."""
        name, victim = chance.choice(
            [("worker", self.worker), ("shop", self.shop), ("processor", self.processor)]
        )
        victim.kill()
        await asyncio.sleep(chance.uniform(0, 0.3))
        victim.start()
        if isinstance(victim, Shop | Processor):
            await victim.ready()
        return name


async def start(town: Town, mandate: Any, items: list[dict[str, Any]], **changes: Any) -> Bought:
    request = town.buyer.request(mandate.id, items=items, **changes)
    handle = await town.client.start_workflow(
        Purchase.run,
        PurchaseStart(request=request),
        id=f"purchase-{uuid.uuid4()}",
        task_queue=town.queue,
        task_timeout=timedelta(seconds=2),  # so that a killed worker costs the test little time
    )
    bought = Bought(handle)
    bought.mandate = mandate
    return bought
