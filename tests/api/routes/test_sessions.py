"""The HTTP API on a real stack: every route, every refusal."""

import asyncio
import json
import time
import uuid
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from api.gateways.search import Place, write_place
from tests.support import eventually
from tests.world.stack import KEYS, Stack
from waystation.client import Client, Session
from waystation.errors import ApiError, ConflictError
from waystation.models.events import Event
from waystation.temporal.connect import open_client

PROBLEM = "application/problem+json"


@pytest.fixture
async def http(stack: Stack) -> Any:
    headers = {"Authorization": f"Bearer {KEYS['service']}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=20) as http:
        yield http


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def finished(session: Session) -> None:
    async def idle() -> bool:
        return (await session.snapshot()).status == "idle"

    await eventually(idle)


async def connected(session: Session, streams: int = 1) -> None:
    async def there() -> bool:
        return sum(person.connections for person in (await session.people()).present) == streams

    await eventually(there)


async def token_for(
    http: httpx.AsyncClient, session_id: str, role: str = "client", subject: str = "ada"
) -> str:
    body = {"role": role, "sessions": [session_id], "subject": subject}
    return str((await http.post("/tokens", json=body)).json()["token"])


async def transcript_texts(session: Session) -> list[str]:
    return [message.text for message in await session.load()]


async def test_a_session_from_start_to_end(client: Client) -> None:
    session = await client.start("demo", message="tokens=5 rate=0", title="First")
    await finished(session)
    texts = await transcript_texts(session)
    assert texts == ["tokens=5 rate=0", "A durable session keeps what "]
    await session.close()
    events = [event async for event in session.events(after=0)]
    assert isinstance(events[-1], Event)
    assert events[-1].type == "session.closed"


async def test_starting_twice_under_one_id_is_once(http: httpx.AsyncClient) -> None:
    session_id = f"mine-{uuid.uuid4().hex}"
    first = await http.post("/sessions", json={"agent": "demo", "session_id": session_id})
    again = await http.post("/sessions", json={"agent": "demo", "session_id": session_id})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["created"] is False
    other = {"agent": "parrot", "session_id": session_id, "message": "Hello"}
    answer = await http.post("/sessions", json=other)
    assert (answer.status_code, answer.json()["code"]) == (409, "id-taken")
    assert (await http.get(f"/sessions/{session_id}/transcript")).json()["messages"] == []


async def test_a_first_message_is_sent_once_however_often_the_session_is_started(client: Client) -> None:
    session_id = f"mine-{uuid.uuid4().hex}"
    await client.start("demo", session_id=session_id)
    for _ in range(3):
        session = await client.start("demo", session_id=session_id, message="tokens=1 rate=0")
    await finished(session)
    assert await transcript_texts(session) == ["tokens=1 rate=0", "A "]


async def test_it_is_listed_with_its_title(client: Client, http: httpx.AsyncClient) -> None:
    title = uuid.uuid4().hex
    session = await client.start("demo", title=title)

    async def listed() -> bool:
        answer = (await http.get("/sessions", params={"only_open": True, "live": True})).json()
        return any(
            entry["session_id"] == session.id and entry["title"] == title for entry in answer["sessions"]
        )

    await eventually(listed)
    page = await client.list(limit=1)
    assert page.next_cursor
    assert (await client.list(limit=1, cursor=page.next_cursor)).sessions != page.sessions


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/sessions/no-such-session", None, 404, "unknown-session"),
        ("GET", "/sessions/no-such-session/events", None, 404, "unknown-session"),
        ("POST", "/sessions/no-such-session/messages", {"text": "hi"}, 404, "unknown-session"),
        ("GET", "/sessions/..%2F/replay", None, 404, "not-found"),
        ("GET", "/sessions/-bad-/replay", None, 422, "invalid-session-id"),
        ("POST", "/sessions", {"agent": ""}, 422, "invalid"),
        ("POST", "/sessions", {"agent": "demo", "nonsense": 1}, 422, "invalid"),
        ("POST", "/sessions", {"agent": "demo", "metadata": {"a": "x" * 1_001}}, 422, "invalid"),
        ("POST", "/sessions", {"agent": "demo", "metadata": {"x" * 129: ""}}, 422, "invalid"),
        ("POST", "/sessions", {"agent": "demo", "metadata": {str(n): "" for n in range(33)}}, 422, "invalid"),
        ("POST", "/sessions", "{", 422, "invalid"),
        ("GET", "/nowhere", None, 404, "not-found"),
        ("PUT", "/sessions", None, 405, "method-not-allowed"),
        ("DELETE", f"/sessions/no-such-session?reason={'x' * 1_001}", None, 422, "invalid"),
        ("GET", "/sessions?cursor=%00", None, 422, "wrong-cursor"),
    ],
)
async def test_refusals(
    http: httpx.AsyncClient, method: str, path: str, body: Any, status: int, code: str
) -> None:
    content = body if isinstance(body, str) else None
    headers = {"Content-Type": "application/json"} if content else {}
    answer = await http.request(
        method, path, content=content, json=None if content else body, headers=headers
    )
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("messages", {"text": ""}, 422, "invalid"),
        ("messages", {"text": "x" * 262_145}, 422, "invalid"),
        ("messages", {"text": "hi", "on_busy": "shout"}, 422, "invalid"),
        ("messages", {"text": "hi", "actor": {"id": "x", "role": "emperor"}}, 422, "invalid"),
        ("messages", {"text": "hi", "actor": {"id": "x", "role": "agent"}}, 422, "invalid"),
        ("messages", {"text": "hi", "data": {"text": "something else"}}, 422, "invalid"),
        ("messages", {"text": "hi", "data": {"x": "y" * 70_000}}, 422, "invalid"),
        (
            "events",
            {
                "writer": "w",
                "items": [
                    {
                        "n": 1,
                        "type": "message.completed",
                        "message_id": "m",
                        "data": {"text": "t", "x": "y" * 70_000},
                    }
                ],
            },
            422,
            "data-too-large",
        ),
        ("release", {}, 403, "forbidden"),
        ("messages", {"text": "hi", "data": {"x": "\ud83d"}}, 422, "invalid"),
        (
            "events",
            {"writer": "w", "items": [{"n": 1, "type": "data.x", "data": {"x": "\ud83d"}}]},
            422,
            "invalid",
        ),
        (
            "events",
            {
                "writer": "w",
                "items": [
                    {
                        "n": 1,
                        "type": "message.delta",
                        "message_id": "m",
                        "data": {"offset": 0, "text": "\ud83d"},
                    }
                ],
            },
            422,
            "invalid",
        ),
        (
            "events",
            {
                "writer": "w",
                "items": [
                    {
                        "n": 1,
                        "type": "message.delta",
                        "message_id": "m",
                        "data": {"offset": 0, "text": "", "x": "y" * 9},
                    }
                ],
            },
            422,
            "bad-delta",
        ),
        ("events", {"writer": "w", "name": "x" * 201, "items": [{"n": 1, "type": "data.x"}]}, 422, "invalid"),
        ("events", {"writer": "w", "items": [{"n": 1, "type": "turn.completed"}]}, 422, "bad-type"),
        (
            "events",
            {"writer": "w", "items": [{"n": 1, "type": "message.delta", "data": {}}]},
            422,
            "bad-delta",
        ),
        ("events", {"writer": "w", "items": [{"n": 0, "type": "data.x"}]}, 422, "invalid"),
        ("events", {"writer": "w", "items": []}, 422, "invalid"),
        (
            "events",
            {"writer": "w", "items": [{"n": 1, "type": "data.x", "data": {"x": "y" * 70_000}}]},
            422,
            "data-too-large",
        ),
        (
            "events",
            {
                "writer": "w",
                "items": [
                    {"n": 1, "type": "message.completed", "message_id": "m", "data": {"text": "y" * 262_145}}
                ],
            },
            422,
            "message-too-long",
        ),
    ],
)
async def test_bad_input_leaves_the_session_unharmed(
    http: httpx.AsyncClient, client: Client, path: str, body: Any, status: int, code: str
) -> None:
    session = await client.start("demo")
    if path == "release":
        answer = await http.post(f"/sessions/{session.id}/{path}", json=body, headers=bearer(KEYS["client"]))
    else:
        # As ASCII: half a surrogate pair has no other form.
        answer = await http.post(
            f"/sessions/{session.id}/{path}",
            content=json.dumps(body),
            headers={"Content-Type": "application/json"},
        )
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    view = await session.snapshot()
    assert (view.tip, view.status) == (1, "idle")


