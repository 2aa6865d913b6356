"""What passes, as people run it: the agent by our library, and the example without it."""

import asyncio
import json
import shlex
import sys
from subprocess import PIPE
from typing import Any

import pytest

from tests.support import ROOT
from tests.world.temporal import TemporalServer
from waystation.conformance.requirements import AGENT_SIDE

AGENTS = {
    "library": ((sys.executable, "-m", "waystation", "agent", "waystation.agents.conformance:agent"), ()),
    "example": ((sys.executable, "examples/raw_script.py"), ("--no-encryption",)),
}
NEEDED_SECONDS = 170
REPRESENTATIVE = ("A-30", "A-61", "T-09", "T-08")
"""What both agents are tried with as people try them, by the scenarios of these; the rest is slow."""


async def run(*arguments: str) -> tuple[int | None, str, str]:
    """The exit code of ``waystation conformance``, and what it has printed."""
    command = (sys.executable, "-m", "waystation", "conformance", *arguments)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=PIPE)
    out, err = await asyncio.wait_for(process.communicate(), NEEDED_SECONDS)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.timeout(NEEDED_SECONDS + 10)
@pytest.mark.parametrize("only", [REPRESENTATIVE, pytest.param((), marks=pytest.mark.slow)])
async def test_our_agents_pass(temporal_server: TemporalServer, only: tuple[str, ...]) -> None:
    # Both have the same name: the other run starts a server of its own.
    servers = (("--temporal", temporal_server.address), ())
    wanted = [[one for one in only if one != "T-09" or not options] for _, options in AGENTS.values()]
    runs = [
        run(
            "agent", "--command", shlex.join(command), "--json", *options, *server,
            *(word for number in numbers for word in ("--only", number)),
        )
        for (command, options), server, numbers in zip(AGENTS.values(), servers, wanted, strict=True)
    ]  # fmt: skip
    for (code, out, err), (_, options), numbers in zip(
        await asyncio.gather(*runs), AGENTS.values(), wanted, strict=True
    ):
        report: list[dict[str, Any]] = json.loads(out)["requirements"]
        assert [one for one in report if one["status"] != "passed"] == [], err[-3_000:]
        assert len(report) == len(numbers or AGENT_SIDE) - (0 if numbers else len(options))
        assert code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "A-99"), "there is no requirement A-99"),
        (("--command", "no-such-program", "--only", "A-01"), "'no-such-program' can't be started"),
        (("--url", "nowhere"), "--url is"),
    ],
)
async def test_what_can_not_be_run_is_said_in_one_sentence(
    arguments: tuple[str, ...], said: str, temporal_server: TemporalServer
) -> None:
    code, out, err = await run("agent", "--temporal", temporal_server.address, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
