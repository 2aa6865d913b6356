"""``GET /attention``, on real parts: what waits for whom, and nobody else's."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.api.attending import attending
from tests.api.routes.test_sessions import bearer, token_for
from tests.support import eventually
from tests.world.stack import KEYS, Stack
from waystation.client import Client
from waystation.models.events import Actor, Role

OLGA = Actor(id="olga", role=Role.OPERATOR, name="Olga")


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.url, headers=bearer(KEYS["service"]), timeout=20) as http:
        yield http


async def ask(stack: Stack, session_id: str, *questions: dict[str, Any]) -> None:
    items = [{"n": n, "type": "input.requested", "data": one} for n, one in enumerate(questions, 1)]
    async with stack.client("agent") as agents:
        await agents.attach(session_id).write("asker", items)


async def staff_token(http: httpx.AsyncClient, role: str, subject: str) -> str:
    body = {"role": role, "sessions": None, "subject": subject}
    return str((await http.post("/tokens", json=body)).json()["token"])


async def test_each_is_told_at_once_of_what_waits_for_them(
    stack: Stack, http: httpx.AsyncClient, client: Client
) -> None:
    session, other = await client.start("demo", title="Order 17"), await client.start("demo")
    customer, stranger = await token_for(http, session.id), await token_for(http, other.id)
    olga, bob = await staff_token(http, "operator", "olga"), await staff_token(http, "operator", "bob")
    async with (
        attending(stack.url, customer) as ada,
        attending(stack.url, stranger) as eve,
        attending(stack.url, olga) as hers,
        attending(stack.url, bob) as his,
    ):
        await eventually(lambda: ada.said and eve.said)
        assert ada.said[-1] == {"count": 0, "counts": {}, "items": [], "more": False}
        await ask(
            stack,
            session.id,
            {"question_id": "size", "prompt": "Which\nsize?", "expires_in_seconds": 3600},
            {"question_id": "who", "prompt": "Who pays?", "audience": {"roles": ["operator"]}},
            {"question_id": "rm", "kind": "approval", "prompt": "Delete?", "tool": "rm", "arguments": {}},
        )
        await ada.shows(session.id, "question", "tool")
        for operator in (hers, his):
            await operator.shows(session.id, "question", "question", "tool")
        assert ada.lines == ["Delete?", "Which size?"]
        item = ada.said[-1]["items"][1]
        assert item == {
            "kind": "question",
            "id": "size",
            "session_id": session.id,
            "agent": "test-agent",
            "line": "Which size?",
            "since": item["since"],
            "deadline": item["deadline"],
        }
        assert ada.said[-1]["counts"] == {"question": 1, "tool": 1}
        await session.answer("size", "42")
        await ada.shows(session.id, "tool")
        await hers.shows(session.id, "question", "tool")

        await session.assign(OLGA, actor=OLGA)
        await hers.shows(session.id, "question", "tool", "handover")
        assert "“Order 17” is assigned to you" in hers.lines
        await http.post(f"/sessions/{session.id}/takeover", json={}, headers=bearer(bob))
        await his.shows(session.id, "question", "tool", "handover")
        assert "“Order 17” is taken over by you" in his.lines
        await http.post(f"/sessions/{session.id}/release", json={}, headers=bearer(bob))
        await session.assign(None, actor=OLGA)
        await his.shows(session.id, "question", "tool")
        await hers.shows(session.id, "question", "tool")

        await other.send("tokens=5 fail=2")
        await his.shows(other.id, "failure")
        await other.send("tokens=2 rate=0")
        await his.shows(other.id)
        await session.close()
        for page in (ada, hers, his):
            await page.shows(session.id)
        assert eve.said == [{"count": 0, "counts": {}, "items": [], "more": False}], "nothing was theirs"
        assert not any("assigned" in str(said) or "taken over" in str(said) for said in ada.said)


async def test_a_page_that_comes_back_has_it_at_once_and_is_sent_nothing_twice(
    stack: Stack, http: httpx.AsyncClient, client: Client
) -> None:
    session = await client.start("demo")
    await ask(stack, session.id, {"question_id": "q", "prompt": "Now?"})
    token = await token_for(http, session.id)
    plain = await http.get("/attention", headers=bearer(token))
    assert plain.headers["content-type"] == "application/json"
    assert plain.json()["items"][0]["line"] == "Now?"
    async with attending(stack.url, token) as page:
        await eventually(lambda: page.said)
        assert page.said == [plain.json()]
        [seen] = page.ids
    async with attending(stack.url, token, seen) as page:
        await session.answer("q", "yes")
        await eventually(lambda: page.said)
        assert [said["count"] for said in page.said] == [0]


async def test_an_operator_who_comes_later_finds_what_they_look_after(
    stack: Stack, http: httpx.AsyncClient, client: Client
) -> None:
    session, kate = await client.start("demo"), Actor(id="kate", role=Role.OPERATOR)
    await session.assign(kate, actor=OLGA)
    token = await staff_token(http, "operator", "kate")

    async def found() -> bool:  # Temporal's lists may be a moment behind
        async with attending(stack.url, token) as page:
            await eventually(lambda: page.said)
            return page.of(session.id) == ["handover"]

    await eventually(found)
    async with attending(stack.url, await staff_token(http, "operator", "bob")) as page:
        await eventually(lambda: page.said)
        assert page.of(session.id) == []


async def test_who_is_nobody_in_person_is_told_so(stack: Stack, http: httpx.AsyncClient) -> None:
    for role in ("service", "agent"):
        answer = await http.get("/attention", headers=bearer(KEYS[role]))
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert "use a person's token" in answer.json()["detail"]
    assert (await http.get("/attention", headers={"Authorization": ""})).status_code == 401


async def test_a_stream_ends_with_the_token_that_opened_it(stack: Stack, http: httpx.AsyncClient) -> None:
    body = {"role": "client", "sessions": ["none"], "subject": "ada", "ttl_seconds": 2}
    token = (await http.post("/tokens", json=body)).json()["token"]
    headers = {**bearer(token), "Accept": "text/event-stream"}
    async with http.stream("GET", "/attention", headers=headers) as answer:
        assert answer.status_code == 200
        text = "".join([chunk async for chunk in answer.aiter_text()])
    assert text.startswith("retry: 1000\n\nid: ")
    again = await http.get("/attention", headers=headers)
    assert again.status_code == 401
