"""What is for staff: notes, assignments, what agents keep from people, and what was used."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.api.routes.test_sessions import bearer, finished, token_for
from tests.world.stack import KEYS, Stack
from waystation.client import Client, Session
from waystation.errors import ApiError
from waystation.models.events import Actor, Role

SECRET = "the customer is on the watch list"
OLGA = Actor(id="olga", role=Role.OPERATOR, name="Olga")
ITEMS: list[dict[str, Any]] = [
    {"n": 1, "type": "tool.called", "data": {"call_id": "c1", "name": SECRET}, "visibility": "staff"},
    {"n": 2, "type": "tool.returned", "data": {"call_id": "c1", "name": SECRET}, "visibility": "staff"},
    {"n": 3, "type": "data.score", "data": {"why": SECRET}, "visibility": "staff"},
    {
        "n": 4,
        "type": "usage.reported",
        "data": {"requests": 1, "cost_micros": {"USD": 1500}, "model": SECRET},
    },
    {"n": 5, "type": "data.progress", "data": {"percent": 100}},
]


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.url, headers=bearer(KEYS["service"]), timeout=20) as http:
        yield http


@pytest.fixture
async def session(stack: Stack, client: Client) -> Session:
    """A session with something of everything that is for staff."""
    session = await client.start("demo")
    async with stack.client("agent") as agents:
        await agents.attach(session.id).write("cron", ITEMS)
    await session.add_note(SECRET, actor=OLGA)
    await session.assign(OLGA, actor=OLGA)
    return session


async def stream(url: str, path: str, token: str, until: str) -> str:
    """Returns all that an event stream brings, up to a word."""
    text = ""
    async with httpx.AsyncClient(base_url=url, headers=bearer(token), timeout=20) as http:
        with suppress(httpx.ReadTimeout):
            async with http.stream("GET", path) as answer:
                async for chunk in answer.aiter_text():
                    text += chunk
                    if until in text:
                        break
    return text


async def frames(url: str, path: str, token: str, until: str) -> str:
    """Returns all that a WebSocket brings, up to a word."""
    text = ""
    async with connect(url.replace("http", "ws") + path, additional_headers=bearer(token)) as socket:
        while until not in text:
            text += str(await asyncio.wait_for(socket.recv(), 20)) + "\n"
    return text


@pytest.mark.parametrize("role", ["client", "approver"])
@pytest.mark.parametrize("live", [False, True], ids=["read", "live"])
async def test_people_are_shown_nothing_of_it(
    stack: Stack, http: httpx.AsyncClient, client: Client, session: Session, role: str, live: bool
) -> None:
    token = await token_for(http, session.id, role=role)
    path = f"/sessions/{session.id}"
    last = (await session.snapshot()).tip
    following = [
        asyncio.create_task(
            read(stack.url, f"{path}/{name}?after={last if live else 0}", token, '"marker":true')
        )
        for read, name in ((stream, "events"), (frames, "socket"))
    ]
    if live:
        async with stack.client("agent") as agents:
            await agents.attach(session.id).write("again", ITEMS)
        await session.add_note(SECRET, actor=OLGA)
    await session.send("marker", data={"marker": True})
    told = await asyncio.gather(*following)
    for page in (path, f"{path}/replay", f"{path}/transcript", f"{path}/participants", "/sessions"):
        answer = await http.get(page, headers=bearer(token))
        assert answer.status_code in (200, 403), page
        told.append(answer.text)
    for text in told:
        assert SECRET not in text
        assert "usage" not in text
        assert "assigned_to" not in text or '"assigned_to":null' in text
        assert "olga" not in text
    numbers = [int(line[4:]) for line in told[0].splitlines() if line.startswith("id: ")]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= 6, "what isn't shown moves the cursor all the same"


@pytest.mark.parametrize("role", ["operator", "service", "agent"])
async def test_staff_are_shown_all_of_it(
    stack: Stack, http: httpx.AsyncClient, session: Session, role: str
) -> None:
    path = f"/sessions/{session.id}"
    following = stream(stack.url, f"{path}/events", KEYS[role], "session.assigned")
    for text in (
        await following,
        (await http.get(f"{path}/replay", headers=bearer(KEYS[role]))).text,
        (await http.get(f"{path}/transcript", headers=bearer(KEYS[role]))).text,
    ):
        for kind in ("tool.called", "tool.returned", "data.score", "usage.reported", "note.added"):
            assert kind in text
        assert text.count('"visibility":"staff"') == 6
    view = (await http.get(path, headers=bearer(KEYS[role]))).json()
    assert view["usage"] == {
        "requests": 1, "input_tokens": 0, "cached_input_tokens": 0, "output_tokens": 0,
        "cost_micros": {"USD": 1500},
    }  # fmt: skip
    assert view["assigned_to"]["id"] == "olga"


@pytest.mark.parametrize("role", ["client", "approver", "agent"])
async def test_others_write_no_notes(http: httpx.AsyncClient, session: Session, role: str) -> None:
    headers = bearer(await token_for(http, session.id, role=role))
    for method, what, body in (
        ("POST", "notes", {"text": "x"}),
        ("PUT", "assignee", {"operator": OLGA.model_dump()}),
    ):
        answer = await http.request(method, f"/sessions/{session.id}/{what}", json=body, headers=headers)
        assert answer.status_code == 403


async def test_a_note_is_an_operators_and_written_once(client: Client, session: Session) -> None:
    first = await session.add_note("call back", note_id="n1", actor=OLGA)
    assert await session.add_note("call back", note_id="n1", actor=OLGA) == first
    for actor in (None, Actor(id="ada", role=Role.USER)):
        with pytest.raises(ApiError, match="operator"):
            await session.add_note("x", actor=actor)
    with pytest.raises(ApiError, match="text"):
        await session.add_note("", actor=OLGA)
    with pytest.raises(ApiError, match="text"):
        await session.add_note("x" * 10_001, actor=OLGA)
    assert (await session.assign(None, actor=OLGA)).seq == (await session.assign(None, actor=OLGA)).seq
    assert (await session.snapshot()).assigned_to is None


@pytest.mark.parametrize(
    "item",
    [
        {"type": "message.completed", "message_id": "m", "data": {"text": "x"}, "visibility": "staff"},
        {"type": "tool.called", "data": {"call_id": "c", "name": "n"}, "visibility": "nobody"},
        {"type": "usage.reported", "data": {"requests": -1}},
        {"type": "usage.reported", "data": {"requests": 1.5}},
        {"type": "usage.reported", "data": {"cost_micros": {"usd": 1}}},
        {"type": "usage.reported", "data": {"tokens": 1}},
    ],
)
async def test_what_can_t_be_kept_from_people_or_counted_is_refused(
    stack: Stack, session: Session, item: dict[str, Any]
) -> None:
    async with stack.client("agent") as agents:
        with pytest.raises(ApiError) as refused:
            await agents.attach(session.id).write("odd", [{"n": 1, **item}])
    assert refused.value.status == 422


async def test_an_agent_answers_with_a_note_when_it_is_given_the_session_back(
    stack: Stack, client: Client
) -> None:
    session = await client.start("demo")
    async with stack.client("operator") as other:
        operator = other.attach(session.id)
        await operator.take_over(reason="refund")
        with pytest.raises(ApiError, match="note"):
            await operator.release(answer=True)
        await session.send("Is anyone there?")
        await operator.release(note="tokens=3 rate=0", answer=True)
    await finished(session)
    events = (await session.replay()).events
    kinds = [event.type for event in events]
    assert kinds.count("turn.completed") == 2, "the note's turn, then the one that waited"
    (note,) = [event for event in events if event.type == "note.added"]
    assert (note.data["text"], note.visibility) == ("tokens=3 rate=0", "staff")
    started = [event for event in events if event.type == "turn.started"]
    assert "message_id" not in started[0].data
    assert json.dumps(started[1].data["message_id"])
