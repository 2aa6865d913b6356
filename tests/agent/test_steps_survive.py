"""Steps of real agents whose processes are killed: a ledger on disk proves what ran."""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.agent.stepping import AGENTS, RAN, RECORDED, STEPS, Ledger
from tests.support import eventually
from tests.world.agent import AgentProcess
from tests.world.stack import Stack, running_stack
from tests.world.temporal import running_temporal
from waystation.client import Client, Session
from waystation.models.events import TERMINAL_TURN_TYPES, Event

LONG_SECONDS = 150.0
"""For turns that are tried again several times, each time after a longer pause."""


@pytest.fixture(scope="module")
async def quick_stack(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stack]:
    """A stack that misses a killed agent after a second, tries its turns often, and parks them soon."""
    limits = {"limits__agent_heartbeat_timeout_seconds": 1, "limits__max_attempts": 20}
    limits["limits__park_after_seconds"] = 1
    folder = tmp_path_factory.mktemp("steps")
    async with (
        running_temporal(folder) as server,
        running_stack(folder, server, "tests.agent.stepping:agent", **limits) as stack,
    ):
        yield stack


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    """Which agent is whose: each test kills only its own."""
    return itertools.count()


class Run:
    """One turn of an agent of the test's own, and its processes, of which a killed one is started again."""

    def __init__(self, stack: Stack, number: int, folder: Path, do: str, **data: Any) -> None:
        assert number < AGENTS
        self.stack, self.name = stack, f"stepping-{number}"
        self.reference = f"tests.agent.stepping:agent_{number}"
        self.ledger = Ledger(folder / f"ledger-{number}")
        self.data = {"do": do, "ledger": str(self.ledger.path), **data}
        self.started = 0
        self.process = self.start()

    def start(self) -> AgentProcess:
        self.started += 1
        return self.stack.run_agent(self.reference, name=f"{self.name}-{self.started}")

    async def begin(self, client: Client) -> Session:
        session = await client.start(self.name)
        await session.send("go", data=self.data)
        return session

    async def ended(self, session: Session) -> Event:
        """Waits for the turn's end, and starts its process again whenever it was killed."""
        found: list[Event] = []

        async def over() -> bool:
            if self.process.ended:
                assert self.process.popen.poll() == -signal.SIGKILL, self.process.output
                self.process = self.start()
            found[:] = [e for e in (await session.replay()).events if e.type in TERMINAL_TURN_TYPES]
            return bool(found)

        await eventually(over, within=LONG_SECONDS)
        return found[0]


@asynccontextmanager
async def running(stack: Stack, number: int, folder: Path, do: str, **data: Any) -> AsyncIterator[Run]:
    run = Run(stack, number, folder, do, **data)
    try:
        yield run
    finally:
        run.process.kill()


def check_that_nothing_recorded_ran_again(ledger: Ledger) -> None:
    recorded: set[str] = set()
    for line in ledger.lines():
        if line["what"] == RECORDED:
            recorded.add(line["key"])
        elif line["what"] == RAN:
            assert line["key"] not in recorded, line


async def check_twenty_steps(stack: Stack, number: int, folder: Path, kills: list[str]) -> None:
    async with running(stack, number, folder, "twenty", kills=kills) as run, stack.client() as client:
        session = await run.begin(client)
        end = await run.ended(session)
        assert (end.type, end.data.get("result")) == ("turn.completed", list(range(1, STEPS + 1)))
        killed = [line["what"] for line in run.ledger.lines() if line["what"].startswith("killed")]
        assert killed == [f"killed {where}" for where in kills]
        check_that_nothing_recorded_ran_again(run.ledger)
        ran = run.ledger.lines(RAN)
        in_vain = sum(where.startswith("in") for where in kills)
        lost: Any = end.data["attempt"] - 1 - len(kills)  # type: ignore[operator]
        assert lost >= 0, "each kill ends an attempt; a busy machine may miss a heartbeat of others"
        assert STEPS + in_vain <= len(ran) <= STEPS + in_vain + lost, "only what was cut off ran twice"
        assert len({line["idempotency_key"] for line in ran}) == STEPS, "and under the same key"
        check_what_is_shown((await session.replay()).events)


