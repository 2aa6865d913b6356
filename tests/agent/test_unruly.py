"""Whatever a turn's code raises ends that turn, is said in the session, and touches no other turn."""

from collections.abc import AsyncIterator

import pytest

from tests.support import eventually
from tests.world.agent import AgentProcess
from tests.world.stack import Stack
from waystation.client import Client, Session
from waystation.models.events import TERMINAL_TURN_TYPES, Event

Running = tuple[AgentProcess, Client]


@pytest.fixture(scope="module")
async def running(stack: Stack) -> AsyncIterator[Running]:
    process = stack.run_agent("tests.agent.unruly:agent")
    async with stack.client() as client:
        yield process, client
    assert process.terminate() == 0, "SIGTERM ends it, after all that"


async def ask(client: Client, text: str) -> Session:
    return await client.start("unruly", message=text)


async def has(session: Session, kind: str) -> bool:
    return any(event.type == kind for event in (await session.replay()).events)


async def ended(session: Session) -> tuple[Event, list[Event]]:
    """The turn's end, and everything in the log."""
    found: list[Event] = []

    async def over() -> bool:
        found[:] = (await session.replay()).events
        return any(event.type in TERMINAL_TURN_TYPES for event in found)

    await eventually(over, within=40.0)
    return next(event for event in found if event.type in TERMINAL_TURN_TYPES), found


@pytest.mark.parametrize(
    "text",
    [
        "exit the process",
        *(
            pytest.param(text, marks=pytest.mark.thorough)
            for text in (
                "exit in a task",
                "exit in a group",
                "exit in a thread",
                "interrupt",
                "close a generator",
                "group of the worst",
            )
        ),
    ],
)
async def test_what_would_end_the_process_ends_the_turn_alone(running: Running, text: str) -> None:
    process, client = running
    neighbour = await ask(client, "wait beside")
    await eventually(lambda: has(neighbour, "message.started"))
    end, _ = await ended(await ask(client, text))
    assert end.type == "turn.failed"
    assert end.data["code"] == "agent_error"
    assert "the turn's code raised" in str(end.data["detail"])
    assert (await ended(neighbour))[0].data == {"attempt": 1, "result": "undisturbed"}
    assert not process.ended


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("exit in a task that nobody awaits", "gone: True"),
        ("retry in a group", "at the second attempt"),
        ("tool out of time", "went on"),
        ("tool without json", "went on"),
        ("message out of time", "went on"),
    ],
)
async def test_what_a_turn_survives_leaves_nothing_open(running: Running, text: str, result: str) -> None:
    _, client = running
    end, events = await ended(await ask(client, text))
    assert (end.type, end.data.get("result")) == ("turn.completed", result)
    kinds = [event.type for event in events]
    assert kinds.count("tool.called") == kinds.count("tool.returned")
    if text == "message out of time":
        said = [(e.data["text"], e.data.get("finish")) for e in events if e.type == "message.completed"][1:]
        assert said == [("half an ans", "failed"), ("sorry", None)]


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("result that is deep", "nested more than"),
        ("result that is long", "at most 1,048,576 bytes of JSON"),
        ("result that is no json", "valid JSON"),
        ("more tools than may be open", "200 tool calls are open already"),
        ("error with half a character", "ValueError: a\N{REPLACEMENT CHARACTER}b"),
    ],
)
async def test_what_a_session_cannot_hold_fails_its_turn_and_is_named(
    running: Running, text: str, detail: str
) -> None:
    end, events = await ended(await ask(running[1], text))
    assert (end.type, end.data["code"]) == ("turn.failed", "agent_error")
    assert detail in str(end.data["detail"])
    kinds = [event.type for event in events]
    assert kinds.count("tool.called") == kinds.count("tool.returned")


async def test_a_result_with_half_a_character_is_mended(running: Running) -> None:
    end, _ = await ended(await ask(running[1], "result with half a character"))
    assert end.data["result"] == {"a\N{REPLACEMENT CHARACTER}": ["\N{REPLACEMENT CHARACTER}b"]}


async def test_equal_spawns_are_as_many_sub_agents_and_the_same_ones_when_the_turn_is_retried(
    running: Running,
) -> None:
    end, events = await ended(await ask(running[1], "spawn three alike"))
    assert end.data["result"] == {"attempt": 2, "sub_agents": ["t1.1", "t1.2", "t1.3"]}
    assert [event.turn_id for event in events if event.type == "agent.spawned"] == ["t1.1", "t1.2", "t1.3"]


async def test_a_stop_closes_the_tool_that_it_cuts_off(running: Running) -> None:
    session = await ask(running[1], "hang in a tool")

    await eventually(lambda: has(session, "tool.called"))
    await session.stop()
    _, events = await ended(session)
    assert [event.data["error"] for event in events if event.type == "tool.returned"] == [
        "the turn was stopped"
    ]
