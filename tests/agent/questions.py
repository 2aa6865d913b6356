"""A Waystation whose agents ask people, and what tests look for in its sessions."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import JsonValue

from tests.support import eventually
from tests.world.stack import Stack, running_stack
from tests.world.temporal import TemporalServer
from waystation.client import Client, Session
from waystation.models.events import TERMINAL_TURN_TYPES, Event
from waystation.models.questions import ApprovalRule

AGENTS = ("tests.agent.asking:agent", "tests.agent.asking:helper")
PARK_AFTER_SECONDS = 1


class Asking(NamedTuple):
    stack: Stack
    client: Client
    begun: Path

    async def start(self, text: str, rules: Sequence[ApprovalRule] = ()) -> Session:
        return await self.client.start("asking", message=text, approval_rules=rules)

    def attempts(self, session: Session) -> int:
        return sum(line.startswith(f"{session.id} ") for line in self.begun.read_text().splitlines())


@asynccontextmanager
async def running_asking(folder: Path, temporal: TemporalServer) -> AsyncIterator[Asking]:
    """Starts a stack whose agents ask, yields it, and kills it."""
    begun = folder / "begun.txt"
    begun.touch()
    limits = f'{{"park_after_seconds": {PARK_AFTER_SECONDS}, "agent_heartbeat_timeout_seconds": 2}}'
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASKING_BEGUN", str(begun))
        running = running_stack(folder, temporal, *AGENTS, limits=limits)
        async with running as stack, stack.client() as client:
            yield Asking(stack, client, begun)


async def events(session: Session) -> list[Event]:
    return list((await session.replay()).events)


async def asked(session: Session, count: int = 1) -> list[Event]:
    found: list[Event] = []

    async def there() -> bool:
        found[:] = [event for event in await events(session) if event.type == "input.requested"]
        return len(found) >= count

    await eventually(there)
    return found


async def result(session: Session) -> JsonValue:
    found: list[Event] = []

    async def over() -> bool:
        found[:] = [event for event in await events(session) if event.type in TERMINAL_TURN_TYPES]
        return bool(found)

    await eventually(over, within=40.0)
    assert found[0].type == "turn.completed", found[0]
    return found[0].data.get("result")


async def parked(session: Session) -> None:
    async def waiting() -> bool:
        return (await session.snapshot()).status == "waiting"

    await eventually(waiting)


def types(log: list[Event]) -> list[str]:
    return [event.type for event in log if not event.type.startswith(("message.delta", "message.started"))]
