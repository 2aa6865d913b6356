"""Routes of agents that write: one WebSocket for an agent's whole process, or plain POSTs."""

import asyncio
import functools
from typing import Annotated

from fastapi import APIRouter, WebSocket
from pydantic import Field

from api import metrics
from api.auth import Action, Principal
from api.dependencies import ApiParts, Caller, Parts, SessionPath
from api.door import MAX_BATCH_BODY_BYTES, DoorRoute, takes_body_of
from api.errors import PROBLEM_RESPONSES, CarriedOut, Conflict, Problem, Unavailable
from api.live.agents import AgentConnection, check_turn
from api.live.channels import check_item
from api.live.receipts import Settled
from waystation.models.base import Frozen
from waystation.models.events import MAX_NAME_CHARACTERS, Actor, Identifier, OrderedItems, Role, Write
from waystation.models.refusals import Refusal

POST_TIMEOUT_SECONDS = 10.0
"""For everything: to find the session, to wait for room, and until what was posted is settled."""

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
        agents = parts.connected_agents
        with agents.counted(principal, socket.query_params.getlist("agent")) as connection:
            offer = functools.partial(agents.offer, connection, principal)
            await AgentConnection(socket, principal, parts.channels, parts.gateway, offer).run()
    finally:
        metrics.AGENT_CONNECTIONS.dec()


class PostedEvents(Frozen):
    """The body of ``POST /sessions/{id}/events``: what a simple agent writes in one go.

    ``writer`` and the items' numbers make it idempotent: post the same again after a failure.
    """

    writer: Identifier
    name: str | None = Field(default=None, max_length=MAX_NAME_CHARACTERS)
    turn_id: Identifier | None = None
    attempt: int = Field(default=0, ge=0, strict=True)
    items: Annotated[OrderedItems, Field(min_length=1, max_length=1_000)]


class Accepted(Frozen):
    """The answer: everything up to ``n`` is recorded."""

    writer: Identifier
    n: int


class _Poster:
    """Waits until all of what was posted is settled."""

    def __init__(self, last: int) -> None:
        self._last = last
        self._recorded = 0
        self._refused: list[Refusal] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, settled: Settled) -> None:
        self._recorded = settled.recorded or self._recorded
        self._refused += settled.refused
        if settled.last >= self._last and not self.done.done():
            self.done.set_result(None)

    def lose(self, problem: Problem) -> None:
        if not self.done.done():
            self.done.set_exception(problem)

    def answer(self, writer: str) -> Accepted:
        """Returns the answer; raises a problem if anything was refused."""
        if not self._refused:
            return Accepted(writer=writer, n=self._recorded)
        first = self._refused[0]
        raise Conflict(
            f"Not everything was recorded: {first.detail}",
            code="events-refused",
            writer=writer,
            n=self._recorded,
            refused=[
                {"first": each.first, "last": each.last, "code": each.code, "detail": each.detail}
                for each in self._refused
            ],
        )


@router.post(
    "/sessions/{session_id}/events", responses=PROBLEM_RESPONSES, tags=["agents"], summary="Write events"
)
@takes_body_of(MAX_BATCH_BODY_BYTES)
async def post_events(session_id: SessionPath, body: PostedEvents, caller: Caller, parts: Parts) -> Accepted:
    """Writes events for an agent without a socket, and answers once they are recorded, or refused."""
    caller.require(Action.WRITE, session_id)
    for item in body.items:
        check_item(item)
    try:
        async with asyncio.timeout(POST_TIMEOUT_SECONDS):
            return await _post(session_id, body, caller, parts)
    except TimeoutError as error:
        # Items are numbered, so the same again does no harm.
        raise Unavailable("It isn't durable yet.", CarriedOut.UNKNOWN, code="temporal-unavailable") from error


async def _post(session_id: str, body: PostedEvents, caller: Principal, parts: ApiParts) -> Accepted:
    if body.turn_id is not None:
        await check_turn(parts.gateway, caller, session_id, body.turn_id)
    write = Write(
        writer=body.writer,
        actor=Actor(id=caller.subject, role=Role.AGENT, name=body.name),
        turn_id=body.turn_id,
        attempt=body.attempt,
        items=body.items,
    )
    async with parts.channels.use(session_id) as channel:
        if channel.feed.closed:
            raise Conflict("The session is closed; start another one.", code="session-closed")
        poster = _Poster(body.items[-1].n)
        try:
            await channel.write(write, poster, flush=True)
            await poster.done
        finally:
            channel.forget(body.writer, poster)
    return poster.answer(body.writer)
