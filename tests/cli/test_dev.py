"""``waystation dev`` itself: killed, started again, in each other's way, misconfigured."""

import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from itertools import cycle, islice
from pathlib import Path
from urllib.parse import parse_qsl

import httpx
import pytest

from tests.cli.commands import DevProcess, alive, descendants, parent_of, run
from tests.support import eventually, free_port
from waystation.agents.demo import WORDS
from waystation.dev.local import EXIT_MISCONFIGURED

CHILDREN = ("temporal", "worker", "api", "agents")


@pytest.fixture(scope="module")
async def bare(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DevProcess]:
    """Without the sandbox, whose processes have the same keeper and take half of the time to start; the last
    test here ends it."""
    async with DevProcess(tmp_path_factory.mktemp("bare"), "--no-sandbox") as dev:
        yield dev


async def mid_answer(dev: DevProcess, session_id: str) -> None:
    dev.session("start", "demo", "--id", session_id, "-m", "tokens=100 rate=10")
    await eventually(lambda: dev.count(session_id, "message.delta"), what="the agent writes")


@pytest.mark.thorough
async def test_kill_9_leaves_nothing_behind_and_a_new_start_continues(bare: DevProcess) -> None:
    await mid_answer(bare, "survivor")
    children = descendants(bare.process.popen.pid)
    assert {bare.pid(name) for name in CHILDREN} <= children

    bare.process.kill()
    await eventually(lambda: not any(alive(pid) for pid in children), what="no child is left behind")

    await bare.start()
    await eventually(lambda: bare.count("survivor", "turn.completed"), within=40, what="the turn completes")
    events = bare.events("survivor")
    ends = [event["type"] for event in events if re.match(r"turn\.(completed|stopped|failed)", event["type"])]
    assert ends == ["turn.completed"]
    assert sum(event["type"] == "turn.retried" for event in events) == 1
    [answer] = [
        event["data"]["text"]
        for event in events
        if event["type"] == "message.completed" and event["actor"]["role"] == "agent"
    ]
    assert answer == "".join(word + " " for word in islice(cycle(WORDS), 100))


@pytest.mark.thorough
async def test_a_killed_child_is_started_again_and_takes_its_command_along(bare: DevProcess) -> None:
    before = bare.pid("agents")
    assert before is not None
    os.kill(parent_of(before), signal.SIGKILL)

    await eventually(lambda: not alive(before), what="the agents' process goes with its keeper")
    await eventually(lambda: bare.pid("agents") not in (None, before), what="another agents' process runs")
    bare.session("start", "demo", "--id", "later", "-m", "tokens=5 rate=0")
    await eventually(lambda: bare.count("later", "turn.completed"), what="it answers")


def test_a_second_one_in_the_same_folder_is_refused(dev: DevProcess) -> None:
    ports = ("--port", str(free_port()), "--temporal-port", str(free_port()))
    done = run("dev", *ports, cwd=dev.folder)
    assert done.returncode == EXIT_MISCONFIGURED
    assert "another 'waystation dev' uses" in done.stderr
    assert "--state" in done.stderr
    assert "session.started" in dev.session("replay", dev.session("start", "demo").strip())


def test_the_start_page_s_address_signs_in_as_who_uses_it(dev: DevProcess) -> None:
    found = re.search(r"Start page +(http://\S+)", dev.process.output)
    assert found
    address, _, fragment = found[1].partition("#/start?")
    assert "<title>Waystation</title>" in httpx.get(address).text
    tokens = [value for name, value in parse_qsl(fragment) if name == "token"]
    roles = [
        httpx.get(f"{address}me", headers={"Authorization": f"Bearer {token}"}).json()["role"]
        for token in tokens
    ]
    assert roles == ["client", "operator", "approver"]
    shown = httpx.get(f"{address}dev/places", headers={"Authorization": f"Bearer {tokens[0]}"}).json()[
        "places"
    ]
    assert shown["api"] + "/" == address
    assert shown.keys() == {"api", "temporal_ui", "shop", "paid_api", "processor"}
    namespace = httpx.get(f"{shown['temporal_ui']}/api/v1/namespaces/default").json()
    assert namespace["namespaceInfo"]["name"] == "default", "it is Temporal's page, of this server"
    assert shown["temporal_ui"] in dev.process.output
    assert httpx.get(f"{address}dev/places").status_code == 401, "strangers learn no address"


@pytest.mark.parametrize("option", ["--port", "--temporal-port", "--temporal-ui-port"])
def test_a_port_in_use_is_said(tmp_path: Path, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"--port": str(free_port()), "--temporal-port": str(free_port()), option: str(port)}
        done = run("dev", *(word for pair in ports.items() for word in pair), cwd=tmp_path)
    assert done.returncode == EXIT_MISCONFIGURED
    assert f"waystation: port {port} is in use; choose another with {option}." in done.stderr


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("nowhere:agent", "No module named 'nowhere'"),
        ("waystation.agents.demo:nobody", "has no attribute 'nobody'"),
        ("waystation.agents.demo:WORDS", "is not a waystation.Agent"),
    ],
)
def test_an_unknown_agent_is_said(tmp_path: Path, reference: str, reason: str) -> None:
    done = run("agent", reference, cwd=tmp_path)
    assert done.returncode == EXIT_MISCONFIGURED
    assert reason in done.stderr
    assert reference in done.stderr
    assert "Traceback" not in done.stderr


def test_dev_ends_with_the_reason_when_an_agent_cannot_be_loaded(tmp_path: Path) -> None:
    ports = ("--port", str(free_port()), "--temporal-port", str(free_port()))
    done = run("dev", *ports, "--no-sandbox", "--agent", "nowhere:agent", cwd=tmp_path, within=60)
    assert done.returncode == EXIT_MISCONFIGURED
    assert "can't load the agent 'nowhere:agent'" in done.stderr
    assert "No module named 'nowhere'" in done.stderr


async def test_without_the_sandbox_the_rest_runs(bare: DevProcess) -> None:
    assert [name for name in ("processor", "shop", "paid-api") if bare.pid(name)] == []
    assert all(bare.pid(name) for name in CHILDREN)
    bare.session("start", "demo", "--id", "alone", "-m", "tokens=3 rate=0")
    await eventually(lambda: bare.count("alone", "turn.completed"), what="the agent answers")
    granted = run(
        "mandate", "create", "--owner", "dev-approver", "--agent", "shopper", "--cap", "1000",
        "--seller", "https://shop.example", "--payment-method", "pm_card_visa", cwd=bare.folder,
    )  # fmt: skip
    assert granted.returncode == 0, granted.stderr


async def test_sigterm_ends_everything_within_seconds(bare: DevProcess) -> None:
    children = descendants(bare.process.popen.pid)
    bare.process.popen.terminate()
    assert bare.process.popen.wait(20) == 0
    assert not [pid for pid in children if alive(pid)]
    assert "sessions continue when you restart it" in bare.process.output
