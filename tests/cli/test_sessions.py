"""``waystation session …`` against a running ``waystation dev``."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import pytest

from tests.cli.commands import DevProcess, Terminal, run
from tests.support import eventually
from tests.world.dev import COMMAND
from waystation.agents.demo import WORDS
from waystation.dev.local import EXIT_MISCONFIGURED

ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
"""A terminal that can show nothing else."""


def spoken(words: int) -> str:
    return "".join(word + " " for word in islice(cycle(WORDS), words))


async def finished(dev: DevProcess, session_id: str, *, turns: int = 1) -> None:
    await eventually(lambda: dev.count(session_id, "turn.completed") == turns, what="the turn completes")


@contextmanager
def tail(dev: DevProcess, session_id: str, **environment: str) -> Iterator[Terminal]:
    terminal = Terminal(*COMMAND, "session", "tail", session_id, cwd=dev.folder, **environment)
    try:
        yield terminal
    finally:
        terminal.close()


async def test_start_prints_the_id_and_is_idempotent(dev: DevProcess) -> None:
    first = dev.session("start", "demo", "--id", "once", "-m", "tokens=5 rate=0")
    again = dev.session("start", "demo", "--id", "once", "-m", "tokens=5 rate=0")

    assert first == again == "once\n"
    await finished(dev, "once")
    assert dev.count("once", "session.started") == 1


async def test_send_answers_and_replay_prints_what_came_of_it(dev: DevProcess) -> None:
    session_id = dev.session("start", "demo").strip()
    sent = json.loads(dev.session("send", session_id, "tokens=20 rate=0"))
    await finished(dev, session_id)
    events = [json.loads(line) for line in dev.session("replay", session_id).splitlines()]

    assert sent["status"] == "started"
    assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})
    [message] = [
        event
        for event in events
        if event["type"] == "message.completed" and event["actor"]["role"] == "agent"
    ]
    assert message["data"]["text"] == spoken(20)
    last = dev.session("replay", session_id, "--after", str(events[-2]["seq"]))
    assert json.loads(last) == events[-1]


async def test_steer_and_stop_say_what_came_of_them(dev: DevProcess) -> None:
    session_id = dev.session("start", "demo", "-m", "tokens=2000 rate=40").strip()
    await eventually(lambda: dev.count(session_id, "message.delta"), what="the agent writes")
    steered = json.loads(dev.session("steer", session_id, "shorter"))
    stopped = json.loads(dev.session("stop", session_id))
    again = json.loads(dev.session("stop", session_id))

    assert steered["outcome"] == "consumed"
    assert stopped["outcome"] == "stopped"
    assert again["outcome"] == "already_finished"
    [end] = [event for event in dev.events(session_id) if event["type"] == "turn.stopped"]
    assert end["seq"] == stopped["seq"] == again["seq"]


async def test_an_agent_from_the_folder_runs_beside_the_demo(dev: DevProcess) -> None:
    session_id = dev.session("start", "echo", "-m", "hello").strip()
    await finished(dev, session_id)
    assert "You said: hello" in [
        event["data"].get("text") for event in dev.events(session_id) if "data" in event
    ]


async def test_tail_shows_a_live_answer_and_ctrl_c_leaves_the_agent_running(dev: DevProcess) -> None:
    session_id = dev.session("start", "demo", "-m", "tokens=10000 rate=25").strip()
    with tail(dev, session_id) as terminal:
        await eventually(lambda: "A durable session" in terminal.text, what="the answer appears")
        terminal.press_ctrl_c()
        await eventually(terminal.ended, what="tail ends on Ctrl-C")
        shown = " ".join(terminal.text.split())

    assert terminal.code == 0
    assert f"Left {session_id}; the agent keeps running." in shown
    assert "Traceback" not in shown
    tip = dev.events(session_id)[-1]["seq"]
    await eventually(lambda: dev.events(session_id)[-1]["seq"] > tip, what="the agent still writes")
    assert json.loads(dev.session("stop", session_id))["outcome"] == "stopped"


@pytest.mark.thorough
async def test_tail_resumes_when_the_api_is_killed(dev: DevProcess) -> None:
    words = 250
    session_id = dev.session("start", "demo", "-m", f"tokens={words} rate=25").strip()
    with tail(dev, session_id) as terminal:
        await eventually(lambda: "A durable session" in terminal.text, what="the answer appears")
        api = dev.pid("api")
        assert api is not None
        os.kill(api, signal.SIGKILL)
        await eventually(lambda: "No connection" in terminal.text, what="tail says that it is cut off")
        await eventually(lambda: "turn.completed" in terminal.text, within=40, what="tail sees the end")
        shown = terminal.text

    panel = shown[shown.rindex("╭─ demo") :]
    lines = [line.strip("│ ") for line in panel.splitlines() if line.startswith("│")]
    assert " ".join(lines).split() == spoken(words).split()


async def test_tail_without_a_terminal_prints_plain_lines_and_no_control_characters(dev: DevProcess) -> None:
    session_id = dev.session("start", "echo", "-m", "clear \x1b[2J screen").strip()
    await finished(dev, session_id)
    await close(dev, session_id)
    done = await asyncio.to_thread(run, "session", "tail", session_id, cwd=dev.folder)

    assert done.returncode == 0, done.stderr
    assert "echo: You said: clear" in done.stdout
    assert "\x1b" not in done.stdout


async def test_what_the_terminal_can_not_show_is_replaced(dev: DevProcess) -> None:
    session_id = dev.session("start", "echo", "-m", "Grüße — 東京 👩 over").strip()
    await finished(dev, session_id)
    with tail(dev, session_id, **ASCII) as terminal:
        said = "You said: Gr??e ? ?? ? over"
        await eventually(lambda: said in terminal.text, what="tail shows what was said")
    await close(dev, session_id)
    done = await asyncio.to_thread(run, "session", "tail", session_id, cwd=dev.folder, **ASCII)
    assert done.returncode == 0, done.stderr
    assert "echo: You said: Gr??e ? ?? ? over" in done.stdout
    done = await asyncio.to_thread(run, "session", "replay", session_id, cwd=dev.folder, **ASCII)
    assert done.stdout.isascii()
    ascii_lines, lines = done.stdout.splitlines(), dev.session("replay", session_id).splitlines()
    assert list(map(json.loads, ascii_lines)) == list(map(json.loads, lines))


async def close(dev: DevProcess, session_id: str) -> None:
    from waystation.client import Client
    from waystation.dev.local import read_dev_environment

    found = read_dev_environment(dev.folder / ".waystation")
    async with Client(found["WAYSTATION_URL"], found["WAYSTATION_API_KEY"]) as client:
        await client.attach(session_id).close()


@pytest.mark.parametrize("command", [("tail",), ("replay",), ("stop",), ("send", "hi"), ("steer", "hi")])
def test_an_unknown_session_is_said_in_one_line(dev: DevProcess, command: tuple[str, ...]) -> None:
    done = run("session", command[0], "nobody-knows-me", *command[1:], cwd=dev.folder)
    assert done.returncode == 1
    assert done.stderr.startswith("waystation: ")
    assert "404" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_dev_environment_it_says_what_to_do(tmp_path: Path) -> None:
    done = run("session", "replay", "any", cwd=tmp_path)
    assert done.returncode == EXIT_MISCONFIGURED
    assert "there is no 'waystation dev' in" in done.stderr
    assert "WAYSTATION_API_KEY" in done.stderr


def test_another_folders_dev_is_found_by_its_state(dev: DevProcess, tmp_path: Path) -> None:
    dev.session("start", "demo", "--id", "from-elsewhere")
    done = run(
        "session", "--state", str(dev.folder / ".waystation"), "replay", "from-elsewhere", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "session.started" in done.stdout
