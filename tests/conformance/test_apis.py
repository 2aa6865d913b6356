"""The kit for APIs: ours passes, and one that breaks a requirement fails it."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from subprocess import PIPE

import httpx
import pytest
from pydantic import SecretStr

from tests.conformance.broken_apis import DOWN, POSTED, UP, Changed, ChangedAnswers
from tests.support import ROOT
from tests.world.stack import KEYS, Stack
from waystation.client import Client
from waystation.conformance.api_bench import ApiBench, Line, dial
from waystation.conformance.api_turns import holding_turns
from waystation.conformance.apis import SCENARIOS, WITH_A_PROCESS
from waystation.conformance.report import Report
from waystation.conformance.requirements import API_SIDE
from waystation.conformance.scenarios import run_scenarios
from waystation.settings import Settings
from waystation.temporal.connect import data_converter, open_client

AT_THE_SAME_TIME = 6
A_STORM = "S-35"
"""A thousand refusals of one writer, beside which others aren't served in time on a busy machine."""
ENOUGH = 3
"""Of the scenarios that decide one requirement: three of them are decided by each of twenty refusals."""
REPRESENTATIVE = ("S-10", "S-30", "S-41", "S-60")
"""What is tried as people try it, with the scenarios of these; the rest is met by what breaks one alone."""


@pytest.mark.parametrize("only", [REPRESENTATIVE, pytest.param((), marks=pytest.mark.slow)])
async def test_our_api_passes(stack: Stack, only: tuple[str, ...]) -> None:
    environment = {**os.environ, **stack.env(stack.ports[0], "service")}
    wanted = [word for number in only for word in ("--only", number)]
    command = ("-m", "waystation", "conformance", "api", "--with-temporal", "--json", *wanted)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env=environment, cwd=ROOT, stdout=PIPE, stderr=PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    report = json.loads(out)["requirements"]
    assert [one for one in report if one["status"] != "passed"] == [], err.decode()
    assert len(report) == len(only or API_SIDE)
    assert process.returncode == 0


class BrokenBench(ApiBench):
    """A bench before an API that breaks one requirement."""

    def __init__(self, number: str, client: Client, report: Report) -> None:
        super().__init__(client, report, dial=self._broken)
        self._number, self._count = number, 0

    async def _broken(self, url: str, headers: Mapping[str, str]) -> Line:
        line = await dial(url, self.client.headers if self._number == "S-01" else headers, Changed)
        assert isinstance(line, Changed)
        self._count += 1
        line.number = self._count
        line.down = DOWN.get(self._number, line.down)
        line.up = partial(UP[self._number], line) if self._number in UP else line.up
        line.lies_about_its_end = self._number == "S-06"
        return line

    async def clear(self) -> None:
        await super().clear()
        self._count = 0


async def tried(number: str, stack: Stack) -> Report:
    report = Report(API_SIDE)
    http = httpx.AsyncClient(transport=ChangedAnswers(POSTED.get(number, {})), timeout=30)
    async with AsyncExitStack() as resources:
        await resources.enter_async_context(http)
        bench = BrokenBench(number, Client(stack.url, KEYS["service"], http=http), report)
        if number in WITH_A_PROCESS:
            keys = SecretStr(stack.encryption_key)
            converter = await data_converter(Settings(encryption_keys=(keys,)), resources)
            temporal = await open_client(stack.temporal.address, data_converter=converter)
            await resources.enter_async_context(holding_turns(temporal, bench.agent))
        await run_scenarios(bench, [one for one in SCENARIOS if number in one.decides][:ENOUGH], print)
    return report


@pytest.fixture(scope="module")
async def reports(stack: Stack) -> dict[str, Report]:
    """Of all broken APIs, several of which are tried at the same time: each mostly waits."""
    room = asyncio.Semaphore(AT_THE_SAME_TIME)

    async def one(number: str) -> tuple[str, Report]:
        async with room:
            return number, await tried(number, stack)

    storm = await one(A_STORM)
    others = await asyncio.gather(*(one(number) for number in API_SIDE if number != A_STORM))
    reports = dict([storm, *others])
    # The kit's bounds are for one API: where several are too many at a time, it says what it sees of one.
    for number in [number for number, report in reports.items() if report.failed != {number}]:
        reports[number] = (await one(number))[1]
    return reports


@pytest.mark.thorough
@pytest.mark.parametrize("number", API_SIDE)
def test_an_api_that_breaks_one_requirement_fails_that_one_alone(
    number: str, reports: dict[str, Report]
) -> None:
    report = reports[number]
    seen = [f"{one.id}: {seen}" for one, status, seen in report.rows() if status == "failed"]
    assert report.failed == {number}, seen
