"""Which agents there are, and whether anybody runs them."""

import json

import httpx
import pytest
from websockets.asyncio.client import connect

from api.auth import Principal
from api.live.bus import MemoryBus
from api.live.connected import MAX_OTHER_PROCESSES, ConnectedAgents
from tests.support import eventually
from tests.world.stack import KEYS, Stack
from waystation.agent import Agent
from waystation.client import Client
from waystation.errors import NotAllowed, NotFound, StartError
from waystation.models.live import ALL_SESSIONS, Offers
from waystation.models.requests import AgentList, AgentView


async def listed(client: Client, *names: str) -> dict[str, int]:
    query = "&".join(f"name={name}" for name in names)
    answer = await client.request("GET", f"/agents?{query}", AgentList)
    return {agent.name: agent.processes for agent in answer.agents}


async def is_listed(client: Client, name: str) -> bool:
    return name in await listed(client)


async def is_gone(client: Client, name: str) -> bool:
    return not await is_listed(client, name)


async def test_an_agent_that_runs_is_told_from_one_that_nobody_runs(client: Client) -> None:
    processes = await listed(client, "demo", "nobody-runs-this")
    assert processes["demo"] >= 1, "other tests may run it too"
    assert processes["nobody-runs-this"] == 0


async def test_agents_of_recent_sessions_are_known(client: Client) -> None:
    await client.start("an-agent-of-a-session")
    known = await listed(client)
    assert known["an-agent-of-a-session"] == 0
    assert "test-agent" not in known, "the id of a key is no agent"


async def test_agents_of_connected_processes_are_known(client: Client, stack: Stack) -> None:
    """Also those that no session has asked for yet; and nobody names an agent that isn't theirs."""
    headers = {"Authorization": f"Bearer {KEYS['agent']}"}
    url = (
        stack.url.replace("http", "ws")
        + "/ingest?agent=never-asked-for&agent=never-asked-for&agent="
        + "x" * 500
    )
    async with connect(url, additional_headers=headers):
        await eventually(lambda: is_listed(client, "never-asked-for"), what="it is listed")
        assert "x" * 500 not in await listed(client)
    await eventually(lambda: is_gone(client, "never-asked-for"), what="it is gone")


async def test_what_agents_offer_to_begin_with_is_bounded_and_theirs(client: Client, stack: Stack) -> None:
    """While they are connected, and for whoever reads a session with one of them too."""
    session = await client.start("offering")

    async def offered() -> tuple[str, ...]:
        view = await client.request("GET", f"/sessions/{session.id}/agent", AgentView)
        (listed,) = (await client.request("GET", "/agents?name=offering", AgentList)).agents
        assert listed.starters == view.starters
        return view.starters

    async def is_offered(*texts: str) -> bool:
        return await offered() == texts

    headers = {"Authorization": f"Bearer {KEYS['agent']}"}
    async with connect(stack.url.replace("http", "ws") + "/ingest", additional_headers=headers) as socket:

        async def describe(*texts: str) -> None:
            await socket.send(json.dumps({"op": "describe", "starters": {"offering": texts}}))

        await describe("One", "<b>Two</b>")
        await eventually(lambda: is_offered("One", "<b>Two</b>"), what="it is offered as it was written")
        for texts in ([""], ["x" * 201], ["x"] * 7):
            await describe(*texts)
            (problem,) = json.loads(await socket.recv())
            assert (problem["op"], problem["code"]) == ("problem", "bad-frame")
        assert await offered() == ("One", "<b>Two</b>")
        await describe("Three")
        await eventually(lambda: is_offered("Three"), what="the last one counts")
    await eventually(is_offered, what="with the connection it is gone")


def test_starters_that_no_page_could_offer_are_refused() -> None:
    assert Agent("tailor", starters=["A shirt"]).starters == ("A shirt",)
    for starters in ([""], ["x" * 201], ["x"] * 7):
        with pytest.raises(StartError, match="at most 6 texts"):
            Agent("tailor", starters=starters)


async def test_api_processes_tell_each_other_what_is_offered() -> None:
    bus = MemoryBus()
    service = Principal(subject="s", role="service")
    agent = Principal(subject="tailor", role="agent")
    first = ConnectedAgents(bus)
    with first.counted(agent, ["tailor"]) as connection:
        first.offer(connection, agent, {"tailor": ("A shirt",), "not-its-own": ("x",)})
        second = ConnectedAgents(bus)
        assert second.starters("tailor") == ("A shirt",), "also those that began before it"
        assert second.starters("not-its-own") == ()
        with second.counted(service, []) as other:
            second.offer(other, service, {"tailor": ("A coat",)})
            assert first.starters("other") == ()
            assert second.starters("tailor") == ("A coat",)
    assert first.starters("tailor") == second.starters("tailor") == ()


@pytest.mark.parametrize(("role", "may"), [("operator", True), ("client", True), ("agent", False)])
async def test_whoever_starts_or_lists_sessions_may_ask(stack: Stack, role: str, may: bool) -> None:
    async with stack.client(role) as caller:
        if may:
            assert await listed(caller, "demo")
        else:
            with pytest.raises(NotAllowed):
                await listed(caller, "demo")


async def test_whoever_reads_a_session_may_ask_for_its_agent(stack: Stack, client: Client) -> None:
    session = await client.start("nobody-runs-this")
    body = {"role": "client", "sessions": [session.id], "subject": "ada"}
    headers = {"Authorization": f"Bearer {KEYS['service']}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers) as http:
        token = (await http.post("/tokens", json=body)).json()["token"]
    async with Client(stack.url, token) as ada:
        found = await ada.request("GET", f"/sessions/{session.id}/agent", AgentView)
        assert (found.name, found.processes) == ("nobody-runs-this", 0)
        other = await client.start("demo")
        with pytest.raises(NotFound):
            await ada.request("GET", f"/sessions/{other.id}/agent", AgentView)
    assert (await client.request("GET", f"/sessions/{other.id}/agent", AgentView)).processes >= 1


def test_of_very_many_api_processes_the_latest_are_known() -> None:
    bus = MemoryBus()
    agents = ConnectedAgents(bus)
    for number in range(MAX_OTHER_PROCESSES + 1):
        bus.publish(ALL_SESSIONS, Offers(f"process-{number}", {f"agent-{number}": ("Hello",)}))
    assert agents.starters("agent-0") == ()
    assert agents.starters("agent-1") == agents.starters(f"agent-{MAX_OTHER_PROCESSES}") == ("Hello",)
