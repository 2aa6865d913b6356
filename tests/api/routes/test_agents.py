"""Which agents there are, and whether anybody runs them."""

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.support import eventually
from tests.world.stack import KEYS, Stack
from waystation.client import Client
from waystation.errors import NotAllowed, NotFound
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
