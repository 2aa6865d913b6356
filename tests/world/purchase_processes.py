"""What a purchase needs, each in a process of its own: Temporal, worker, API, shop and processor."""

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Self

from tests.world.api import ApiProcess
from tests.world.keys import api_keys
from tests.world.process import HttpProcess, Process
from tests.world.sandbox import Processor, Shop
from tests.world.temporal import TemporalServer
from tests.world.worker import PurchaseWorkerProcess
from waystation.client import Client
from waystation.settings import hash_api_key
from waystation.temporal.connect import open_client
from waystation.temporal.encryption import encrypting_data_converter, encryption_codec, generate_key
from waystation.temporal.names import SESSION_TASK_QUEUE

SHOP_KEY = "key-of-the-agent"
"""The agent's at the shop."""
STRIPE_TIMEOUT_SECONDS = 5
"""So long, and not 30 as by default, a test waits for a shop's call that the processor never answers."""
KEYS = {"shopper": ("agent", "key-of-the-shopper"), "alice": ("approver", "key-of-alice")}
"""Role and key at the API, by name."""


class PurchaseProcesses:
    """Any but Temporal can be killed and started again."""

    queue = SESSION_TASK_QUEUE

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = f"crash:{generate_key()}"
        self.temporal = TemporalServer(folder)
        self.processor = Processor(folder)
        self.shop = Shop(
            folder, self.processor, "--api-key", SHOP_KEY,
            "--recovery-after-seconds", "3", "--stripe-timeout-seconds", str(STRIPE_TIMEOUT_SECONDS),
        )  # fmt: skip
        self.worker = PurchaseWorkerProcess(
            folder,
            temporal=self.temporal.address,
            queue=self.queue,
            processor=self.processor.url,
            shop_key=SHOP_KEY,
            encryption_key=self.key,
        )
        keys = [
            {"id": name, "role": role, "sha256": hash_api_key(secret)}
            for name, (role, secret) in KEYS.items()
        ]
        self.api = ApiProcess(
            folder,
            env={
                "TEMPORAL_ADDRESS": self.temporal.address,
                "WAYSTATION_API_KEYS": json.dumps(keys),
                "WAYSTATION_TOKEN_SECRETS": json.dumps(["a secret of thirty-two bytes or more"]),
                "WAYSTATION_ENCRYPTION_KEYS": json.dumps([self.key]),
                **api_keys(),
            },
        )

    async def __aenter__(self) -> Self:
        try:
            for server in (self.temporal, self.processor, self.shop):
                server.start()
            await self.temporal.ready()
            for process in (self.worker, self.api):
                process.start()
            for serving in (self.api, self.processor, self.shop):
                await serving.ready()
            converter = encrypting_data_converter(encryption_codec([self.key]))
            self.client = await open_client(self.temporal.address, data_converter=converter)
        except BaseException:
            self._kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._kill()

    def _kill(self) -> None:
        for process in (self.worker, self.api, self.shop, self.processor, self.temporal):
            process.kill()

    def worker_of(self, program: Path) -> Process:
        """Returns somebody's own worker, with the settings that it shares with ours, to be started."""
        env = {
            "TEMPORAL_ADDRESS": self.temporal.address,
            "WAYSTATION_ENCRYPTION_KEYS": json.dumps([self.key]),
        }
        return Process(sys.executable, str(program), log=program.with_suffix(".log"), env=env)

    def as_caller(self, who: str) -> Client:
        return Client(self.api.url, KEYS[who][1])

    async def strike(self, chance: random.Random) -> str:
        """Kills one of the four, leaves it dead for a moment, starts it again."""
        victims = {"worker": self.worker, "api": self.api, "shop": self.shop, "processor": self.processor}
        name, victim = chance.choice(list(victims.items()))
        victim.kill()
        await asyncio.sleep(chance.uniform(0, 0.3))
        victim.start()
        if isinstance(victim, HttpProcess):
            await victim.ready()
        return name