@pytest.mark.parametrize("cursor", ["abc", "-1", "1.5", "1e3", "²", "9" * 30])
async def test_a_cursor_that_is_no_number(http: httpx.AsyncClient, client: Client, cursor: str) -> None:
    session = await client.start("demo")
    answer = await http.get(f"/sessions/{session.id}/events", params={"after": cursor})
    assert (answer.status_code, answer.json()["code"]) == (422, "wrong-cursor")


async def test_a_cursor_from_another_session(http: httpx.AsyncClient, client: Client) -> None:
    session = await client.start("demo")
    for path in ("events", "replay"):
        answer = await http.get(f"/sessions/{session.id}/{path}", params={"after": 999})
        assert (answer.status_code, answer.json()["code"]) == (422, "wrong-cursor")
        assert answer.json()["tip"] == 1


async def test_credentials(http: httpx.AsyncClient, client: Client) -> None:
    session = await client.start("demo")
    path = f"/sessions/{session.id}"
    for headers in ({"Authorization": ""}, bearer("wrong"), {"Authorization": "Basic abc"}):
        answer = await http.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    token = await token_for(http, session.id)
    assert (await http.get(path, headers=bearer(token))).status_code == 200
    assert (await http.get(path, headers=bearer(token[:-3] + "AAA"))).status_code == 401


