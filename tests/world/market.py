"""A market: processor, two shops that share it, and a paid API with facilitator and chain."""

from pathlib import Path
from typing import Final

from tests.world.process import HttpProcess
from tests.world.sandbox import PaidApi, Processor, Shop

SHOP_KEY: Final = "shop_key_for_tests_only"
SHOPS: Final = {"shop-1": "shop", "shop-2": "boutique"}
"""Each shop's account at the processor."""
WEBHOOK_SECRETS: Final = {name: f"whsec_for_tests_only_{account:3<24}" for name, account in SHOPS.items()}


class MarketProcesses:
    """Each can be killed and started again; shops send their webhooks to one address."""

    def __init__(self, folder: Path, webhooks: str) -> None:
        recovery = ("--recovery-after-seconds", "3", "--stripe-timeout-seconds", "5")
        self.processor = Processor(folder)
        self.shops = {
            name: Shop(
                folder,
                self.processor,
                *("--stripe-key", f"sk_test_{account}", "--webhook-url", webhooks, *recovery),
                called=name,
                env={
                    "WAYSTATION_SHOP_API_KEY": SHOP_KEY,
                    "WAYSTATION_SHOP_WEBHOOK_SECRET": WEBHOOK_SECRETS[name],
                },
            )
            for name, account in SHOPS.items()
        }
        self.paid_api = PaidApi(folder, self.processor, "--lease-seconds", "3")

    @property
    def processes(self) -> dict[str, HttpProcess]:
        return {"processor": self.processor, **self.shops, "paid-api": self.paid_api}

    async def start(self) -> None:
        """Starts all of them, and waits until they serve."""
        for process in self.processes.values():
            process.start()
        for process in self.processes.values():
            await process.ready()

    def kill(self) -> None:
        for process in self.processes.values():
            process.kill()
