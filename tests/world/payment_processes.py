"""What a paid request needs beside Temporal, each in a process of its own: worker, paid API and processor."""

import uuid
from pathlib import Path
from typing import Self

from tests.world.agent import HolderProcess
from tests.world.process import Process
from tests.world.sandbox import Json, PaidApi, Processor
from tests.world.worker import PaymentWorkerProcess
from waystation.models.money import Money

WALLET_KEY = "0x" + "11" * 32


class PaymentProcesses:
    """Each can be killed and started again."""

    def __init__(self, folder: Path, temporal: str, *, lease_seconds: int | None = None) -> None:
        self.temporal_address = temporal
        self.queue = f"payments-{uuid.uuid4().hex[:8]}"
        self.processor = Processor(folder)
        lease = () if lease_seconds is None else ("--lease-seconds", str(lease_seconds))
        self.api = PaidApi(folder, self.processor, *lease)
        self.worker = PaymentWorkerProcess(
            folder,
            temporal=temporal,
            queue=self.queue,
            processor=self.processor.url,
            wallet_key=WALLET_KEY,
            rpc=self.api.rpc,
        )

    async def __aenter__(self) -> Self:
        try:
            for process in self._all():
                process.start()
            await self.ready()
        except BaseException:
            self._kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._kill()

    def _kill(self) -> None:
        for process in self._all():
            process.kill()

    def _all(self) -> tuple[Process, ...]:
        return (self.processor, self.api, self.worker)

    async def ready(self) -> None:
        await self.processor.ready()
        await self.api.ready()

    def crash(self, name: str) -> None:
        """kill -9, and a new start."""
        process = {"processor": self.processor, "api": self.api, "worker": self.worker}[name]
        process.kill()
        process.start()

    def holder(
        self,
        folder: Path,
        *,
        mandate: str,
        agent: str,
        path: str,
        allowance: str,
        rail: str,
        price: Money,
        payments: int,
    ) -> HolderProcess:
        """Returns an agent that pays the API from an allowance which it holds, not started yet."""
        return HolderProcess(
            folder,
            temporal=self.temporal_address,
            queue=self.queue,
            processor=self.processor.url,
            wallet_key=WALLET_KEY,
            rpc=self.api.rpc,
            seller=self.api.url,
            mandate=mandate,
            agent=agent,
            path=path,
            allowance=allowance,
            rail=rail,
            price=price,
            payments=payments,
        )

    def tokens(self) -> list[Json]:
        found: list[Json] = self.processor.books()["tokens"]
        return found

    def charges(self) -> dict[str, list[int]]:
        """Returns the amounts charged, by the payment that the token was issued for."""
        books = self.processor.books()
        found: dict[str, list[int]] = {}
        for token in books["tokens"]:
            payment = token["shared_metadata"]["purchase_id"]
            captured = token["usage_details"]["amount_captured"]["value"]
            found.setdefault(payment, []).extend([captured] if captured else [])
        entries = [entry for entry in books["entries"] if entry["kind"] == "charge"]
        assert sum(entry["amount"] for entry in entries) == sum(map(sum, found.values()))
        return found