async def test_a_page_says_what_the_stream_says(http: httpx.AsyncClient, client: Client) -> None:
    """To the letter: what an event doesn't have is missing in both."""
    session = await client.start("demo")
    await session.send("tokens=2 rate=0 tool=search")

    async def is_idle() -> bool:
        return (await session.snapshot()).status == "idle"

    await eventually(is_idle)
    await session.close()
    page = (await http.get(f"/sessions/{session.id}/replay")).json()
    stream = (await http.get(f"/sessions/{session.id}/events?after=0")).text
    told = [
        json.loads(line.removeprefix("data:")) for line in stream.splitlines() if line.startswith("data:")
    ]
    assert page["events"] == [event for event in told if "seq" in event]
    assert page["events"][0] == {
        "seq": 1,
        "time": page["events"][0]["time"],
        "type": "session.started",
        "actor": page["events"][0]["actor"],
        "data": {"agent": "demo"},
    }
    assert all(event.get("data") != {} for event in page["events"])


async def test_a_token_for_one_session_does_not_see_that_another_exists(
    http: httpx.AsyncClient, client: Client
) -> None:
    mine, other = await client.start("demo"), await client.start("demo")
    headers = bearer(await token_for(http, mine.id))
    for method, path, body in [
        ("GET", "", None),
        ("GET", "/events", None),
        ("GET", "/replay", None),
        ("GET", "/transcript", None),
        ("GET", "/participants", None),
        ("POST", "/messages", {"text": "hi"}),
        ("POST", "/stop", {}),
        ("POST", "/steer", {"text": "hi"}),
        ("POST", "/tickets", None),
    ]:
        real = await http.request(method, f"/sessions/{other.id}{path}", json=body, headers=headers)
        invented = await http.request(
            method, f"/sessions/{'x' * len(other.id)}{path}", json=body, headers=headers
        )
        assert real.status_code == invented.status_code == 404
        assert real.text.replace(other.id, "?") == invented.text.replace("x" * len(other.id), "?")
    listed = (await http.get("/sessions", headers=headers)).json()["sessions"]
    assert [entry["session_id"] for entry in listed] == [mine.id]


