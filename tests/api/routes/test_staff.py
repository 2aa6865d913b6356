"""What is for staff: notes, assignments, what agents keep from people, and what was used."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.api.routes.test_sessions import bearer, finished, token_for
from tests.support import eventually
from tests.world.stack import KEYS, Stack
from waystation.client import Client, Session
from waystation.errors import ApiError
from waystation.models.events import Actor, Event, Role
from waystation.models.requests import ListedSession

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
    async with stack.client("operator") as other:
        operator = other.attach(session.id)
        await operator.take_over(reason=SECRET)
        await suggested(operator, SECRET)
        await operator.release()
    return session


async def suggested(operator: Session, text: str | None = None) -> Event:
    """Returns what has become of a suggestion, once that is recorded."""
    asked = await operator.suggest_reply(text)
    async for event in operator.events(after=asked.seq):
        if event.data.get("requested") == asked.seq:
            return event
    raise AssertionError("the session has ended")


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
    for page in (
        path, f"{path}/replay", f"{path}/transcript", f"{path}/participants", f"{path}/agent",
        "/sessions", "/sessions?live=true", "/attention", "/approvals", "/agents", "/webhooks",
    ):  # fmt: skip
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
    following = stream(stack.url, f"{path}/events", KEYS[role], "takeover.released")
    for text in (
        await following,
        (await http.get(f"{path}/replay", headers=bearer(KEYS[role]))).text,
        (await http.get(f"{path}/transcript", headers=bearer(KEYS[role]))).text,
    ):
        for kind in (
            "tool.called", "tool.returned", "data.score", "usage.reported", "note.added",
            "suggestion.requested", "suggestion.made",
        ):  # fmt: skip
            assert kind in text
        assert text.count('"visibility":"staff"') == 8
        assert text.count(SECRET) == 8, "the reason of the takeover, too"
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
        ("POST", "suggestions", {"text": "x"}),
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


async def test_a_second_operator_is_told_who_has_it_and_may_still_take_it(
    stack: Stack, http: httpx.AsyncClient, client: Client
) -> None:
    session = await client.start("demo")
    path = f"/sessions/{session.id}"
    olga, pete = [
        bearer(await token_for(http, session.id, subject=one, role="operator")) for one in ("olga", "pete")
    ]
    taken = await http.post(f"{path}/takeover", json={"reason": "refund"}, headers=olga)
    assert taken.status_code == 200
    for body in ({}, {"instead_of": "ada"}):
        refused = await http.post(f"{path}/takeover", json=body, headers=pete)
        assert (refused.status_code, refused.json()["code"]) == (409, "taken-over")
        assert "olga" in refused.json()["detail"]
    assert (await http.post(f"{path}/suggestions", json={}, headers=pete)).json()["code"] == "taken-over"
    taken = await http.post(f"{path}/takeover", json={"instead_of": "olga"}, headers=pete)
    assert taken.status_code == 200
    for path_of, body in (("messages", {"text": "Still me"}), ("release", {}), ("suggestions", {})):
        refused = await http.post(f"{path}/{path_of}", json=body, headers=olga)
        assert (refused.status_code, refused.json()["code"]) == (409, "taken-over"), path_of
    assert (await http.post(f"{path}/messages", json={"text": "Pete"}, headers=pete)).status_code == 202
    assert (await http.post(f"{path}/release", json={}, headers=pete)).status_code == 200
    assert (await http.post(f"{path}/suggestions", json={}, headers=pete)).json()["code"] == "not-taken-over"
    started = [event for event in (await session.replay()).events if event.type == "takeover.started"]
    assert [event.data for event in started] == [{"reason": "refund"}, {"instead_of": "olga"}]


async def test_an_agent_suggests_a_reply_and_says_nothing_itself(stack: Stack, client: Client) -> None:
    session = await client.start("demo")
    async with stack.client("operator") as other:
        operator = other.attach(session.id)
        await operator.take_over()
        await session.send("Where is my order?")
        made = await suggested(operator)
        assert "Where is my order?" in made.data["text"]
        assert (made.type, made.visibility, made.actor.id) == ("suggestion.made", "staff", "demo")
        both = await asyncio.gather(operator.suggest_reply(), operator.suggest_reply())
        assert both[0].seq == both[1].seq, "one at a time"
    messages = (await session.load()).messages
    assert [message.actor.role for message in messages] == ["user"]


async def test_an_agent_that_isn_t_there_or_suggests_nothing_is_said_to(stack: Stack, client: Client) -> None:
    for agent, code in (("researcher", "no_suggestions"), ("nobody-runs-it", "agent_unavailable")):
        session = await client.start(agent)
        async with stack.client("operator") as other:
            operator = other.attach(session.id)
            await operator.take_over()
            failed = await suggested(operator)
        assert (failed.type, failed.data["code"], failed.visibility) == ("suggestion.failed", code, "staff")


async def _holds(asked: Awaitable[object], wanted: object) -> bool:
    return await asked == wanted


async def test_sessions_are_found_by_who_looks_after_them(
    stack: Stack, http: httpx.AsyncClient, client: Client
) -> None:
    word = uuid.uuid4().hex
    session, other = await client.start("demo", title=word), await client.start("demo", title=word)
    olga = OLGA.model_copy(update={"id": f"olga-{session.id}"})
    await session.assign(olga, actor=olga)
    await other.add_note("not hers", actor=olga)

    async def found() -> list[ListedSession]:
        return list((await client.list(assignee=olga.id)).sessions)

    async def is_found() -> bool:
        rows = await found()
        return [(row.session_id, row.assigned_to) for row in rows] == [(session.id, olga)]

    await eventually(is_found)

    async def nobodys() -> set[str]:
        return {row.session_id for row in (await client.list(unassigned=True, text=word)).sessions}

    await eventually(lambda: _holds(nobodys(), {other.id}))
    for role in ("client", "approver"):
        headers = bearer(await token_for(http, session.id, role=role))
        for asked in ({"assignee": olga.id}, {"unassigned": "true"}):
            assert (await http.get("/sessions", params=asked, headers=headers)).status_code == 403
        own = (await http.get("/sessions", headers=headers)).text
        assert session.id in own
        assert "olga" not in own
        assert "assigned_to" not in own
        for text in (olga.id, "Olga"):
            searched = await http.get("/sessions", params={"q": text}, headers=headers)
            assert searched.json()["count"] == 0, "nor by searching for words"
    await session.assign(None, actor=olga)

    async def is_gone() -> bool:
        return not await found()

    await eventually(is_gone)
    await eventually(lambda: _holds(nobodys(), {session.id, other.id}))


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