def check_what_is_shown(events: list[Event]) -> None:
    """Each step is shown as done once, and nothing stays open."""
    titles: dict[str, str] = {}
    done, open_calls = list[str](), set[str]()
    for event in events:
        call_id = str(event.data.get("call_id"))
        if event.type == "tool.called":
            assert event.data["kind"] == "step"
            titles[call_id] = str(event.data["name"])
            open_calls.add(call_id)
        elif event.type == "tool.returned":
            open_calls.remove(call_id)
            assert "result" not in event.data
            if "error" not in event.data:
                done.append(titles[call_id])
    assert not open_calls
    assert done == [f"Step {n}" for n in range(1, STEPS + 1)]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "kills",
    [["in 7", "after 20"], pytest.param(["after 1", "in 7", "after 10", "after 20"], marks=pytest.mark.slow)],
)
async def test_no_step_runs_again_after_it_was_recorded(
    quick_stack: Stack, numbers: Iterator[int], tmp_path: Path, kills: list[str]
) -> None:
    await check_twenty_steps(quick_stack, next(numbers), tmp_path, kills)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("where", ["after", "in"])
async def test_no_step_runs_again_wherever_the_process_is_killed(tmp_path: Path, where: str) -> None:
    """After each of the twenty steps, and within each."""
    limits = {"limits__agent_heartbeat_timeout_seconds": 1, "limits__max_attempts": 20}
    async with (
        running_temporal(tmp_path) as server,
        running_stack(tmp_path, server, "tests.agent.stepping:agent", **limits) as stack,
    ):
        kills = [[f"{where} {n}" for n in range(first, STEPS + 1, 5)] for first in range(1, 6)]
        await asyncio.gather(
            *(check_twenty_steps(stack, number, tmp_path, places) for number, places in enumerate(kills))
        )


async def test_steps_side_by_side_survive_as_well(
    quick_stack: Stack, numbers: Iterator[int], tmp_path: Path
) -> None:
    async with (
        running(quick_stack, next(numbers), tmp_path, "side_by_side", kills=["midway"]) as run,
        quick_stack.client() as client,
    ):
        end = await run.ended(await run.begin(client))
        assert (end.data["attempt"], end.data["result"]) == (2, list(range(50)))
        check_that_nothing_recorded_ran_again(run.ledger)
        assert run.ledger.lines("killed midway")


async def test_an_attempt_that_was_given_up_and_wakes_again_records_nothing(
    quick_stack: Stack, numbers: Iterator[int], tmp_path: Path
) -> None:
    number = next(numbers)
    async with (
        running(quick_stack, number, tmp_path, "slow") as old,
        quick_stack.client() as client,
    ):
        session = await old.begin(client)
        await eventually(lambda: old.ledger.lines(RAN))
        old.process.signal(signal.SIGSTOP)
        async with running(quick_stack, number, tmp_path, "slow") as young:
            await eventually(lambda: len(old.ledger.lines(RAN)) > 1, within=LONG_SECONDS)
            old.process.signal(signal.SIGCONT)
            (tmp_path / "go-first").touch()
            fenced = await eventually(lambda: old.ledger.lines("fenced"))
            (tmp_path / "go-later").touch()
            end = await young.ended(session)
    assert fenced[0] == {"what": "fenced", "code": "turn-over", "attempt": 1}
    assert (end.type, end.data["result"]) == ("turn.completed", end.data["attempt"]), "the last one's counts"
    assert end.data["attempt"] != 1


async def ask(stack: Stack, folder: Path, do: str) -> tuple[Event, list[Event], Ledger]:
    """Runs a turn of the agent that no test kills."""
    ledger = Ledger(folder / "ledger")
    async with stack.client() as client:
        session = await client.start("stepping")
        await session.send("go", data={"do": do, "ledger": str(ledger.path)})
        found: list[Event] = []

        async def over() -> bool:
            found[:] = (await session.replay()).events
            return any(event.type in TERMINAL_TURN_TYPES for event in found)

        await eventually(over, within=60.0)
    return next(event for event in found if event.type in TERMINAL_TURN_TYPES), found, ledger


async def test_large_results_come_back_and_too_large_ones_are_refused(
    quick_stack: Stack, tmp_path: Path
) -> None:
    end, events, ledger = await ask(quick_stack, tmp_path, "large")
    assert end.type == "turn.completed", end.data
    result: Any = end.data["result"]
    assert [size for _, size in result[0]] == [100_000, 150_000, 6_000_000, 10, *[50_000] * 6]
    assert {attempt for attempt, _ in result[0]} == {"1"}, "all of it is of the first attempt"
    assert "9,000,002 bytes of JSON is too large: at most 8,388,608" in result[1]
    assert len(ledger.lines(RAN)) == 10
    assert not [event for event in events if event.type.startswith("tool.")], "nobody asked to show them"


