"""Activities of somebody's own write into sessions as they work."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr
from temporalio.client import WorkflowHandle
from temporalio.worker import Worker

from tests.support import eventually
from tests.workflow.test_sessions import encrypted, events, has, last, texts
from tests.workflow.writing import Dictation, Scribe
from tests.world.stack import KEYS, Stack
from waystation.activity import Writers
from waystation.client import Client, Session
from waystation.client.transcript import Message
from waystation.errors import StartError
from waystation.settings import Settings

Dictated = WorkflowHandle[Dictation, str]


class Office:
    """A worker of their own, and what is dictated there."""

    def __init__(self, stack: Stack, client: Client, queue: str) -> None:
        self.stack, self.client, self.queue = stack, client, queue

    async def dictate(self, session_id: str, agent: str = "scribe", text: str = "") -> Dictated:
        async with encrypted(self.stack) as temporal:
            return await temporal.start_workflow(
                Dictation.run,
                args=[session_id, agent, text],
                id=f"dictation-{uuid.uuid4().hex}",
                task_queue=self.queue,
            )

    async def session(self) -> tuple[Dictated, Session]:
        """Starts a session whose turns are written down."""
        session = self.client.attach(f"s-{uuid.uuid4().hex}")
        dictated = await self.dictate(session.id)
        await eventually(lambda: has(session, "session.started"), what="the session is there")
        return dictated, session


@pytest.fixture
async def office(stack: Stack, client: Client) -> AsyncIterator[Office]:
    queue = f"office-{uuid.uuid4().hex}"
    settings = Settings(url=stack.url, api_key=SecretStr(KEYS["agent"]))
    async with encrypted(stack) as temporal, Writers(settings) as writers:
        activities = [Scribe(writers).scribble]
        async with Worker(temporal, task_queue=queue, workflows=[Dictation], activities=activities):
            yield Office(stack, client, queue)


async def transcript(session: Session) -> list[Message]:
    return (await session.load()).messages


async def test_text_is_seen_as_it_is_made(office: Office) -> None:
    _, session = await office.session()
    await session.send("one two next three event forever")
    await eventually(lambda: has(session, "data.attempt"), what="it has written all")
    written = (await transcript(session))[1:]
    assert [(m.text, m.status, m.turn_id, m.actor.id) for m in written] == [
        ("one two ", "completed", "t1", "scribe"),
        ("three ", "streaming", "t1", "scribe"),
    ]
    assert (await session.stop()).outcome == "stopped"
    await session.send("again")
    assert (await last(session, "turn.completed")).data["result"] == "1"
    assert await texts(session) == [
        "one two next three event forever", "one two ", "three ", "again", "again "
    ]  # fmt: skip


async def test_a_later_attempt_shows_no_seam_within_a_turn(office: Office) -> None:
    _, session = await office.session()
    await session.send("one next two fail three next four")
    assert (await last(session, "turn.completed")).data["result"] == "2"
    assert [message.text for message in (await transcript(session))[1:]] == ["one ", "two three ", "four "]
    assert all(message.status == "completed" for message in await transcript(session))


async def test_outside_turns_nothing_is_left_open(office: Office) -> None:
    _, session = await office.session()
    dictated = await office.dictate(session.id, "visitor", "one next two fail three")
    assert await asyncio.wait_for(dictated.result(), 30) == "2"
    written = await transcript(session)
    assert [(message.text, message.data.get("finish")) for message in written] == [
        ("one ", None), ("two ", "failed"), ("two three ", None)
    ]  # fmt: skip
    assert (await session.snapshot()).open_messages == ()


async def test_what_is_refused_is_not_tried_again(office: Office) -> None:
    _, session = await office.session()
    await session.close()
    for session_id, code in [(session.id, "session-closed"), ("there-is-none", "unknown-session")]:
        dictated = await office.dictate(session_id, "visitor", "one")
        assert await asyncio.wait_for(dictated.result(), 30) == f"WriteRefused: {code}"


async def test_a_session_that_is_closed_ends_what_is_written(office: Office) -> None:
    dictated, session = await office.session()
    await session.send("one event forever")
    await eventually(lambda: has(session, "data.attempt"), what="it writes")
    await session.close()
    assert await asyncio.wait_for(dictated.result(), 30) == "closed"
    assert (await events(session))[-1].type == "session.closed"


def test_writers_need_a_key() -> None:
    with pytest.raises(StartError, match="WAYSTATION_API_KEY"):
        Writers(Settings())
