"""Routes of agents that write: one WebSocket for an agent's whole process, or plain POSTs."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, WebSocket
from pydantic import Field

from api import metrics
from api.auth import Action
from api.dependencies import Caller, Parts, SessionPath
from api.door import MAX_BATCH_BODY_BYTES, DoorRoute, takes_body_of
from api.errors import PROBLEM_RESPONSES, Conflict, Problem, Unavailable
from api.live.agents import AgentConnection, check_turn
from api.live.channels import check_write
from waystation.models.base import Frozen
from waystation.models.events import MAX_NAME_CHARACTERS, Actor, Identifier, Item, Role, Write

POST_TIMEOUT_SECONDS = 10.0

router = APIRouter(route_class=DoorRoute)


@router.websocket("/ingest")
async def ingest(socket: WebSocket, parts: Parts) -> None:
    """Lets agents write, and tells them of stops and steers; docs/ingest.md describes the frames."""
    try:
        principal = await parts.auth.authenticate(socket)
        principal.require(Action.WRITE)
    except Problem as problem:
        await socket.close(4000 + problem.status, problem.detail[:120])
        return
    await socket.accept()
    metrics.AGENT_CONNECTIONS.inc()
    try:
        await AgentConnection(socket, principal, parts.channels, parts.gateway).run()
    finally:
        metrics.AGENT_CONNECTIONS.dec()


class PostedEvents(Frozen):
    """The body of ``POST /sessions/{id}/events``: what a simple agent writes in one go.

    ``writer`` and the items' numbers make it idempotent: post the same again after a failure.
    """

    writer: Identifier
    name: str | None = Field(default=None, max_length=MAX_NAME_CHARACTERS)
    turn_id: Identifier | None = None
    attempt: int = Field(default=0, ge=0)
    items: Annotated[tuple[Item, ...], Field(min_length=1, max_length=1_000)]


class Accepted(Frozen):
    """The answer: everything up to ``n`` is durable."""

    writer: Identifier
    n: int


@router.post(
    "/sessions/{session_id}/events", responses=PROBLEM_RESPONSES, tags=["agents"], summary="Write events"
)
@takes_body_of(MAX_BATCH_BODY_BYTES)
async def post_events(session_id: SessionPath, body: PostedEvents, caller: Caller, parts: Parts) -> Accepted:
    """Writes events for an agent without a socket, and answers once they are durable."""
    caller.require(Action.WRITE, session_id)
    if body.turn_id is not None:
        await check_turn(parts.gateway, caller, session_id, body.turn_id)
    write = Write(
        writer=body.writer,
        actor=Actor(id=caller.subject, role=Role.AGENT, name=body.name),
        turn_id=body.turn_id,
        attempt=body.attempt,
        items=body.items,
    )
    check_write(write)
    async with parts.channels.use(session_id) as channel:
        if channel.feed.closed:
            raise Conflict("The session is closed; start another one.", code="session-closed")
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        await channel.write(
            write,
            lambda _, n: None if done.done() else done.set_result(n),
            lambda problem: None if done.done() else done.set_exception(problem),
            flush=True,
        )
        try:
            n = await asyncio.wait_for(done, POST_TIMEOUT_SECONDS)
        except TimeoutError as error:
            raise Unavailable("Not yet durable; post the same again.", code="temporal-unavailable") from error
    return Accepted(writer=body.writer, n=n)