async def test_a_step_that_fails_is_shown_as_failed_and_then_as_done(
    quick_stack: Stack, tmp_path: Path
) -> None:
    end, events, _ = await ask(quick_stack, tmp_path, "failing")
    assert end.data["result"] == "done"
    shown = [(event.type, event.data.get("error")) for event in events if event.type.startswith("tool.")]
    assert shown == [
        ("tool.called", None),
        ("tool.returned", "ValueError: not yet"),
        ("tool.called", None),
        ("tool.returned", None),
    ]


async def test_what_is_counted_in_a_turn_is_refused_in_a_step(quick_stack: Stack, tmp_path: Path) -> None:
    end, _, _ = await ask(quick_stack, tmp_path, "spawning")
    assert "turn.spawn without a key can't be used within a step" in str(end.data["result"])


# No seam


async def test_a_turn_whose_process_was_killed_shows_nothing_twice(
    quick_stack: Stack, numbers: Iterator[int], tmp_path: Path
) -> None:
    async with (
        running(quick_stack, next(numbers), tmp_path, "retelling", kills=["midway"]) as run,
        quick_stack.client() as client,
    ):
        session = await run.begin(client)
        end = await run.ended(session)
        assert run.ledger.lines("killed midway")
        transcript = await session.load()
    attempts: Any = end.data["attempt"]
    said = [m.text for m in transcript if m.actor.role == "agent" and m.status == "completed"]
    thoughts = [f"I think for the {n}. time." for n in range(1, attempts + 1)]
    assert said == ["The same every time.", *thoughts, "Half and whole."]
    assert sorted(str((use.arguments, use.result)) for use in transcript.tools) == sorted(
        str(({"n": n % 2}, n)) for n in range(4)
    )
    events = [event.type for event in transcript.events]
    assert (events.count("tool.called"), events.count("data.progress")) == (4, 1)


async def asked_and_parked(client: Client, folder: Path, do: str) -> tuple[Session, Ledger]:
    ledger = Ledger(folder / "ledger")
    session = await client.start("stepping")
    await session.send("go", data={"do": do, "ledger": str(ledger.path)})

    async def waiting() -> bool:
        return (await session.snapshot()).status == "waiting"

    await eventually(waiting)
    await session.answer("t1:go", "yes")
    return session, ledger


async def over(session: Session) -> list[Event]:
    found: list[Event] = []

    async def ended() -> bool:
        found[:] = (await session.replay()).events
        return any(event.type in TERMINAL_TURN_TYPES for event in found)

    await eventually(ended, within=60.0)
    return found


async def test_a_turn_that_goes_astray_after_a_park_fails_rather_than_doubles(
    quick_stack: Stack, tmp_path: Path
) -> None:
    async with quick_stack.client() as client:
        session, ledger = await asked_and_parked(client, tmp_path, "astray")
        events = await over(session)
    failed = next(event for event in events if event.type in TERMINAL_TURN_TYPES)
    assert (failed.type, failed.data["code"]) == ("turn.failed", "turn_diverged")
    assert "waited for t1:go" in str(failed.data["detail"])
    assert "now comes a message that goes on with 'This is attempt 2.'" in str(failed.data["detail"])
    assert "a message that begins with 'This is attempt 1.'" in str(failed.data["detail"])
    assert [line["waited_for"] for line in ledger.lines(RAN)][:2] == [[], ["t1:go"]]
    said = [event.data["text"] for event in events if event.type == "message.completed"]
    assert said == ["go", "This is attempt 1."]


async def test_a_turn_that_comes_back_after_a_park_goes_on_without_a_seam(
    quick_stack: Stack, tmp_path: Path
) -> None:
    async with quick_stack.client() as client:
        session, _ = await asked_and_parked(client, tmp_path, "straight")
        events = await over(session)
    end = next(event for event in events if event.type in TERMINAL_TURN_TYPES)
    assert (end.type, end.data["result"]) == ("turn.completed", "yes"), end.data
    told = [
        event.data.get("text") or event.data.get("name")
        for event in events
        if event.type in ("message.completed", "tool.called", "tool.returned")
    ]
    assert told[:6] == ["go", "Counting", "Counting", "This is number 1.", "order", "order"]
    assert told[6:] == [f"Gone on in attempt {end.data['attempt']}."]
