"""``waystation agent`` beside a ``waystation dev``: it gets what that one's agents have, and no more."""

import json
from pathlib import Path

import pytest

from tests.cli.commands import DevProcess, run
from tests.support import eventually
from waystation.dev.local import AGENT_FILE, read_agent_environment, write_private

PARROT = """
from waystation.agent import Agent, Turn

agent = Agent("parrot")


@agent.turn
async def answer(turn: Turn) -> None:
    await turn.write(turn.text)
"""
KNOWN = {
    "TEMPORAL_ADDRESS": "127.0.0.1:7470",
    "WAYSTATION_URL": "http://127.0.0.1:8470",
    "WAYSTATION_ENCRYPTION_KEYS": '["dev:…"]',
    "WAYSTATION_API_KEY": "ws_agent",
}


@pytest.mark.thorough
async def test_an_agent_in_the_folder_of_a_dev_takes_turns(dev: DevProcess) -> None:
    (dev.folder / "my_parrot.py").write_text(PARROT)
    with dev.agents_beside("my_parrot:agent"):
        dev.session("start", "parrot", "--id", "beside", "-m", "hello")
        await eventually(lambda: dev.count("beside", "turn.completed"), within=40, what="the agent answers")


@pytest.mark.thorough
def test_it_gets_the_keys_that_agents_hold_and_no_others(dev: DevProcess) -> None:
    left = json.loads((dev.folder / ".waystation" / AGENT_FILE).read_text())
    assert {name for name in left if "KEY" in name or "SECRET" in name or "CREDENTIAL" in name} == {
        "WAYSTATION_API_KEY",
        "WAYSTATION_ENCRYPTION_KEYS",
        "WAYSTATION_SELLER_CREDENTIALS",
    }
    assert left["WAYSTATION_API_KEY"].startswith("ws_agent_")


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({}, True),
        ({"WAYSTATION_AGENT_CONCURRENCY": "5"}, True),
        ({"WAYSTATION_API_KEY": "ws_agent"}, True),
        ({"WAYSTATION_API_KEY": "ws_service"}, True),
        (KNOWN, True),
        ({"WAYSTATION_API_KEY": "another"}, False),
        ({"WAYSTATION_URL": "https://elsewhere.example"}, False),
        ({"TEMPORAL_ADDRESS": "elsewhere.example:7233"}, False),
        ({"WAYSTATION_ENCRYPTION_KEYS": "[]"}, False),
    ],
)
def test_an_environment_that_leads_elsewhere_is_left_alone(
    tmp_path: Path, given: dict[str, str], taken: bool
) -> None:
    write_private(tmp_path / AGENT_FILE, KNOWN)
    write_private(tmp_path / "client.json", {"WAYSTATION_API_KEY": "ws_service"})
    found = read_agent_environment(tmp_path, given)
    assert found == ({name: KNOWN[name] for name in KNOWN if name not in given} if taken else {})


def test_without_a_dev_one_sentence_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "my_parrot.py").write_text(PARROT)
    done = run("agent", "my_parrot:agent", cwd=tmp_path)
    assert done.returncode != 0
    assert "--state" in done.stderr
    assert "WAYSTATION_ENCRYPTION_KEYS" in done.stderr
    assert "Traceback" not in done.stderr
