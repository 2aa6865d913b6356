"""Agents in processes of their own."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.world.process import Process, python
from waystation.models.money import Money


class AgentProcess(Process):
    """``waystation agent``."""

    def __init__(self, folder: Path, *references: str, env: dict[str, str], name: str = "agent") -> None:
        super().__init__(*python("waystation", "agent", *references), log=folder / f"{name}.log", env=env)

    async def ready(self) -> None:
        """Waits until it takes turns, which it does once the API takes what it writes."""
        await self.says("Running agents")


@contextmanager
def running_agent(folder: Path, *references: str, env: dict[str, str]) -> Iterator[AgentProcess]:
    """Starts one, whether it gets ready or not, and kills it."""
    with AgentProcess(folder, *references, env=env) as agent:
        yield agent


class RawAgentProcess(Process):
    """An agent as in another language: Temporal's activity and the agents' socket, without our SDK."""

    def __init__(self, folder: Path, *, env: dict[str, str], name: str) -> None:
        super().__init__(*python("tests.torture.agents.raw"), log=folder / f"{name}.log", env=env)

    async def ready(self) -> None:
        """Waits until it takes turns."""
        await self.says("Running agents")


class PayingProcess(Process):
    """A program that pays with the SDK, and is no agent; ``orders`` say what for."""

    def __init__(self, folder: Path, *, env: dict[str, str], name: str, orders: dict[str, object]) -> None:
        env = {**env, "TORTURE_ORDERS": json.dumps({**orders, "name": name})}
        super().__init__(*python("tests.torture.agents.paying"), log=folder / f"{name}.log", env=env)

    async def ready(self) -> None:
        """Waits until it pays."""
        await self.says("Paying")


class HolderProcess(Process):
    """An agent that pays ``payments`` requests from an allowance which it holds, and ends with 0."""

    def __init__(
        self,
        folder: Path,
        *,
        temporal: str,
        queue: str,
        processor: str,
        wallet_key: str,
        rpc: str,
        mandate: str,
        agent: str,
        seller: str,
        path: str,
        allowance: str,
        rail: str,
        price: Money,
        payments: int,
    ) -> None:
        options = {
            "temporal": temporal, "queue": queue, "processor": processor, "key": wallet_key, "rpc": rpc,
            "mandate": mandate, "agent": agent, "seller": seller, "path": path, "allowance": allowance,
            "rail": rail, "currency": price.currency, "price": price.amount, "payments": payments,
            "journal": folder / "journal",
        }  # fmt: skip
        flags = (part for name, value in options.items() for part in (f"--{name}", value))
        super().__init__(*python("tests.world.allowance_holder", *flags), log=folder / "holder.log")