@pytest.mark.parametrize(
    ("role", "allowed", "refused"),
    [
        ("client", ["messages"], ["takeover", "events"]),
        ("agent", ["events"], ["messages", "takeover"]),
        ("operator", ["takeover"], ["events"]),
        ("approver", [], ["messages", "takeover", "events", "stop"]),
    ],
)
async def test_roles(
    http: httpx.AsyncClient, client: Client, role: str, allowed: list[str], refused: list[str]
) -> None:
    bodies: dict[str, Any] = {
        "messages": {"text": "tokens=1 rate=0"},
        "takeover": {},
        "stop": {},
        "events": {"writer": "w", "items": [{"n": 1, "type": "data.x", "data": {"a": 1}}]},
    }
    session = await client.start("demo")
    headers = bearer(await token_for(http, session.id, role))
    for path in allowed:
        answer = await http.post(f"/sessions/{session.id}/{path}", json=bodies[path], headers=headers)
        assert answer.is_success, answer.text
    for path in refused:
        answer = await http.post(f"/sessions/{session.id}/{path}", json=bodies[path], headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    for path in ("/tokens", "/sessions"):
        body = {"agent": "demo", "role": "client", "sessions": [session.id], "subject": "eve"}
        assert (await http.post(path, json=body, headers=headers)).status_code in (403, 422)


async def test_a_ticket_opens_one_stream_once(http: httpx.AsyncClient, client: Client, stack: Stack) -> None:
    session, other = await client.start("demo"), await client.start("demo")
    await session.close()
    ticket = (await http.post(f"/sessions/{session.id}/tickets")).json()["token"]
    async with httpx.AsyncClient(base_url=stack.url) as browser:
        exchanged = await browser.post(f"/sessions/{session.id}/tickets", params={"ticket": ticket})
        assert exchanged.status_code == 401, "a ticket is for one connection, not for another ticket"
        wrong = await browser.get(f"/sessions/{other.id}/events", params={"ticket": ticket})
        assert wrong.status_code == 401
        first = await browser.get(f"/sessions/{session.id}/events", params={"ticket": ticket})
        assert "session.closed" in first.text
        again = await browser.get(f"/sessions/{session.id}/events", params={"ticket": ticket})
        assert (again.status_code, again.json()["code"]) == (401, "unauthenticated")
        as_token = await browser.get(f"/sessions/{session.id}", headers=bearer(ticket))
        assert as_token.status_code == 401


async def test_a_caller_is_told_what_they_may_do(http: httpx.AsyncClient, client: Client) -> None:
    session = await client.start("demo")
    me = (await http.get("/me")).json()
    assert (me["subject"], me["role"], me["sessions"], me["expires_at"]) == (
        "test-service",
        "service",
        None,
        None,
    )
    assert "approve" not in me["may"]
    me = (await http.get("/me", headers=bearer(await token_for(http, session.id)))).json()
    assert (me["subject"], me["role"], me["sessions"]) == ("ada", "client", [session.id])
    assert me["may"] == ["answer questions", "join", "read", "send"], "a token for one session starts none"
    assert me["expires_at"] - time.time() == pytest.approx(900, abs=30)
    assert (await http.get("/me", headers=bearer("nobody's"))).status_code == 401


async def test_a_token_for_another_device_has_the_same_rights_and_no_longer_life(
    http: httpx.AsyncClient, client: Client, stack: Stack
) -> None:
    session, other = await client.start("demo"), await client.start("demo")
    body = {"role": "operator", "sessions": [session.id, other.id], "subject": "grace", "ttl_seconds": 60}
    own = (await http.post("/tokens", json=body)).json()
    answer = await http.post(f"/sessions/{session.id}/tokens", headers=bearer(own["token"]))
    assert answer.status_code == 201
    passed_on = answer.json()
    assert passed_on["expires_at"] <= own["expires_at"]
    me = (await http.get("/me", headers=bearer(passed_on["token"]))).json()
    assert (me["subject"], me["role"], me["sessions"]) == ("grace", "operator", [session.id])
    hidden = await http.get(f"/sessions/{other.id}", headers=bearer(passed_on["token"]))
    assert hidden.status_code == 404
    async with stack.client("client") as ada:
        answer = await http.post(f"/sessions/{session.id}/tokens", headers=ada.headers)
        assert answer.json()["expires_at"] - time.time() == pytest.approx(3_600, abs=30)
    assert (await http.post(f"/sessions/{session.id}/tokens")).status_code == 403, "not a service's rights"


async def test_staff_get_tokens_for_all_sessions_and_others_do_not(
    http: httpx.AsyncClient, client: Client
) -> None:
    session = await client.start("demo")
    body = {"role": "operator", "sessions": None, "subject": "grace"}
    token = (await http.post("/tokens", json=body)).json()["token"]

    async def listed() -> bool:
        found = (await http.get("/sessions", headers=bearer(token))).json()["sessions"]
        return session.id in [one["session_id"] for one in found]

    await eventually(listed)
    assert (await http.post("/tokens", json=body, headers=bearer(token))).status_code == 403
    for role in ("client", "agent"):
        refused = await http.post("/tokens", json={**body, "role": role})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    assert (await http.post("/tokens", json={"role": "operator", "subject": "grace"})).status_code == 422
    assert (await http.post("/cookie", headers=bearer(token))).status_code == 204


async def test_a_cookie_opens_streams_and_nothing_else(
    http: httpx.AsyncClient, client: Client, stack: Stack
) -> None:
    session = await client.start("demo")
    token = await token_for(http, session.id)
    async with httpx.AsyncClient(base_url=stack.url) as browser:
        answer = await browser.post("/cookie", headers=bearer(token))
        assert answer.status_code == 204
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert "SameSite=strict" in answer.headers["set-cookie"]
        assert (await browser.get(f"/sessions/{session.id}")).status_code == 200
        forged = await browser.post(f"/sessions/{session.id}/messages", json={"text": "hi"})
        assert forged.status_code == 401
        foreign = await browser.get(f"/sessions/{session.id}", headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 403
    refused = await http.post("/cookie")
    assert refused.status_code == 403


async def read_blocks(http: httpx.AsyncClient, path: str, until: str, **options: Any) -> list[str]:
    """SSE blocks as they come over the wire, until one contains ``until``."""
    blocks: list[str] = []
    buffer = ""
    async with http.stream("GET", path, **options) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        async for chunk in response.aiter_text():
            buffer += chunk
            while "\n\n" in buffer:
                block, buffer = buffer.split("\n\n", 1)
                blocks.append(block)
                if until in block:
                    return blocks
    return blocks


async def test_the_stream_on_the_wire(http: httpx.AsyncClient, client: Client) -> None:
    session = await client.start("demo")
    path = f"/sessions/{session.id}/events"
    reading = asyncio.create_task(read_blocks(http, path, "turn.completed"))
    await connected(session)
    # Longer than what clients have seen live may wait to be read again.
    await session.send("tokens=100 rate=40")
    blocks = await reading
    live = [b for b in blocks if b.startswith('data: {"type":"message.delta"')]
    numbers = [b for b in blocks if b.startswith("id: ") and "data:" not in b]
    durable = [b for b in blocks if b.startswith("id: ") and "data:" in b]
    shown = sum(len(json.loads(b.removeprefix("data: "))["data"]["text"]) for b in live)
    whole = (await transcript_texts(session))[-1]
    assert shown >= 0.9 * len(whole), "text comes live, without a number"
    assert numbers, "what was seen live comes durably as a number alone"
    assert not [b for b in durable if '"type":"message.delta"' in b], "and not a second time"
    seqs = [int(b.split("\n")[0][4:]) for b in blocks if b.startswith("id: ")]
    assert seqs == sorted(set(seqs))
    # From the middle of the folded message: the completed one, which replaces it.
    middle = int(numbers[1][4:])
    resumed = await read_blocks(http, path, "turn.completed", headers={"Last-Event-ID": str(middle)})
    assert '"type":"message.completed"' in "".join(resumed)
    assert "message.delta" not in "".join(resumed)


async def test_204_once_closed_and_read_to_the_end(http: httpx.AsyncClient, client: Client) -> None:
    session = await client.start("demo")
    tip = (await session.close()).tip
    path = f"/sessions/{session.id}/events"

    async def settled() -> bool:
        return (await http.get(path, params={"after": tip})).status_code == 204

    await eventually(settled)
    assert (await http.get(path, params={"after": 0})).status_code == 200
    with pytest.raises(ApiError) as refused:
        await session.send("hello?")
    assert (refused.value.status, refused.value.code) == (409, "session-closed")


async def test_stop_answers_with_the_outcome(client: Client) -> None:
    session = await client.start("demo")
    idle = await session.stop()
    assert idle.outcome == "already_finished"
    await session.send("tokens=1000 rate=50")
    stopped = await session.stop(reason="enough")
    assert stopped.outcome == "stopped"
    page = await session.replay()
    recorded = next(event for event in page.events if event.seq == stopped.seq)
    assert (recorded.type, recorded.turn_id) == ("turn.stopped", stopped.turn_id)
    assert (await session.stop()).outcome == "already_finished"


async def test_steer_is_consumed_while_running_and_queued_otherwise(client: Client) -> None:
    session = await client.start("demo")
    await session.send("tokens=2000 rate=50")
    steered = await session.steer("Say less.")
    assert steered.outcome == "consumed"
    await session.stop()
    queued = await session.steer("tokens=1 rate=0")
    assert queued.outcome == "queued"
    await finished(session)
    assert "[steered: Say less.]" in " ".join(await transcript_texts(session))


async def test_a_message_that_waits_is_withdrawn(client: Client) -> None:
    session = await client.start("demo")
    first = await session.send("tokens=2000 rate=50")
    queued = await session.send("never mind")
    withdrawn = await session.withdraw(queued.message_id)
    assert withdrawn.turn_id == queued.turn_id
    assert await session.withdraw(queued.message_id) == withdrawn
    with pytest.raises(ApiError) as refused:
        await session.withdraw(first.message_id)
    assert (refused.value.status, refused.value.code) == (409, "not-queued")
    await session.stop()
    await session.send("tokens=1 rate=0 quote=user")
    await finished(session)
    # The agent does not find it in its conversation.
    said = await transcript_texts(session)
    assert not [text for text in said if "never mind" in text and text != "never mind"]
    assert [one.status for one in (await session.load()).messages if one.text == "never mind"] == [
        "withdrawn"
    ]


async def test_on_busy_reject_and_interrupt(client: Client) -> None:
    session = await client.start("demo")
    first = await session.send("tokens=500 rate=50")
    with pytest.raises(ApiError) as refused:
        await session.send("now?", on_busy="reject")
    assert refused.value.code == "session-busy"
    second = await session.send("tokens=2 rate=0", on_busy="interrupt")
    await finished(session)
    ends = {
        e.turn_id: e.type for e in (await session.replay()).events if e.turn_id and e.type.startswith("turn.")
    }
    assert ends == {first.turn_id: "turn.stopped", second.turn_id: "turn.completed"}


async def test_an_operator_takes_over(http: httpx.AsyncClient, client: Client, stack: Stack) -> None:
    session = await client.start("demo")
    await session.send("tokens=500 rate=50")
    async with stack.client("operator") as other:
        operator = other.attach(session.id)
        await operator.take_over(reason="refund")
        assert (await session.people()).taken_over_by
        await session.send("Is anyone there?")
        said = await operator.send("I am.")
        assert said.status == "recorded"
        await operator.release()
    after = await session.send("tokens=3 rate=0")
    await finished(session)
    texts = await transcript_texts(session)
    assert texts[-3:] == ["I am.", "tokens=3 rate=0", "A durable session "]
    assert after.turn_id


async def test_presence_shows_who_is_connected(http: httpx.AsyncClient, client: Client) -> None:
    session = await client.start("demo")
    headers = bearer(await token_for(http, session.id, subject="ada"))
    path = f"/sessions/{session.id}/events"
    reading = asyncio.create_task(read_blocks(http, path, '"type": "presence"', headers=headers))

    async def ada_is_here() -> bool:
        return [person.id for person in (await session.people()).present] == ["ada"]

    await eventually(ada_is_here)
    told = json.loads((await reading)[-1].split("data: ", 1)[1])
    assert [person["id"] for person in told["data"]["people"]] == ["ada"]

    async def ada_has_left() -> bool:
        return not (await session.people()).present

    await eventually(ada_has_left)
    await session.join()
    assert [person.id for person in (await session.people()).participants] == ["test-service"]


async def test_the_socket(stack: Stack, client: Client) -> None:
    session = await client.start("demo")
    url = f"{stack.url.replace('http', 'ws')}/sessions/{session.id}/socket"
    async with connect(url, additional_headers=bearer(KEYS["client"])) as socket:
        received: list[dict[str, Any]] = []
        seqs: list[int] = []

        async def until(kind: str, **match: Any) -> dict[str, Any]:
            wanted = {"type": kind, **match}
            for frame in received:
                if all(frame.get(key) == value for key, value in wanted.items()):
                    received.remove(frame)
                    return frame
            while True:
                frame = json.loads(await asyncio.wait_for(socket.recv(), 15))
                if "seq" in frame:
                    seqs.append(frame["seq"])
                if all(frame.get(key) == value for key, value in wanted.items()):
                    return frame
                received.append(frame)

        async def ask(op: str, **body: Any) -> dict[str, Any]:
            await socket.send(json.dumps({"op": op, "request": op, "body": body}))
            return await until("answer", request=op)

        sent = await ask("send", text="tokens=500 rate=50")
        assert sent["ok"]
        assert sent["data"]["status"] == "started"
        await until("message.delta")
        queued = await ask("send", text="never mind")
        withdrawn = await ask("withdraw", message_id=queued["data"]["message_id"])
        assert withdrawn["ok"]
        assert withdrawn["data"]["turn_id"] == queued["data"]["turn_id"]
        begun = await ask("withdraw", message_id=sent["data"]["message_id"])
        assert begun["problem"]["code"] == "not-queued"
        steered = await ask("steer", text="left")
        assert steered["data"]["outcome"] == "consumed"
        stopped = await ask("stop")
        assert stopped["data"]["outcome"] == "stopped"
        bad = await ask("send", text="")
        assert bad["ok"] is False
        assert bad["problem"]["status"] == 422
        assert bad["problem"]["errors"][0]["at"] == "send.body.text"
        for message_id in ("given", None):
            nan = await ask("send", text="x", message_id=message_id, data={"x": float("nan")})
            assert nan["problem"]["code"] == "bad-command"
        for nonsense in ("nonsense", "5", "{}"):
            await socket.send(nonsense)
            problem = (await until("answer"))["problem"]
            assert problem["code"] == "bad-command"
            assert "command" in problem["detail"]
        await ask("send", text="tokens=1 rate=0")
        await until("turn.completed")
    assert seqs == sorted(set(seqs))


async def test_an_agents_key_writes_as_an_agent_only(stack: Stack, client: Client) -> None:
    session = await client.start("demo")
    async with connect(
        f"{stack.url.replace('http', 'ws')}/ingest", additional_headers=bearer(KEYS["agent"])
    ) as socket:
        for role in ("user", "operator", "system"):
            frame = {
                "op": "open",
                "session_id": session.id,
                "writer": "w",
                "actor": {"id": "x", "role": role},
            }
            await socket.send(json.dumps(frame))
            (answer,) = json.loads(await socket.recv())
            assert (answer["op"], answer["code"]) == ("problem", "bad-actor")
        for frame, place in (("[", "frame: "), ("5", "frame: "), ('{"op": "close"}', "close.writer: ")):
            await socket.send(frame)
            (answer,) = json.loads(await socket.recv())
            assert answer["code"] == "bad-frame"
            assert answer["detail"].startswith(place)


async def test_the_socket_refuses_with_a_problem(stack: Stack, client: Client) -> None:
    session = await client.start("demo")
    base = f"{stack.url.replace('http', 'ws')}/sessions"
    for path, headers, status in [
        (f"{session.id}/socket", {}, 401),
        ("no-such/socket", bearer(KEYS["client"]), 404),
        (f"{session.id}/socket?after=x", bearer(KEYS["client"]), 422),
    ]:
        async with connect(f"{base}/{path}", additional_headers=headers) as socket:
            frame = json.loads(await socket.recv())
            assert frame["problem"]["status"] == status


async def test_an_agent_without_temporal_writes_over_http(stack: Stack, client: Client) -> None:
    session = await client.start("demo")
    async with stack.client("agent") as agents:
        items = [
            {"n": 1, "type": "message.delta", "message_id": "m", "data": {"offset": 0, "text": "hello"}},
            {"n": 2, "type": "message.completed", "message_id": "m"},
            {"n": 3, "type": "data.progress", "data": {"percent": 100}},
        ]
        writer = agents.attach(session.id)
        assert await writer.write("cron", items) == 3
        assert await writer.write("cron", items) == 3
    kinds = [event.type for event in (await session.replay()).events]
    assert kinds == ["session.started", "message.completed", "data.progress"]


async def test_what_the_log_refuses_is_told_over_http_and_the_rest_is_recorded(
    client: Client, http: httpx.AsyncClient
) -> None:
    session = await client.start("demo")
    path, headers = f"/sessions/{session.id}/events", bearer(KEYS["agent"])
    gap = {"n": 2, "type": "message.delta", "message_id": "m", "data": {"offset": 7, "text": "late"}}
    items = [{"n": 1, "type": "data.one"}, gap, {"n": 3, "type": "data.two"}, {**gap, "n": 4}]
    for _ in range(2):
        answer = await http.post(path, json={"writer": "w", "items": items}, headers=headers)
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["n"]) == (409, "events-refused", 3)
        told = [(refusal["first"], refusal["last"], refusal["code"]) for refusal in problem["refused"]]
        assert told == [(2, 2, "gap"), (4, 4, "gap")]
    over = {"writer": "v", "turn_id": "t9", "attempt": 1, "items": [{"n": 1, "type": "data.late"}]}
    answer = await http.post(path, json=over, headers=headers)
    assert (answer.status_code, answer.json()["refused"][0]["code"]) == (409, "turn-over")
    kinds = [event.type for event in (await session.replay()).events]
    assert kinds == ["session.started", "data.one", "data.two"]
    assert 'waystation_refused_items_total{code="gap"}' in (await http.get("/metrics")).text


async def test_what_the_log_refuses_is_told_on_the_agents_socket(stack: Stack, client: Client) -> None:
    session = await client.start("demo")
    opening = {
        "op": "open", "session_id": session.id, "writer": "w", "actor": {"id": "cron", "role": "agent"},
    }  # fmt: skip
    started = [{"n": n, "type": "message.started", "message_id": f"m{n}"} for n in range(1, 251)]
    bad = {"n": 251, "type": "turn.completed"}
    items = [*started, bad, {"n": 252, "type": "data.last"}]
    async with connect(
        f"{stack.url.replace('http', 'ws')}/ingest", additional_headers=bearer(KEYS["agent"])
    ) as socket:
        await socket.send(json.dumps(opening))
        assert [frame["op"] for frame in json.loads(await socket.recv())] == ["opened"]
        await socket.send(json.dumps({"op": "write", "writer": "w", "items": items}))
        told: list[dict[str, Any]] = []
        while not any(frame["op"] == "ack" and frame["n"] == 252 for frame in told):
            told += json.loads(await asyncio.wait_for(socket.recv(), 20))
    refused = {
        n: frame["code"]
        for frame in told
        if frame["op"] == "refused"
        for n in range(frame["first"], frame["last"] + 1)
    }
    assert refused == {**dict.fromkeys(range(201, 251), "too-many-messages"), 251: "bad-type"}
    assert [frame["op"] for frame in told][-1] == "ack", "what was refused is named before"
    assert len((await session.replay()).events) == 1 + 200 + 1


async def test_health_readiness_metrics_and_documentation(http: httpx.AsyncClient) -> None:
    assert (await http.get("/health")).json() == {"status": "ok"}
    assert (await http.get("/ready")).json() == {"temporal": True, "live_bus": True}
    assert "waystation_subscribers" in (await http.get("/metrics")).text
    paths = (await http.get("/openapi.json")).json()["paths"]
    assert {"/sessions", "/sessions/{session_id}/events", "/sessions/{session_id}/stop"} <= set(paths)


async def test_a_long_message_whose_text_is_any_text(client: Client) -> None:
    session = await client.start("demo")
    text = "😀ü\u2028\x00\r\n\n\ndata: x\n\nid: 9\n\n" * 50 + " tokens=1 rate=0"
    await session.send(text)
    await finished(session)
    assert (await transcript_texts(session))[0] == text


@pytest.mark.parametrize("how", ["terminated", "canceled"])
async def test_a_session_that_temporal_has_ended_is_closed_for_everybody(
    stack: Stack, client: Client, http: httpx.AsyncClient, how: str
) -> None:
    session = await client.start("demo", message="tokens=2000 rate=20")
    following = asyncio.create_task(_follow(session))
    await eventually(lambda: session.connected)
    temporal = await open_client(stack.temporal.address)
    workflow = temporal.get_workflow_handle(session.id)
    await (workflow.terminate() if how == "terminated" else workflow.cancel())
    events = await asyncio.wait_for(following, 30)
    assert how == "terminated" or events[-2:] == ["turn.stopped", "session.closed"]

    async def closed() -> bool:
        return (await session.snapshot()).status == "closed"

    await eventually(closed)
    snapshot = await session.snapshot()
    assert (snapshot.running, snapshot.queued) == ((), ())
    assert (await session.replay()).closed
    with pytest.raises(ConflictError, match="closed"):
        await session.send("Hello?")
    stream = await http.get(f"/sessions/{session.id}/events", headers={"Last-Event-ID": str(snapshot.tip)})
    assert stream.status_code == 204


async def _follow(session: Session) -> list[str]:
    return [event.type async for event in session.events() if isinstance(event, Event)]


async def test_an_id_that_stands_for_another_message_is_refused_and_nothing_is_lost(
    http: httpx.AsyncClient, client: Client
) -> None:
    session = await client.start("demo", message="tokens=2")
    await session.send("Hello", message_id="m-1")
    assert (await session.send("Hello", message_id="m-1")).message_id == "m-1"
    with pytest.raises(ConflictError, match="stands for another message"):
        await session.send("Something else", message_id="m-1")
    with pytest.raises(ConflictError, match="stands for another message"):
        await client.start("demo", session_id=session.id, message="another first message")
    again = await client.start("demo", session_id=session.id, message="tokens=2")
    assert again.id == session.id
    said = [message.text for message in await session.load() if message.actor.role == "user"]
    assert said == ["tokens=2", "Hello"]


async def test_an_agents_credential_acts_in_its_own_turns_alone(
    stack: Stack, client: Client, http: httpx.AsyncClient
) -> None:
    session = await client.start("demo", message="tokens=2000 rate=20")

    async def running() -> bool:
        return bool((await session.snapshot()).running)

    await eventually(running)
    (turn,) = (await session.snapshot()).running
    rival = bearer(await token_for(http, session.id, "agent", "rival"))
    own = bearer(await token_for(http, session.id, "agent", "demo"))
    item = {"n": 1, "type": "data.forged", "data": {}}
    spawn = {"parent_turn_id": turn.turn_id, "attempt": 1, "key": "k", "agent": "researcher", "text": "x"}

    def opening(actor: str) -> dict[str, Any]:
        return {
            "op": "open", "session_id": session.id, "writer": "w", "turn_id": turn.turn_id, "attempt": 1,
            "actor": {"id": actor, "role": "agent"},
        }  # fmt: skip

    async def told(headers: dict[str, str], *frames: dict[str, Any]) -> dict[str, Any]:
        async with connect(f"{stack.url.replace('http', 'ws')}/ingest", additional_headers=headers) as socket:
            for frame in frames:
                await socket.send(json.dumps(frame))
            answers = json.loads(await asyncio.wait_for(socket.recv(), 20))
            return dict(answers[0])

    asking = {"op": "spawn", "writer": "w", "session_id": session.id, "request": "r", "spawn": spawn}
    for refused in (opening("rival"), opening("demo"), asking):
        assert (await told(rival, refused))["code"] == "wrong-agent", refused
    assert (await told(own, opening("demo")))["op"] == "opened"
    body = {"writer": "w", "turn_id": turn.turn_id, "attempt": 1, "items": [item]}
    forged = await http.post(f"/sessions/{session.id}/events", json=body, headers=rival)
    assert (forged.status_code, forged.json()["code"]) == (403, "wrong-agent")
    later = await http.post(f"/sessions/{session.id}/events", json={**body, "turn_id": "t9"}, headers=rival)
    assert (later.status_code, later.json()["code"]) == (409, "unknown-turn")
    await session.stop()
    kinds = [event.type for event in (await session.replay()).events]
    assert "data.forged" not in kinds
    assert "agent.spawned" not in kinds


async def test_a_takeover_is_its_operators_own(http: httpx.AsyncClient, client: Client) -> None:
    session = await client.start("demo")

    async def call(role: str, subject: str, method: str, path: str, body: Any = None) -> tuple[int, str]:
        headers = bearer(await token_for(http, session.id, role, subject))
        answer = await http.request(method, f"/sessions/{session.id}/{path}", json=body, headers=headers)
        return answer.status_code, answer.json().get("code", "")

    assert (await call("operator", "olga", "POST", "takeover", {}))[0] == 200
    assert await call("operator", "otto", "POST", "release", {}) == (409, "taken-over")
    assert await call("operator", "otto", "POST", "messages", {"text": "Let me"}) == (409, "taken-over")
    # A user who happens to have the operator's id is somebody else.
    assert (await call("client", "olga", "POST", "participants", {}))[0] == 422
    await call("client", "olga", "DELETE", "participants/olga")
    assert (await session.snapshot()).status == "paused"
    assert (await call("operator", "olga", "POST", "messages", {"text": "Hello"}))[0] == 202
    assert (await http.post(f"/sessions/{session.id}/release", json={})).status_code == 200, "a service may"
    assert (await session.snapshot()).status == "idle"


async def test_sessions_are_found_by_what_they_do_and_who_is_in_them(
    http: httpx.AsyncClient, client: Client
) -> None:
    word = f"w{uuid.uuid4().hex[:9]}"
    session = await client.start("demo", title=f"Refund {word}", message="tokens=3")

    async def found(**filters: Any) -> list[str]:
        return [one.session_id for one in (await client.list(text=word, **filters)).sessions]

    async def is_idle() -> bool:
        return await found(status=["idle"]) == [session.id]

    await eventually(is_idle, what="the list says that the session is idle")
    [row] = (await client.list(text=word[:4])).sessions[:1]
    assert row.last_line is not None
    assert row.last_line.actor.id == "demo"
    assert await found(person="test-service") == [session.id]
    assert await found(person="nobody", status=["idle"]) == []
    token = bearer(await token_for(http, session.id))
    own = await http.get("/sessions", params={"q": word}, headers=token)
    assert [one["session_id"] for one in own.json()["sessions"]] == [session.id]
    [mine] = (await http.get("/sessions", headers=token)).json()["sessions"]
    assert (mine["status"], mine["last_line"]["actor"]["id"]) == ("idle", "demo")
    assert mine["snapshot"]["status"] == "idle"
    other = bearer(await token_for(http, "another"))
    assert (await http.get("/sessions", params={"q": word}, headers=other)).json()["count"] == 0
    await session.close()


async def test_the_sessions_of_a_token_come_in_pages(http: httpx.AsyncClient, client: Client) -> None:
    started = [(await client.start("demo")).id for _ in range(3)]
    body = {"role": "client", "sessions": [*started, "none"], "subject": "ada"}
    token = bearer((await http.post("/tokens", json=body)).json()["token"])

    async def page(**query: Any) -> Any:
        return (await http.get("/sessions", params={"limit": 2, **query}, headers=token)).json()

    first = await page()
    second = await page(cursor=first["next_cursor"])
    assert [len(first["sessions"]), len(second["sessions"])] == [2, 1]
    found = {one["session_id"] for one in first["sessions"] + second["sessions"]}
    assert found == set(started)
    assert (first["count"], second["count"], second["next_cursor"]) == (3, 3, None)
    of_temporals = write_place(Place(token=b"t"))
    for wrong in ("x", of_temporals):
        assert (await page(cursor=wrong))["code"] == "wrong-cursor"


@pytest.mark.parametrize(
    "query", ["status=asleep", "stauts=idle", "agent=a%20b", "q=" + "x" * 201, "mine=true", "limit=0"]
)
async def test_filters_that_mean_nothing_are_refused(http: httpx.AsyncClient, query: str) -> None:
    answer = await http.get(f"/sessions?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
