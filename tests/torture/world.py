"""The processes of a run, the wires between them, and who starts them again when they have died."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic import SecretStr
from temporalio.client import Client as TemporalClient

from tests.support import free_port
from tests.torture import market
from tests.torture.disk import small_disk
from tests.torture.market import Market
from tests.torture.plan import Plan
from tests.torture.proxy import Proxy
from tests.torture.record import Recorder
from tests.world.process import Process
from tests.world.redis import RedisServer, running_redis
from tests.world.stack import KEYS, Part, Stack
from tests.world.temporal import TemporalServer, running_temporal
from waystation.settings import Settings
from waystation.temporal.connect import data_converter, open_client

RESTART_SECONDS: Final = 0.3
"""The pause before a process that has ended is started again."""
LOOK_SECONDS: Final = 0.1
START_SECONDS: Final = 40.0
"""How long a process may take until it serves, while others are killed beside it."""
CLOCK_LIBRARY: Final = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
RECORD_VARIABLE: Final = "TORTURE_RECORD"
NAME_VARIABLE: Final = "TORTURE_NAME"
LIMITS: Final = {
    "limits__agent_start_timeout_seconds": 20,
    "limits__agent_return_timeout_seconds": 60,
    "limits__agent_heartbeat_timeout_seconds": 4,
    "limits__turn_timeout_seconds": 20,
    "limits__stop_grace_seconds": 2,
    "limits__max_attempts": 3,
}
"""Of every session, unless the plan says otherwise: short, so that what is bounded by them is seen to end."""


TALKING_AGENTS: Final = {"wild-1": ("wild", "asking"), "wild-2": ("wild", "asking")}
BUYING_AGENTS: Final = {"buyer-1": ("buying",), "buyer-2": ("buying",)}
"""Processes of agents, and the modules of each."""
PAYING_PROGRAMS: Final = ("payer-1", "payer-2")
HOLDS_KEYS: Final = frozenset({"buyer-2", "payer-2"})
"""The processes that pay from allowances by themselves."""


class Parts(Stack):
    """Two APIs, two workers and agent processes, which reach each other through wires."""

    def __init__(
        self,
        folder: Path,
        temporal: TemporalServer,
        wires: dict[str, Proxy],
        record: Path,
        sellers: Market | None,
        **settings: Any,
    ) -> None:
        super().__init__(folder, temporal, **settings)
        self._wires, self._record, self._market = wires, record, sellers

    def env(self, port: int, role: str) -> dict[str, str]:
        env = super().env(port, role)
        if self._market is not None:
            env["WAYSTATION_API_KEYS"] = market.with_people(env["WAYSTATION_API_KEYS"])
        return env

    def more_env(self, part: Part) -> dict[str, str]:
        return {**self._own_env(part), **(self._market.env(part) if self._market else {})}

    def _own_env(self, part: Part) -> dict[str, str]:
        env = {"TEMPORAL_ADDRESS": f"127.0.0.1:{self._wires[f'temporal-{part}'].port}"}
        if part == "agent":
            env |= {"WAYSTATION_URL": self._wires["agents"].url, RECORD_VARIABLE: str(self._record)}
        elif part == "worker":
            env |= {"WAYSTATION_URL": self._wires["people-1"].url}
        return env

    def agent_env(self, name: str, port: int | None = None) -> dict[str, str]:
        env = {**super().agent_env(name, port), NAME_VARIABLE: name}
        return {**env, **self._market.env("agent", holds_keys=name in HOLDS_KEYS)} if self._market else env


class World:
    """Everything that runs, by name. Who strikes a process says so here: then its end is expected."""

    def __init__(
        self, plan: Plan, folder: Path, record: Recorder, temporal: TemporalServer, redis: RedisServer
    ) -> None:
        self.plan, self.folder, self.record = plan, folder, record
        self.api_ports = [free_port(), free_port()]
        self.processes: dict[str, Process] = {"temporal": temporal, "redis": redis}
        self.wires = {
            name: Proxy(name, lambda ports=tuple(ports): ports)  # type: ignore[misc]
            for name, ports in {
                "people-1": self.api_ports,
                "people-2": self.api_ports[::-1],
                "agents": self.api_ports,
                "redis-wire": [redis.port],
                "temporal-api": [temporal.port],
                "temporal-worker": [temporal.port],
                "temporal-agent": [temporal.port],
            }.items()
        }
        self.market: Market | None = None
        self._temporal = temporal
        self.has_disk = False
        self._held: set[str] = set()
        self._struck: set[str] = set()
        self._stack: Parts | None = None
        self._ended: dict[str, bool] = {}
        self._serving: set[str] = set()
        self._coming: dict[str, asyncio.Task[None]] = {}
        self.stopping = False
        self.client: TemporalClient | None = None
        """Somebody with access to Temporal and the keys of its payloads, who reaches it without a wire."""

    @property
    def stack(self) -> Parts:
        assert self._stack is not None, "the world has started"
        return self._stack

    @property
    def urls(self) -> list[str]:
        """Where people find the API."""
        return [self.wires["people-1"].url, self.wires["people-2"].url]

    @property
    def disk(self) -> Path:
        """Where payloads are stored: a small disk, if there may be one (``has_disk``)."""
        return self.folder / "disk"

    @property
    def payloads(self) -> Path:
        return self.disk / "payloads"

    def key(self, role: str) -> str:
        return KEYS.get(role) or market.PEOPLE_KEYS[role]

    # Starting

    async def start(self, resources: AsyncExitStack) -> None:
        """Starts everything and waits until it serves."""
        self.has_disk = resources.enter_context(small_disk(self.disk))
        await self._start_wires(self.wires, resources)
        if self.plan.profile in market.PROFILES:
            await self._open_market(resources)
        settings = {
            **LIMITS,
            **self.plan.settings,
            "storage_dir": self.payloads,
            "redis_url": f"redis://127.0.0.1:{self.wires['redis-wire'].port}/0",
        }
        clock = settings.pop("clock", None)
        self._stack = Parts(
            self.folder, self._temporal, self.wires, self.record.path, self.market, **settings
        )
        resources.enter_context(self._stack)
        for number, port in enumerate(self.api_ports, 1):
            self.processes[f"api-{number}"] = self.stack.run_api(port)
        for name in ("worker-1", "worker-2"):
            self.processes[name] = self.stack.run_worker(name=name)
        for name, modules in self._agents():
            agents = (f"tests.torture.agents.{module}:agent" for module in modules)
            self.processes[name] = self.stack.run_agent(*agents, name=name)
        if self.market is not None:
            self._start_paying(self.market)
        if self.plan.profile != "money":
            self.processes["raw-1"] = self.stack.run_raw_agent(name="raw-1")
        if clock and CLOCK_LIBRARY.exists():
            self._shift_clock(**clock)
        await self._connect(resources)
        await self.ready()
        self._serving |= set(self.processes)

    async def _start_wires(self, wires: dict[str, Proxy], resources: AsyncExitStack) -> None:
        for wire in wires.values():
            await wire.start()
            resources.push_async_callback(wire.stop)

    async def _open_market(self, resources: AsyncExitStack) -> None:
        self.market = Market(self.folder, self.wires["people-1"].url)
        wires = self.market.make_wires()
        await self._start_wires(wires, resources)
        self.wires |= wires
        resources.callback(self.market.kill)
        await self.market.start()
        self.processes |= self.market.processes

    def _start_paying(self, sellers: Market) -> None:
        granted = [
            (actor.settings["mandate"], actor.settings["terms"]["cap"]["currency"])
            for actor in self.plan.actors
            if actor.kind == "principal" and actor.settings["generous"]
        ]
        for name in PAYING_PROGRAMS if granted else ():
            orders = {
                "seed": self.plan.seed,
                "mandates": granted[:2],  # which are granted early
                "seller": sellers.seller("paid-api"),
                "until": time.monotonic() + START_SECONDS / 2 + self.plan.seconds,
                "progress": str(self.progress_of(name)),
                "journal": str(self.folder / f"{name}.sqlite3"),
            }
            self.processes[name] = self.stack.run_paying_program(name=name, orders=orders)

    def progress_of(self, name: str) -> Path:
        """Returns the file in which a paying program says how far it is."""
        return self.folder / f"{name}.json"

    def _agents(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        if self.plan.profile != "money":
            yield from TALKING_AGENTS.items()
        if self.market is not None:
            yield from BUYING_AGENTS.items()

    def _shift_clock(self, process: str, seconds: float) -> None:
        """Starts a process again with a clock that is off by some seconds."""
        shifted = self.processes[process]
        shifted.kill()
        shifted.forks = False  # type: ignore[misc]  # the library is loaded when a program starts
        shifted.env |= {
            "LD_PRELOAD": str(CLOCK_LIBRARY),
            "FAKETIME": f"{seconds:+}s",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        shifted.start()

    async def _connect(self, resources: AsyncExitStack) -> None:
        settings = Settings(
            encryption_keys=[SecretStr(self.stack.encryption_key)],
            storage_dir=self.payloads,
            storage_threshold_bytes=self.plan.settings.get("storage_threshold_bytes", 262_144),
        )
        self.client = await open_client(
            self._temporal.address, data_converter=await data_converter(settings, resources)
        )

    async def ready(self) -> None:
        """Waits until every process serves."""
        for name in self.processes:
            if name not in ("temporal", "redis"):
                await self._ready(name)

    # What strikes

    def expect_end(self, name: str) -> None:
        """Says that a process is about to end by itself, because somebody told it to."""
        self._struck.add(name)

    def hold(self, name: str) -> None:
        """Keeps a process from being started again until it is let go."""
        self._held.add(name)

    def let_go(self, name: str) -> None:
        self._held.discard(name)

    def serves(self, name: str) -> bool:
        """Returns whether a process has come to serve since it was last started."""
        return name in self._serving and not self.processes[name].ended

    def kill(self, name: str) -> None:
        """kill -9."""
        self._struck.add(name)
        self.processes[name].signal(signal.SIGKILL)

    async def terminate(self, name: str, patience_seconds: float) -> float | None:
        """Sends SIGTERM, and returns how long the process took to end; ``None`` if it had to be killed.

        The time in which the machine had other things to do doesn't count.
        """
        process = self.processes[name]
        if process.ended:
            return 0.0
        self._struck.add(name)
        process.signal(signal.SIGTERM)
        took = await process.seconds_until_ended(within=patience_seconds)
        if took is None:
            process.signal(signal.SIGKILL)
        return took

    async def pause(self, name: str, seconds: float) -> None:
        """Stops a process as if its machine hung, and lets it go on."""
        process = self.processes[name]
        process.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            process.signal(signal.SIGCONT)

    # Who watches

    async def keep_running(self) -> None:
        """Starts what has ended again, and notes each end; for ever."""
        while True:
            for name, process in self.processes.items():
                if process.ended and not self.stopping:
                    await self._look_at_ended(name, process)
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_at_ended(self, name: str, process: Process) -> None:
        if not self._ended.get(name):
            self._ended[name] = True
            self._serving.discard(name)
            self.record.note(
                name,
                "ended",
                expected=name in self._struck,
                code=process.popen.returncode,
                said=process.output[-2_000:],
            )
        if name not in self._held:
            await asyncio.sleep(RESTART_SECONDS)
            self._struck.discard(name)
            process.start()
            self._ended[name] = False
            self.record.note(name, "started")
            self._coming[name] = asyncio.create_task(self._until_serving(name))

    async def _until_serving(self, name: str) -> None:
        with contextlib.suppress(AssertionError):  # it has been struck again, or takes too long
            await self._ready(name)
            self._serving.add(name)

    async def _ready(self, name: str) -> None:
        process = self.processes[name]
        if isinstance(process, RedisServer):
            await asyncio.to_thread(process.wait)
        else:
            await process.ready()  # type: ignore[attr-defined]

    async def calm(self) -> None:
        """Waits until everything serves again after the last fault."""
        for wire in self.wires.values():
            wire.heal()
        self._held.clear()
        deadline = time.monotonic() + START_SECONDS
        while any(process.ended for process in self.processes.values()) or not await self._healed():
            assert time.monotonic() < deadline, "everything has been started again"
            await asyncio.sleep(LOOK_SECONDS)
        await self.ready()

    async def _healed(self) -> bool:
        """Takes back the market's troubles, before one of them ends a process that is waited for."""
        if self.market is None:
            return True
        try:
            await asyncio.to_thread(self.market.heal)
        except httpx.HTTPError:
            return False  # one has just ended, or doesn't serve yet
        return True

    async def until_started_again(self, name: str) -> None:
        """Waits until a process that has ended runs and serves again."""
        deadline = time.monotonic() + START_SECONDS
        while self._ended.get(name, False) or self.processes[name].ended:
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(LOOK_SECONDS)
        with contextlib.suppress(AssertionError):  # it has been struck by something else
            await self._ready(name)

    def memory_bytes(self, name: str) -> int:
        """Returns the resident memory of a process; 0 if it has ended."""
        with contextlib.suppress(OSError):
            pages = Path(f"/proc/{self.processes[name].popen.pid}/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        return 0

    def seconds_without_processor(self, name: str) -> float:
        """Returns for how long a process could have run, but the machine had other things to do."""
        return self.processes[name].seconds_without_processor()

    def logs(self) -> dict[str, str]:
        return {name: process.output for name, process in self.processes.items()}


@asynccontextmanager
async def running_world(plan: Plan, folder: Path, record: Recorder) -> AsyncIterator[World]:
    """Starts the processes of a plan, yields them once they serve, and kills them."""
    async with AsyncExitStack() as resources:
        temporal = await resources.enter_async_context(running_temporal(folder, durable=True))
        redis = resources.enter_context(running_redis(folder))
        world = World(plan, folder, record, temporal, redis)
        await world.start(resources)
        watching = asyncio.create_task(world.keep_running())
        try:
            yield world
        finally:
            world.stopping = True
            for task in (watching, *world._coming.values()):
                task.cancel()
            await asyncio.gather(watching, *world._coming.values(), return_exceptions=True)
            for process in world.processes.values():
                process.signal(signal.SIGCONT)


def names(world: World) -> Sequence[str]:
    """Returns the names of the processes that are Waystation's own."""
    return [name for name in world.processes if name not in ("temporal", "redis")]
