"""Runs the list for the API against one that serves."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from waystation.client import Client
from waystation.conformance import api_questions, api_refusals, api_turns, api_writing
from waystation.conformance.api_bench import ApiBench
from waystation.conformance.report import Report
from waystation.conformance.requirements import API_SIDE
from waystation.conformance.scenarios import Scenario, run_scenarios, scenarios_of
from waystation.settings import read_settings
from waystation.temporal.connect import connect

SCENARIOS: Final[tuple[Scenario[ApiBench], ...]] = (
    *scenarios_of(api_writing, api_refusals, api_turns, api_questions),
    *api_refusals.REFUSED,
)
WITH_A_PROCESS: Final = frozenset({"S-37", "S-41"})
"""They need a process that has the turn, and so Temporal."""


async def try_api(
    url: str, key: str, *, with_temporal: bool, only: tuple[str, ...], tell: Callable[[str], None]
) -> Report:
    """Runs the list, and returns what was found.

    Raises:
        WaystationError: The API can't be reached, or refuses the key; or Temporal can't be reached.
    """
    requirements = {n: one for n, one in API_SIDE.items() if with_temporal or n not in WITH_A_PROCESS}
    report = Report(requirements, only)
    async with AsyncExitStack() as resources:
        client = await resources.enter_async_context(Client(url, key))
        bench = ApiBench(client, report)
        if with_temporal:
            temporal = await connect(read_settings(), resources)
            await resources.enter_async_context(api_turns.holding_turns(temporal, bench.agent))
        await run_scenarios(bench, SCENARIOS, tell)
    return report
