"""Runs the list for agents against an implementation of them."""

import asyncio
import json
import os
import secrets
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final, NamedTuple, TextIO

from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.service import RPCError

from waystation.conformance import agent_questions, agent_turns, agent_writing
from waystation.conformance.agent_bench import Bench, Subject
from waystation.conformance.played_api import PlayedApi, until
from waystation.conformance.report import Report
from waystation.conformance.requirements import AGENT_SIDE
from waystation.conformance.scenarios import Scenario, run_scenarios, scenarios_of
from waystation.conformance.temporal_side import TemporalSide
from waystation.dev.ports import free_ports
from waystation.dev.processes import DEV_SERVER_OPTIONS, find_temporal
from waystation.errors import StartError
from waystation.models.urls import parse_url
from waystation.temporal.encryption import encrypting_data_converter, encryption_codec, generate_key
from waystation.temporal.payload_converter import SharedPydanticPayloadConverter

SCENARIOS: Final[tuple[Scenario[Bench], ...]] = scenarios_of(agent_writing, agent_questions, agent_turns)
START_SECONDS: Final = 40.0
BY_HAND_SECONDS: Final = 300.0
"""What a person may need to start an agent."""
PAUSE_SECONDS: Final = 0.2


class Wishes(NamedTuple):
    """What a run is asked for."""

    agent: str
    command: str | None
    url: str | None
    """Where the played API listens; any free port by default."""
    temporal: str | None
    """The address of a Temporal server; one is started by default."""
    encrypted: bool
    only: tuple[str, ...]


class ByHand:
    """An agent that somebody has started, whom nobody here may end."""

    async def terminate(self, within: float) -> bool | None:
        """Returns None: it can't be asked to end."""
        return None


class Command:
    """An agent that was started here."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def terminate(self, within: float) -> bool | None:
        """Sends SIGTERM; returns whether it ended in time."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), within)
        return self._process.returncode is not None


async def try_agents(wishes: Wishes, tell: Callable[[str], None]) -> Report:
    """Runs what is wished for, and returns what was found.

    Raises:
        StartError: Temporal or the command can't be started.
    """
    requirements = {number: one for number, one in AGENT_SIDE.items() if number != "T-09" or wishes.encrypted}
    report = Report(requirements, wishes.only)
    keys = [f"conformance:{generate_key()}"] if wishes.encrypted else []
    async with AsyncExitStack() as resources:
        address = wishes.temporal
        if address is None:
            address = await resources.enter_async_context(_temporal())
        api = await resources.enter_async_context(PlayedApi(*_place(wishes.url)))
        key = secrets.token_urlsafe(24)
        environment = {
            "WAYSTATION_URL": api.url, "WAYSTATION_API_KEY": key,
            "TEMPORAL_ADDRESS": address, "WAYSTATION_ENCRYPTION_KEYS": json.dumps(keys),
        }  # fmt: skip
        side = TemporalSide(await connect(address, keys), wishes.agent)
        temporal = await resources.enter_async_context(side)
        subject: Subject = ByHand()
        if wishes.command:
            subject = await resources.enter_async_context(_started(wishes.command, environment))
        else:
            tell(f"Start the agent '{wishes.agent}' with:")
            for name, value in environment.items():
                tell(f"  export {name}={shlex.quote(value)}")
            await until(lambda: api.connections, BY_HAND_SECONDS)
        bench = Bench(api, temporal, report, wishes.agent, subject, key)
        await run_scenarios(bench, SCENARIOS, tell)
    return report


def _place(url: str | None) -> tuple[str, int]:
    if url is None:
        return "127.0.0.1", 0
    try:
        parsed = parse_url(url)
    except ValueError as error:
        raise StartError(
            f"--url is {error}; give the address at which to listen, http://127.0.0.1:8470."
        ) from None
    return parsed.host, parsed.port or 80


async def connect(address: str, keys: list[str]) -> Client:
    """Returns a client of a Temporal server that may still be starting.

    Raises:
        StartError: It doesn't answer.
    """
    converter = DataConverter(payload_converter_class=SharedPydanticPayloadConverter)
    if keys:
        converter = encrypting_data_converter(encryption_codec(keys))
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client = await Client.connect(address, data_converter=converter)
            await client.count_workflows("")
        except (RuntimeError, RPCError) as error:
            if time.monotonic() > deadline:
                raise StartError(
                    f"Temporal can't be reached at {address}; see --temporal. ({error})"
                ) from error
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return client


@asynccontextmanager
async def _temporal() -> AsyncIterator[str]:
    """Starts Temporal's dev server, and yields its address."""
    [port] = free_ports(1)
    command = (find_temporal(), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port),
               "--log-level", "error", *DEV_SERVER_OPTIONS)  # fmt: skip
    async with _running(command, {}, sys.stderr):
        yield f"127.0.0.1:{port}"


@asynccontextmanager
async def _started(command: str, environment: dict[str, str]) -> AsyncIterator[Command]:
    """Starts the agent; what it prints goes to standard error."""
    async with _running(shlex.split(command), environment, sys.stderr) as process:
        yield Command(process)


@asynccontextmanager
async def _running(
    command: Sequence[str], environment: dict[str, str], output: TextIO
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Starts a command in a process group of its own, which is killed in the end."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    except OSError as error:
        raise StartError(f"{command[0]!r} can't be started: {error.strerror}.") from error
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
