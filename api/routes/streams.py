"""Session events down to clients: server-sent events and WebSocket.

SSE blocks carry ``id: <seq>`` where they are durable and none where they are live; a block with
an id and no data only moves the client's cursor. Everything arrives as a plain ``message`` event
whose JSON has a ``type``.
"""

import asyncio
import contextlib
import time
import uuid
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response, WebSocket, WebSocketDisconnect
from pydantic import TypeAdapter, ValidationError

from api.auth import Action, Principal, check_session_id
from api.cursors import read_cursor
from api.dependencies import ApiParts, Caller, Parts, SessionPath
from api.door import DoorRoute
from api.errors import PROBLEM_RESPONSES, Invalid, Problem, Unauthenticated, malformed
from api.live.event_stream import SEND_TIMEOUT_SECONDS, EventStream, lifetime_seconds
from api.live.feed import Feed
from api.live.sockets import (
    as_problem,
    close,
    connect_again,
    read_to_its_end,
    receive_text,
    too_slow,
    why_ended,
)
from api.live.subscription import Subscription
from waystation.foreign_json import ForeignJsonError, read_json
from waystation.models.base import JsonObject
from waystation.models.purchases import PurchaseView
from waystation.models.questions import Answered
from waystation.models.requests import ControlAnswer
from waystation.models.sessions import Sent, Withdrawn
from waystation.models.socket import (
    AnswerCommand,
    ApproveCommand,
    Command,
    SendCommand,
    SteerCommand,
    StopCommand,
    WithdrawCommand,
)

router = APIRouter(route_class=DoorRoute)

MAX_COMMAND_BYTES = 2 * 1024 * 1024
MAX_COMMANDS_AT_ONCE = 32
CLOCKS_DIFFER_SECONDS = 0.1
"""A timer may fire a little before the clock says so."""

_COMMAND: TypeAdapter[Command] = TypeAdapter(Command)
_OBJECT: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)


def _cursor(header: str | None, query: str | None) -> int:
    """Returns where to resume: the header, which browsers send by themselves, overrides the query."""
    return read_cursor(header or query or "0")


def _hold(
    resources: contextlib.AsyncExitStack, feed: Feed, subscription: Subscription, caller: Principal
) -> None:
    """Makes the caller present while ``resources`` are open, and ends the subscription with them."""
    connection_id = uuid.uuid4().hex
    resources.callback(feed.release, subscription)
    resources.callback(feed.leave, subscription)
    resources.callback(feed.presence.depart, connection_id)
    feed.presence.arrive(connection_id, caller.actor)


