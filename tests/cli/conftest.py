"""One ``waystation dev`` for the tests of commands; tests that kill it start their own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.commands import DevProcess

OWN_AGENT = """
from waystation.agent import Agent, Turn

agent = Agent("echo")


@agent.turn
async def answer(turn: Turn) -> None:
    await turn.write(f"You said: {turn.text}")
"""


@pytest.fixture(scope="package")
async def dev(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DevProcess]:
    folder = Path(tmp_path_factory.mktemp("dev"))
    (folder / "my_agents.py").write_text(OWN_AGENT)
    async with DevProcess(folder, "--agent", "my_agents:agent") as dev:
        yield dev
