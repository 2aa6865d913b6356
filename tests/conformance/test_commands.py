"""What passes, as people run it: the agent by our library, and the example without it."""

import asyncio
import json
import shlex
import sys
from subprocess import PIPE

import pytest

from tests.support import ROOT
from tests.world.temporal import TemporalServer
from waystation.conformance.requirements import AGENT_SIDE

AGENTS = {
    "library": ((sys.executable, "-m", "waystation", "agent", "waystation.agents.conformance:agent"), ()),
    "example": ((sys.executable, "examples/raw_script.py"), ("--no-encryption",)),
}
NEEDED_SECONDS = 170


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.timeout(NEEDED_SECONDS + 10)
async def test_an_agent_passes(name: str, temporal_server: TemporalServer) -> None:
    command, options = AGENTS[name]
    arguments = ("--command", shlex.join(command), "--temporal", temporal_server.address, "--json", *options)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "waystation",
        "conformance",
        "agent",
        *arguments,
        cwd=ROOT,
        stdout=PIPE,
        stderr=PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), NEEDED_SECONDS)
    report = json.loads(out)["requirements"]
    assert [one for one in report if one["status"] != "passed"] == [], err.decode()[-3_000:]
    assert len(report) == len(AGENT_SIDE) - len(options)
    assert process.returncode == 0
