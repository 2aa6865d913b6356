"""The wheel in a clean environment, beside another package that is called ``workflows``."""

import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.support import ROOT, eventually
from tests.world.dev import Dev

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NEIGHBOUR = "llama-index-workflows"

OWN_AGENT = """
from workflows import Workflow, step
from workflows.events import StartEvent, StopEvent

from waystation.agent import Agent, Turn

agent = Agent("llama")


class Shout(Workflow):
    @step
    async def shout(self, event: StartEvent) -> StopEvent:
        return StopEvent(result=event.text.upper())


@agent.turn
async def answer(turn: Turn) -> None:
    await turn.write(str(await Shout().run(text=turn.text)))
"""


class Environment(NamedTuple):
    """A virtual environment that knows nothing of the checkout."""

    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def run(self, *arguments: str, cwd: Path) -> str:
        done = subprocess.run(
            [self.python, *arguments],
            cwd=cwd,
            env=outside(),
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def install(self, *requirements: str) -> None:
        constraints = str(ROOT / "constraints.txt")
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", constraints)
        self.run(*pip, *requirements, cwd=self.folder)


def outside() -> dict[str, str]:
    hidden = ("WAYSTATION_", "PYTHONPATH", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)],
        env={**outside(), "PIP_CONSTRAINT": str(ROOT / "constraints.txt")},
        capture_output=True,
        timeout=300,
        check=True,
    )
    [built] = folder.glob("*.whl")
    return built


def clean(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=True)
    return Environment(folder)


@pytest.fixture(scope="module")
def light(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """No extras at all."""
    environment = clean(tmp_path_factory)
    environment.install(str(wheel))
    return environment


@pytest.fixture(scope="module")
def full(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Everything that runs the service, installed before the neighbour and again after it."""
    environment = clean(tmp_path_factory)
    environment.install(f"waystation[server] @ {wheel.as_uri()}")
    environment.install(NEIGHBOUR)
    environment.install("--force-reinstall", "--no-deps", str(wheel))
    return environment


def test_a_client_needs_neither_temporal_nor_a_web_framework(light: Environment, tmp_path: Path) -> None:
    script = (
        "import sys, waystation.client, waystation.client.transcript; waystation.client.Client('http://127.0.0.1:1');"
        "print([name for name in ('temporalio', 'fastapi', 'rich') if name in sys.modules])"
    )
    assert light.run("-c", script, cwd=tmp_path).strip() == "[]"
    installed = {
        entry["name"]
        for entry in json.loads(light.run("-m", "pip", "list", "--format", "json", cwd=tmp_path))
    }
    assert not installed & {"temporalio", "fastapi", "stripe", "typer"}


def test_the_command_says_what_it_lacks(light: Environment, tmp_path: Path) -> None:
    done = subprocess.run(
        [light.python, "-m", "waystation", "--help"],
        cwd=tmp_path,
        env=outside(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'waystation[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("extra", "module"),
    [
        ("cli", "waystation.cli.main"),
        ("agent", "waystation.agents.demo"),
        ("agent,payments", "waystation.buyer.credentials, waystation.buyer.wallet"),
        ("seller", "waystation.seller, waystation.seller.paywall"),
    ],
)
def test_an_extra_brings_what_its_modules_import(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory, extra: str, module: str
) -> None:
    environment = clean(tmp_path_factory)
    environment.install(f"waystation[{extra}] @ {wheel.as_uri()}")
    environment.run("-c", f"import {module}", cwd=environment.folder)


def test_the_neighbours_package_stays_its_own(full: Environment, tmp_path: Path) -> None:
    script = (
        "import workflows, waystation; workflows.Workflow;"
        "print(workflows.__file__); print(waystation.__file__)"
    )
    neighbours, ours = full.run("-c", script, cwd=tmp_path).split()
    assert neighbours.endswith("site-packages/workflows/__init__.py")
    assert ours.startswith(str(full.folder))
    assert not (Path(neighbours).parent / "session.py").exists()


@pytest.fixture
async def dev(full: Environment, tmp_path: Path) -> AsyncIterator[Dev]:
    (tmp_path / "mine.py").write_text(OWN_AGENT)
    # A module of a person's own that is called like one of ours must harm nobody.
    (tmp_path / "api.py").write_text("raise RuntimeError('not this one')")
    command = (str(full.folder / "bin" / "waystation"),)
    async with Dev(tmp_path, "--agent", "mine:agent", command=command) as dev:
        yield dev


async def test_dev_starts_from_another_folder_and_answers(
    full: Environment, dev: Dev, tmp_path: Path
) -> None:
    found = re.search(r"Start page +(http://[^#]+)", dev.process.output)
    assert found
    async with httpx.AsyncClient(base_url=found[1]) as http:
        assert "<title>Waystation</title>" in (await http.get("/")).text
        assert (await http.get("/console/views/session.js")).status_code == 200

    def session(*arguments: str) -> str:
        return full.run("-m", "waystation", "session", *arguments, cwd=tmp_path)

    for agent, message, answer in (
        ("demo", "tokens=4 rate=0", "A durable session keeps "),
        ("llama", "hello", "HELLO"),
    ):
        session_id = session("start", agent, "-m", message).strip()
        await eventually(
            lambda session_id=session_id: "turn.completed" in session("replay", session_id),  # type: ignore[misc]
            what=f"{agent} answers",
        )
        events = [json.loads(line) for line in session("replay", session_id).splitlines()]
        assert answer in [event.get("data", {}).get("text") for event in events]
