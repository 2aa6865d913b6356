"""Reads everything that is left when a run is over, by every way there is."""

import asyncio
import json
import time
from typing import Any, Final

import httpx
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHistory
from temporalio.service import RPCError

from tests.torture.evidence import Event, FinalSession
from tests.torture.evidence import Final as FinalState
from tests.torture.faults import TERMINATE_PATIENCE_SECONDS
from tests.torture.replaying import replayed
from tests.torture.world import World, names
from tests.world.keys import DECISION_KEY, TOKEN_KEY
from tests.world.stack import KEYS

READ_SECONDS: Final = 40.0
PAGE_EVENTS: Final = 1_000
MAX_HISTORIES: Final = 600


async def read_final(world: World, http: httpx.AsyncClient) -> FinalState:
    """Reads every session that was to be started."""
    final = FinalState(secrets=secrets(world))
    wanted = sorted({actor.session for actor in world.plan.actors if actor.session and actor.kind == "host"})
    for name in wanted:
        session = FinalSession(name)
        final.sessions.append(session)
        try:
            async with asyncio.timeout(READ_SECONDS):
                await _read_session(world, http, session)
        except (TimeoutError, RPCError, httpx.HTTPError, KeyError) as error:
            session.unreadable = f"{type(error).__name__}: {error}"[:500]
    await _read_histories(world, final)
    return final


def secrets(world: World) -> dict[str, str]:
    """What must be in no log, history or event."""
    return {
        **{f"key of role {role}": key for role, key in KEYS.items()},
        "payload key": world.stack.encryption_key.partition(":")[2],
        "decision key": DECISION_KEY.partition(":")[2],
        "token key": TOKEN_KEY.partition(":")[2],
        "token secret": "a secret of thirty-two bytes or more",
    }


async def _read_session(world: World, http: httpx.AsyncClient, session: FinalSession) -> None:
    assert world.client is not None, "the world has started"
    handle = world.client.get_workflow_handle(session.name)
    described = await handle.describe()
    session.workflow = described.status.name if described.status else ""
    after = 0
    while True:
        page = await handle.query("replay", args=[after, PAGE_EVENTS])
        # What an event has no data of is left out.
        session.log += [{"data": {}, **event} for event in page["events"]]
        after = page["next_after"]
        if not page["more"]:
            break
    for number, port in enumerate(world.api_ports, 1):
        api, url = f"api-{number}", f"http://127.0.0.1:{port}/sessions/{session.name}"
        session.replays[api] = await _replay(http, url)
        session.transcripts[api] = await get(http, f"{url}/transcript")
        session.snapshots[api] = await get(http, url)


async def _replay(http: httpx.AsyncClient, url: str) -> list[Event]:
    events: list[Event] = []
    after = 0
    while True:
        page = await get(http, f"{url}/replay?after={after}&limit=500")
        events += page["events"]
        after = page["next_after"]
        if not page["more"]:
            return events


async def get(http: httpx.AsyncClient, url: str) -> Any:
    """Returns what the API shows a service there, once it can."""
    headers = {"Authorization": f"Bearer {KEYS['service']}"}
    while True:  # bounded by the caller
        response = await http.get(url, headers=headers, timeout=10.0)
        if response.status_code != 503:
            response.raise_for_status()
            return response.json()
        await asyncio.sleep(0.5)


async def _read_histories(world: World, final: FinalState) -> None:
    assert world.client is not None, "the world has started"
    client: TemporalClient = world.client
    histories: dict[str, WorkflowHistory] = {}
    async for workflow in client.list_workflows(page_size=100):
        if len(histories) == MAX_HISTORIES:
            break
        history = await client.get_workflow_handle(workflow.id, run_id=workflow.run_id).fetch_history()
        name = f"{workflow.id}@{workflow.run_id}"
        final.histories[name] = json.dumps(history.to_json_dict())
        histories[name] = history
    final.replayed = await asyncio.to_thread(replayed, client.data_converter, histories)


async def end_all(world: World, final: FinalState) -> None:
    """Ends each of our processes with SIGTERM, all at once, and notes how long each took."""
    world.stopping = True

    async def end(name: str) -> None:
        began = time.monotonic()
        seconds = await world.terminate(name, TERMINATE_PATIENCE_SECONDS)
        final.ended[name] = seconds
        world.record.note(name, "terminated", seconds=seconds, fault=None, began=round(began, 3))

    await asyncio.gather(*(end(name) for name in names(world)))
