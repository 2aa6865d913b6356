"""A model agent whose process dies: what it was told, paid and has done isn't asked, paid or done again."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import JsonValue

from tests.support import eventually
from tests.world.process import Process
from tests.world.stack import Stack, running_stack
from tests.world.temporal import running_temporal
from waystation.client import Client, Session
from waystation.models.events import TERMINAL_TURN_TYPES, Event

PATIENCE_SECONDS = 60.0


class Remembering(NamedTuple):
    stack: Stack
    client: Client
    ledger: Path

    @property
    def process(self) -> Process:
        return self.stack.processes[-1]

    def restart(self) -> None:
        self.process.kill()
        self.process.start()

    async def start(self, text: str) -> Session:
        return await self.client.start("remembering", message=text)

    async def decide(self, session: Session, question: Event, value: JsonValue) -> None:
        async with self.stack.client("approver") as approver:
            asked = question.data
            own = approver.attach(session.id)
            await own.answer(str(asked["question_id"]), value, digest=str(asked["digest"]))

    def lines(self, beginning: str) -> list[str]:
        return [line for line in self.ledger.read_text().splitlines() if line.startswith(beginning)]


@pytest.fixture(scope="module")
async def remembering(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Remembering]:
    folder = tmp_path_factory.mktemp("remembering")
    ledger = folder / "ledger.txt"
    ledger.touch()
    limits = '{"park_after_seconds": 1, "agent_heartbeat_timeout_seconds": 2, "max_attempts": 10}'
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REMEMBERING_LEDGER", str(ledger))
        async with (
            running_temporal(folder) as server,
            running_stack(folder, server, "tests.agents.remembering:agent", limits=limits) as stack,
            stack.client() as client,
        ):
            yield Remembering(stack, client, ledger)


async def of(session: Session, *types: str) -> list[Event]:
    return [event for event in (await session.replay()).events if event.type in types]


async def asked(session: Session, count: int = 1) -> list[Event]:
    async def questions() -> list[Event]:
        found = await of(session, "input.requested")
        return found if len(found) >= count else []

    found: list[Event] = await eventually(questions, within=PATIENCE_SECONDS)
    return found


async def parked(session: Session) -> None:
    async def waits() -> bool:
        return (await session.snapshot()).status == "waiting"

    await eventually(waits, within=PATIENCE_SECONDS)


async def said_in_the_end(session: Session) -> str:
    async def over() -> list[Event]:
        return await of(session, *TERMINAL_TURN_TYPES)

    (end,) = await eventually(over, within=PATIENCE_SECONDS)
    assert end.type == "turn.completed", end
    return (await session.load()).messages[-1].text


@pytest.mark.thorough
async def test_killed_in_the_middle_of_ten_calls(remembering: Remembering) -> None:
    session = await remembering.start("add")

    async def five_are_shown() -> bool:
        return len(await of(session, "tool.returned")) >= 5

    await eventually(lambda: len(remembering.lines("add ")) == 10, within=PATIENCE_SECONDS)
    await eventually(five_are_shown, within=PATIENCE_SECONDS)
    remembering.process.kill()
    remembering.ledger.with_name("go-on").touch()
    remembering.process.start()
    assert await said_in_the_end(session) == "Told: " + "; ".join(map(str, range(10)))
    assert [message.text for message in await session.load()][1:2] == ["Let me see. "], "said once"
    assert len((await session.load()).messages) == 3
    shown = [event.data["result"] for event in await of(session, "tool.returned") if "result" in event.data]
    assert sorted(map(int, map(str, shown))) == list(range(10)), "each result is shown once"
    assert len(remembering.lines("add: request")) == 2, "the response that was received isn't paid for again"
    runs = Counter(line.split(":")[0] for line in remembering.lines("add "))
    assert {runs[f"add {number}"] for number in range(5)} == {1}, "what has ended doesn't run again"
    assert {runs[f"add {number}"] for number in range(5, 10)} == {2}
    assert len({line.split(": ")[1] for line in remembering.lines("add ")}) == 10


@pytest.mark.parametrize(
    ("name", "value", "deleted"),
    [
        ("approved", {"decision": "approve"}, "delete approved.txt"),
        pytest.param(
            "edited",
            {"decision": "approve", "arguments": {"path": "old.txt"}},
            "old.txt",
            marks=pytest.mark.slow,
        ),
        pytest.param("rejected", {"decision": "reject", "reason": "I need it"}, None, marks=pytest.mark.slow),
    ],
)
async def test_decided_while_no_agent_runs(
    remembering: Remembering, name: str, value: JsonValue, deleted: str | None
) -> None:
    session = await remembering.start(f"delete {name}")
    (question,) = await asked(session)
    await parked(session)
    remembering.process.kill()
    await remembering.decide(session, question, value)
    remembering.process.start()
    said = await said_in_the_end(session)
    if deleted:
        assert said == f"Told: deleted {deleted}"
        assert len(remembering.lines(f"deleted {deleted}")) == 1
    else:
        assert "rejected delete: I need it" in said
        assert not remembering.lines(f"deleted delete {name}")
    assert len(remembering.lines(f"delete {name}: request")) == 2
    assert len(await asked(session)) == 1


async def test_killed_before_it_is_decided_and_before_it_is_parked(remembering: Remembering) -> None:
    session = await remembering.start("delete killed")
    (question,) = await asked(session)
    remembering.restart()
    await remembering.decide(session, question, {"decision": "approve"})
    assert await said_in_the_end(session) == "Told: deleted delete killed.txt"
    assert len(remembering.lines("deleted delete killed.txt")) == 1
    assert len(remembering.lines("delete killed: request")) == 2


@pytest.mark.thorough
async def test_two_deferred_calls_are_answered_two_restarts_later(remembering: Remembering) -> None:
    session = await remembering.start("weigh")
    first, second = await asked(session, 2)
    assert first.data["schema"] == {"type": "integer"}
    await parked(session)
    remembering.restart()
    await session.answer(str(second.data["question_id"]), 7)
    await parked(session)
    remembering.restart()
    await session.answer(str(first.data["question_id"]), 5)
    assert await said_in_the_end(session) == "Told: 5; 7"
    assert len(remembering.lines("weigh: request")) == 2
    assert len(await asked(session)) == 2


async def test_parked_while_a_tool_asks(remembering: Remembering) -> None:
    session = await remembering.start("ask")
    (question,) = await asked(session)
    await parked(session)
    await session.answer(str(question.data["question_id"]), "that one")
    assert await said_in_the_end(session) == "Told: that one"
    assert len(await of(session, "tool.called")) == len(await of(session, "tool.returned")) == 1
    assert len((await session.load()).messages) == 3
    assert len(remembering.lines("ask: request")) == 2
    assert len(await asked(session)) == 1