@router.get(
    "/sessions/{session_id}/events",
    tags=["events"],
    summary="Stream events (SSE)",
    response_class=EventStream,
    status_code=200,
    responses={
        200: {
            "description": "The event stream",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The session is closed and the cursor is at its end: don't reconnect"},
        **PROBLEM_RESPONSES,
    },
)
async def events(
    session_id: SessionPath,
    caller: Caller,
    parts: Parts,
    last_event_id: Annotated[str | None, Header(description="The last seq seen; browsers send it.")] = None,
    after: Annotated[str | None, Query(description="The same, for clients that can't set headers.")] = None,
) -> Response:
    """Follows a session from a cursor: durable events in order, live deltas ahead of them."""
    caller.require(Action.READ, session_id)
    cursor = _cursor(last_event_id, after)
    resources = contextlib.AsyncExitStack()
    feed = await resources.enter_async_context(parts.feeds.use(session_id))
    try:
        await feed.reach(cursor)
        subscription = feed.subscribe(cursor, staff=caller.is_staff)
    except BaseException:
        await resources.aclose()
        raise
    if feed.closed and cursor >= feed.tip:
        feed.release(subscription)
        await resources.aclose()
        return Response(status_code=204)

    _hold(resources, feed, subscription, caller)
    ending = asyncio.get_running_loop().call_later(lifetime_seconds(parts.settings, caller), subscription.end)
    resources.callback(ending.cancel)
    return EventStream(subscription, resources, heartbeat_seconds=parts.settings.heartbeat_seconds)


class ClientSocket:
    """A client's WebSocket: events down, commands up, each command answered."""

    def __init__(
        self,
        socket: WebSocket,
        session_id: str,
        principal: Principal,
        parts: ApiParts,
    ) -> None:
        self._socket, self._session_id, self._principal, self._parts = socket, session_id, principal, parts
        self._sending = asyncio.Lock()
        self._slots = asyncio.Semaphore(MAX_COMMANDS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails as the first answer does that can't be given."""

    async def run(self, subscription: Subscription) -> None:
        """Serves the connection until either side ends it."""
        loops = [asyncio.create_task(self._events(subscription)), asyncio.create_task(self._commands())]
        try:
            ended, _ = await asyncio.wait([*loops, self._failed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*loops, *self._tasks, self._failed):
                task.cancel()
            await asyncio.gather(*loops, *self._tasks, return_exceptions=True)
        if closing := why_ended(ended):
            await close(self._socket, closing)

    async def _events(self, subscription: Subscription) -> None:
        lifetime = lifetime_seconds(self._parts.settings, self._principal)
        expires_first = lifetime < self._parts.settings.stream_lifetime_seconds
        began = time.monotonic()

        def lasted_seconds() -> float:
            return time.monotonic() - began

        ending = asyncio.get_running_loop().call_later(lifetime, subscription.end)
        try:
            async for frames in subscription.frames():
                for frame in frames:
                    for text in frame.texts or (f'{{"type":"cursor","seq":{frame.seq}}}',):
                        await self._send(text)
        finally:
            ending.cancel()
        if subscription.finished:
            raise read_to_its_end()
        if expires_first and lasted_seconds() >= lifetime - CLOCKS_DIFFER_SECONDS:
            raise as_problem(Unauthenticated("The token has expired; get a new one."))
        raise connect_again()

    async def _commands(self) -> None:
        while True:
            raw = await receive_text(self._socket)
            await self._slots.acquire()
            task = asyncio.create_task(self._answer(raw))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled() and (error := task.exception()) and not self._failed.done():
            self._failed.set_exception(error)

    async def _answer(self, raw: str) -> None:
        answer: JsonObject = {"type": "answer", "request": _request_of(raw)}
        try:
            if len(raw) > MAX_COMMAND_BYTES:
                raise Invalid(f"A command has at most {MAX_COMMAND_BYTES} bytes.", code="command-too-large")
            answer |= {"ok": True, "data": await self._do(_read_command(raw))}
        except Problem as problem:
            answer |= {"ok": False, "problem": problem.body()}
        await self._send(_json(answer))

    async def _do(self, command: Command) -> JsonObject:
        result: Sent | Withdrawn | ControlAnswer | PurchaseView | Answered
        control, caller = self._parts.control, self._principal
        match command:
            case SendCommand():
                result = await control.send(self._session_id, command.body, caller)
            case WithdrawCommand():
                result = await control.withdraw(self._session_id, command.body, caller)
            case StopCommand():
                result = await control.stop(self._session_id, command.body, caller)
            case SteerCommand():
                result = await control.steer(self._session_id, command.body, caller)
            case ApproveCommand(body=body):
                result = await control.approve(body.purchase_id, body.digest, caller)
            case AnswerCommand(body=body):
                result = await control.answer(self._session_id, body.question_id, body, caller)
        return result.model_dump(mode="json", exclude_none=True)

    async def _send(self, text: str) -> None:
        async with self._sending:
            try:
                await asyncio.wait_for(self._socket.send_text(text), SEND_TIMEOUT_SECONDS)
            except TimeoutError:
                raise too_slow() from None


def _read_command(raw: str) -> Command:
    try:
        return _COMMAND.validate_python(read_json(raw))
    except ForeignJsonError as error:
        raise Invalid(f"The command is {error}.", code="bad-command") from error
    except ValidationError as error:
        raise malformed("command", error.errors(), code="bad-command") from error


def _request_of(raw: str) -> str | None:
    """Returns the id to answer under, even if the rest of the command is malformed."""
    try:
        command = read_json(raw, allow_nan=True)
    except ForeignJsonError:
        return None
    request = command.get("request") if isinstance(command, dict) else None
    return request if isinstance(request, str) else None


def _json(value: JsonObject) -> str:
    return _OBJECT.dump_json(value).decode()


@router.websocket("/sessions/{session_id}/socket")
async def socket(socket: WebSocket, session_id: str, parts: Parts, after: str | None = None) -> None:
    """Sends events, and takes commands. docs/http-api.md has the frames."""
    async with contextlib.AsyncExitStack() as resources:
        try:
            check_session_id(session_id)
            principal = await parts.auth.authenticate(socket, session_id=session_id)
            principal.require(Action.READ, session_id)
            feed = await resources.enter_async_context(parts.feeds.use(session_id))
            cursor = _cursor(None, after)
            await feed.reach(cursor)
            subscription = feed.subscribe(cursor, staff=principal.is_staff)
        except Problem as problem:
            # Accepted first: browsers tell a page nothing about a refused handshake.
            await socket.accept()
            await socket.send_text(_json({"type": "problem", "problem": problem.body()}))
            await close(socket, as_problem(problem))
            return
        _hold(resources, feed, subscription, principal)
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            await ClientSocket(socket, session_id, principal, parts).run(subscription)
