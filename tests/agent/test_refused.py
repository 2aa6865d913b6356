"""An agent that can't write takes no turns, says so, and gives back what it has."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import eventually
from tests.world.stack import KEYS, Part, Stack
from tests.world.temporal import running_temporal
from waystation.client import Session
from waystation.models.events import Event
from waystation.settings import hash_api_key


class _RefusingStack(Stack):
    """A stack whose API knows the agents' key, or doesn't."""

    knows_agents = True

    def more_env(self, part: Part) -> dict[str, str]:
        if part != "api" or self.knows_agents:
            return {}
        key = {"id": "test-service", "role": "service", "sha256": hash_api_key(KEYS["service"])}
        return {"WAYSTATION_API_KEYS": json.dumps([key])}

    async def restart_api(self, *, knows_agents: bool) -> None:
        port = self.ports[0]
        self.apis[port].kill()
        self.knows_agents = knows_agents
        self.run_api(port)
        await self.ready()


async def events(session: Session, kind: str) -> list[Event]:
    return [event for event in (await session.replay()).events if event.type == kind]


@pytest.mark.thorough
async def test_a_key_that_is_refused_for_a_while_costs_no_turn(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"limits__agent_start_timeout_seconds": 3}
    # A server of its own: a worker with other keys would take this stack's tasks.
    async with running_temporal(tmp_path) as temporal:
        with _RefusingStack(tmp_path, temporal, **settings) as stack:
            stack.run_api()
            stack.run_worker()
            agent = stack.run_agent("tests.agent.impatient:agent")
            await stack.ready()
            async with stack.client() as client:
                session = await client.start("unruly", message="wait for ever")
                await eventually(lambda: events(session, "message.started"))
                await stack.restart_api(knows_agents=False)
                await eventually(lambda: "refuses this agent's key" in agent.output)
                # Given back, and not counted; then nobody takes it, which the session says as well.
                retried = await eventually(lambda: events(session, "turn.retried"), within=60.0)
                assert [event.data["code"] for event in retried][:1] == ["agent_restarted"]
                await eventually(lambda: _waits(session), within=60.0)
                assert agent.output.count("Running agents") == 1
                assert agent.output.count("refuses this agent's key") == 1, "said once, not at every attempt"
                await stack.restart_api(knows_agents=True)
                await eventually(lambda: events(session, "message.started"), within=60.0)
                assert not await events(session, "turn.failed")
                assert not agent.ended
                await session.stop()


async def _waits(session: Session) -> bool:
    return (await events(session, "turn.retried"))[-1].data["code"] == "agent_unavailable"
