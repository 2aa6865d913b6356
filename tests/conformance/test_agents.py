"""The kit for agents: what holds passes, and what is broken fails, alone."""

import asyncio
import secrets
from collections.abc import Sequence

import pytest

from tests.conformance.mutants import MUTANTS, Change, running_agent, source
from tests.world.temporal import TemporalServer
from waystation.conformance.agent_bench import Bench
from waystation.conformance.agents import SCENARIOS, connect
from waystation.conformance.played_api import PlayedApi
from waystation.conformance.report import Report
from waystation.conformance.requirements import AGENT_SIDE
from waystation.conformance.scenarios import run_scenarios
from waystation.conformance.temporal_side import TemporalSide
from waystation.temporal.encryption import generate_key

AT_THE_SAME_TIME = 12


async def tried(number: str, changes: Sequence[Change], address: str) -> Report:
    """The report on an agent with these changes, from the scenarios that decide a requirement."""
    encryption = [f"k1:{generate_key()}"] if number == "T-09" else []
    report = Report(AGENT_SIDE)
    name = f"mutant-{number}-{secrets.token_hex(4)}"
    client = await connect(address, encryption)
    async with PlayedApi() as api, TemporalSide(client, name) as temporal:
        key = secrets.token_hex(8)
        environment = {"WAYSTATION_URL": api.url, "WAYSTATION_API_KEY": key, "TEMPORAL_ADDRESS": address}
        async with running_agent(source(changes), name, environment, *encryption) as agent:
            bench = Bench(api, temporal, report, name, agent, key)
            await run_scenarios(bench, [one for one in SCENARIOS if number in one.decides], print)
    return report


@pytest.fixture(scope="module")
async def reports(temporal_server: TemporalServer) -> dict[str, Report]:
    """Of all mutants, several of which run at the same time: they mostly wait."""
    room = asyncio.Semaphore(AT_THE_SAME_TIME)

    async def one(number: str) -> tuple[str, Report]:
        async with room:
            return number, await tried(number, MUTANTS[number], temporal_server.address)

    reports = dict(await asyncio.gather(*map(one, MUTANTS)))
    # The kit's bounds are for one agent: where twelve are too many at a time, it says what it sees of one.
    for number in [number for number, report in reports.items() if report.failed != {number}]:
        reports[number] = (await one(number))[1]
    return reports


@pytest.mark.thorough
@pytest.mark.parametrize("number", AGENT_SIDE)
def test_an_agent_that_breaks_one_requirement_fails_that_one_alone(
    number: str, reports: dict[str, Report]
) -> None:
    report = reports[number]
    seen = [f"{one.id}: {seen}" for one, status, seen in report.rows() if status == "failed"]
    assert report.failed == {number}, seen
