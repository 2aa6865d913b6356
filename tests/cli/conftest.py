"""One ``waystation dev`` for the tests of commands; tests that kill it start their own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.commands import DevProcess

OWN_AGENT = """
from waystation.agent import Agent, ApprovalTerms, Turn

agent = Agent("echo")


@agent.turn
async def answer(turn: Turn) -> None:
    await turn.write(f"You said: {turn.text}")


asker = Agent("asker")


@asker.turn
async def ask(turn: Turn) -> object:
    match turn.text:
        case "number":
            return await turn.ask("How many?", answer=int, key="many")
        case "choice":
            return await turn.ask("Which?", choices=["wool", "linen"], key="which")
    terms = ApprovalTerms(editable=True, key="ok")
    async with turn.tool("delete", {"path": "notes.txt"}, approval=terms) as call:
        call.result = call.arguments
    return call.result
"""


@pytest.fixture(scope="package")
async def dev(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DevProcess]:
    folder = Path(tmp_path_factory.mktemp("dev"))
    (folder / "my_agents.py").write_text(OWN_AGENT)
    async with DevProcess(folder, "--agent", "my_agents:agent", "--agent", "my_agents:asker") as dev:
        yield dev
