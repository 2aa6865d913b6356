"""Worker, API, shop and processor, each in a process of its own."""

import asyncio
import json
import random
import sys
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from temporalio.client import Client

from tests.support import START_SECONDS, Process, TemporalServer, eventually, free_port
from tests.workflows.purchase.support import Bought, Buyer, Processor
from waystation.client import Client as WaystationClient
from waystation.client.purchases import Buying
from waystation.errors import ConflictError, ConnectionLost, TryLater
from waystation.models.purchases import PurchaseRequest, PurchaseView
from waystation.settings import hash_api_key
from waystation.temporal.encryption import encrypting_data_converter, encryption_codec, generate_key
from waystation.temporal.names import SESSION_TASK_QUEUE
from workflows.purchase import Purchase, PurchaseStart

API_KEY = "key-of-the-agent"
KEYS = {"shopper": ("agent", "key-of-the-shopper"), "alice": ("approver", "key-of-alice")}


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
        await eventually(self._healthy, within=START_SECONDS, what="the shop answers")

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
            sys.executable, "-m", "tests.workflows.purchase.worker_process",
            log=folder / "worker.log",
            env={
                "TEST_TEMPORAL": temporal,
                "TEST_QUEUE": queue,
                "TEST_PROCESSOR": processor.url,
                "TEST_SHOP_KEY": API_KEY,
                "TEST_KEY": key,
            },
        )  # fmt: skip


class Api(Process):
    """The HTTP API in a process of its own."""

    def __init__(self, folder: Path, temporal: str, key: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        keys = [
            {"id": name, "role": role, "sha256": hash_api_key(secret)}
            for name, (role, secret) in KEYS.items()
        ]
        super().__init__(
            sys.executable, "-m", "waystation", "api",
            log=folder / "api.log",
            env={
                "TEMPORAL_ADDRESS": temporal,
                "WAYSTATION_PORT": str(self.port),
                "WAYSTATION_API_KEYS": json.dumps(keys),
                "WAYSTATION_TOKEN_SECRETS": json.dumps(["a secret of thirty-two bytes or more"]),
                "WAYSTATION_ENCRYPTION_KEYS": json.dumps([key]),
            },
        )  # fmt: skip

    async def ready(self) -> None:
        await eventually(self._healthy, within=START_SECONDS, what="the API answers")

    async def _healthy(self) -> bool:
        try:
            async with httpx.AsyncClient() as http:
                return (await http.get(f"{self.url}/ready")).is_success
        except httpx.HTTPError:
            return False


class Town:
    """Worker, API, shop and processor, each in its own process."""

    def __init__(self, folder: Path, temporal: TemporalServer) -> None:
        self.folder = folder
        self.key = f"crash:{generate_key()}"
        self.queue = SESSION_TASK_QUEUE
        self.temporal = temporal
        self.processor = Processor(folder)
        self.shop = Shop(folder, self.processor)

    async def open(self) -> None:
        await self.temporal.ready()
        address = self.temporal.address
        self.worker = WorkerProcess(self.folder, address, self.queue, self.processor, self.key)
        self.api = Api(self.folder, address, self.key)
        await self.api.ready()
        await self.processor.ready()
        await self.shop.ready()
        codec = encryption_codec([self.key])
        self.client = await Client.connect(
            self.temporal.address, data_converter=encrypting_data_converter(codec)
        )
        self.buyer = Buyer(self.client, self.queue, self.shop.url)

    def close(self) -> None:
        for process in (self.worker, self.api, self.shop, self.processor, self.temporal):
            process.kill()

    def as_caller(self, who: str) -> WaystationClient:
        return WaystationClient(self.api.url, KEYS[who][1])

    async def strike(self, chance: random.Random) -> str:
        """Kill one of the four, leave it dead for a moment, start it again."""
        victims = {"worker": self.worker, "api": self.api, "shop": self.shop, "processor": self.processor}
        name, victim = chance.choice(list(victims.items()))
        victim.kill()
        await asyncio.sleep(chance.uniform(0, 0.3))
        victim.start()
        if not isinstance(victim, WorkerProcess):
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


async def buy_and_approve(town: Town, purchase_id: str, request: PurchaseRequest) -> PurchaseView:
    """What a client does that goes on whatever happens to the API: start, approve when asked, wait."""
    async with town.as_caller("shopper") as agent, town.as_caller("alice") as person:
        buyer, approver = Buying(agent), Buying(person)
        started = False
        while True:
            try:
                if not started:
                    await buyer.start(request, purchase_id=purchase_id)
                    started = True
                view = await approver.wait(purchase_id, within_seconds=120, or_for_a_person=True)
                if view.status == "awaiting_approval":
                    await approver.approve(purchase_id, view.digest or "")
                if view.final:
                    return view
            except (ConnectionLost, TryLater):
                await asyncio.sleep(0.1)
            except ConflictError:  # decided by an attempt whose answer was lost, or canceled meanwhile
                await asyncio.sleep(0.1)
