"""A model agent in its own process, over a real Temporal, worker and API."""

from collections.abc import AsyncIterator

import pytest

from tests.support import eventually
from tests.world.stack import Stack
from waystation.client import Client, Session


@pytest.fixture(scope="module")
async def client(stack: Stack) -> AsyncIterator[Client]:
    process = stack.run_agent("tests.agents.actors:agent")
    async with stack.client() as client:
        yield client
    process.terminate()


async def idle(session: Session) -> bool:
    return (await session.snapshot()).status == "idle"


async def types(session: Session) -> list[str]:
    return [event.type for event in (await session.replay()).events]


async def test_a_model_thinks_calls_a_tool_answers_and_remembers(client: Client) -> None:
    session = await client.start("scripted", message="what says the clock")
    await eventually(lambda: idle(session))
    await session.send("and now")
    await eventually(lambda: idle(session))
    messages = [(m.kind, m.text) for m in await session.load()]
    assert messages == [
        ("message", "what says the clock"),
        ("reasoning", "I need the time."),
        ("message", "1 said: what says the clock "),
        ("message", "and now"),
        ("message", "2 said: what says the clock then and now "),
    ]
    events = (await session.replay()).events
    assert next(e.data["result"] for e in events if e.type == "tool.returned") == "20:15"
    completed = [e.data["result"] for e in events if e.type == "turn.completed"]
    assert [result["usage"]["requests"] for result in completed if isinstance(result, dict)] == [2, 1]


async def test_a_stop_in_mid_answer_keeps_what_was_shown_and_no_more(client: Client) -> None:
    session = await client.start("scripted", message="go on forever")

    async def writing() -> bool:
        return "message.delta" in await types(session)

    await eventually(writing)
    answer = await session.stop()
    assert answer.outcome == "stopped"
    events = (await session.replay()).events
    assert events[-1].type == "turn.stopped"
    stopped_at = next(e.seq for e in events if e.type == "stop.requested")
    assert {e.type for e in events if e.seq > stopped_at} == {"message.completed", "turn.stopped"}


async def test_a_steer_becomes_part_of_the_conversation(client: Client) -> None:
    session = await client.start("scripted", message="a long question " * 20)

    async def writing() -> bool:
        return "message.delta" in await types(session)

    await eventually(writing)
    assert (await session.steer("shorter", wait_seconds=30)).outcome == "consumed"
    await eventually(lambda: idle(session))
    last = (await session.load()).messages[-1]
    assert last.text.startswith("2 said:")
    assert last.text.endswith("then shorter ")
