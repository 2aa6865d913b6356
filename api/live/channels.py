"""Where agents write: one WebSocket for an agent's whole process, or plain POSTs.

A write takes two paths at once: its deltas go over the live bus to every screen, and all of it
into the session's next durable batch (api/live/batcher.py). Down the same socket go acknowledgements
and what the agent must know of: stops, steers, the ends of its sub-agents.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import Field, TypeAdapter, ValidationError

from api import metrics
from api.auth import Action, Principal, check_session_id
from api.dependencies import Caller, Parts, SessionPath
from api.errors import PROBLEM_RESPONSES, Conflict, Forbidden, Invalid, Problem, Unauthenticated, Unavailable
from api.gateways.sessions import Gateway
from api.live.batcher import Batcher
from api.live.bus import TICK, LiveBus
from api.live.feeds import Feed, Feeds, is_terminal
from waystation.models.base import Frozen
from waystation.models.events import (
    MAX_DATA_BYTES,
    MAX_MESSAGE_CHARACTERS,
    MAX_NAME_CHARACTERS,
    Actor,
    Event,
    EventType,
    Identifier,
    Item,
    LiveDelta,
    Role,
    Write,
    is_agent_writable,
    is_encodable,
)
from waystation.models.ingest import (
    AckFrame,
    AgentFrame,
    CloseFrame,
    FencedFrame,
    FinishedFrame,
    OpenedFrame,
    OpenFrame,
    ProblemFrame,
    ServerFrame,
    SpawnedFrame,
    SpawnFrame,
    SteerFrame,
    StopFrame,
    WriteFrame,
)
from waystation.settings import Settings

logger = logging.getLogger(__name__)
router = APIRouter()

MAX_FRAME_BYTES = 4 * 1024 * 1024
MAX_WRITERS_PER_CONNECTION = 2_000
MAX_OUTGOING_FRAMES = 20_000
POST_TIMEOUT_SECONDS = 10.0

_FRAME: TypeAdapter[AgentFrame] = TypeAdapter(AgentFrame)


class Channel:
    """A session being written to by this process: its feed and its batcher."""

    def __init__(self, feed: Feed, bus: LiveBus, gateway: Gateway, interval_seconds: float) -> None:
        self.feed, self._bus = feed, bus
        self._batcher = Batcher(feed.session_id, gateway, interval_seconds, self._tell)

    def _tell(self, quiet: bool) -> None:
        self._bus.publish(self.feed.session_id, {"kind": "tick", "quiet": quiet})

    async def write(self, write: Write, acknowledge: Any, lost: Any, *, flush: bool) -> None:
        """Shows deltas at once and hands everything to the durable path."""
        for item in write.items:
            if item.type == EventType.MESSAGE_DELTA:
                self._show(write, item)
        await self._batcher.add(write, acknowledge, lost, boundary=flush)

    def _show(self, write: Write, item: Item) -> None:
        message_id, text = item.message_id or "", str(item.data["text"])
        live = LiveDelta.model_construct(
            actor=write.actor, turn_id=write.turn_id, message_id=message_id, data=item.data
        )
        self._bus.publish(
            self.feed.session_id,
            {
                "kind": "delta",
                "turn_id": write.turn_id,
                "attempt": write.attempt,
                "message_id": message_id,
                "offset": item.data["offset"],
                "length": len(text),
                "wire": live.model_dump_json(exclude_none=True, exclude={"attempt"}),
            },
        )

    def fenced(self, turn_id: str | None, attempt: int) -> bool:
        """Whether the turn is known to be over for this attempt."""
        known = self.feed.gate.attempts.get(turn_id or "")
        return known is not None and known != attempt


class Channels:
    """The sessions that this process's agents write to."""

    def __init__(self, feeds: Feeds, bus: LiveBus, gateway: Gateway, settings: Settings) -> None:
        self._feeds, self._bus, self._gateway = feeds, bus, gateway
        self._interval = settings.durable_interval_ms / 1_000
        self._channels: dict[str, tuple[Channel, int]] = {}

    def tick(self, session_id: str) -> None:
        """Says on the live bus that the session has news."""
        self._bus.publish(session_id, TICK)

    @asynccontextmanager
    async def use(self, session_id: str) -> AsyncIterator[Channel]:
        """The session's channel while the block runs; one batcher for all who write to it here."""
        async with self._feeds.use(session_id) as feed:
            channel, users = self._channels.get(session_id, (None, 0))
            if channel is None:
                channel = Channel(feed, self._bus, self._gateway, self._interval)
            self._channels[session_id] = (channel, users + 1)
            try:
                yield channel
            finally:
                channel, users = self._channels[session_id]
                if users > 1:
                    self._channels[session_id] = (channel, users - 1)
                else:
                    del self._channels[session_id]


def check_write(write: Write) -> None:
    """Refuses what no session would take, with a sentence that says what to do."""
    for item in write.items:
        if not is_agent_writable(item.type):
            raise Invalid(
                f"Agents can't write '{item.type}'; use message.*, tool.* or data.<name>.", code="bad-type"
            )
        if not is_encodable(item.data):
            raise Invalid("The data has half a surrogate pair in it, which is no character; leave it out.")
        text = item.data.get("text")
        if item.type == EventType.MESSAGE_DELTA:
            _check_delta(item, text)
            continue
        data = item.data
        if isinstance(text, str) and item.type == EventType.MESSAGE_COMPLETED:
            if len(text) > MAX_MESSAGE_CHARACTERS:
                raise _too_long()
            data = {key: value for key, value in data.items() if key != "text"}
        if len(json.dumps(data)) > MAX_DATA_BYTES:
            raise Invalid(
                f"One event carries at most {MAX_DATA_BYTES} bytes of data; store it and write a link.",
                code="data-too-large",
            )


def _check_delta(item: Item, text: object) -> None:
    offset = item.data.get("offset")
    bare = item.message_id is not None and item.data.keys() == {"offset", "text"}
    if not bare or not isinstance(text, str) or type(offset) is not int or offset < 0:
        raise Invalid(
            "A message.delta needs message_id and data {offset: int >= 0, text: str}, nothing else.",
            code="bad-delta",
        )
    if offset + len(text) > MAX_MESSAGE_CHARACTERS:
        raise _too_long()


def _too_long() -> Invalid:
    return Invalid(
        f"A message has at most {MAX_MESSAGE_CHARACTERS} characters; complete it and start another.",
        code="message-too-long",
    )


class Writer:
    """One writer on an agent's connection: an attempt of a turn, usually."""

    def __init__(self, connection: "AgentConnection", frame: OpenFrame, channel: Channel) -> None:
        self._connection, self.opened, self.channel = connection, frame, channel
        self.fenced = False

    def watch(self, event: Event) -> None:
        """Tells the agent what it must know of; called by the feed for each durable event."""
        frame, writer = self.opened, self.opened.writer
        if event.type == EventType.AGENT_FINISHED and event.data.get("parent_turn_id") == frame.turn_id:
            self._connection.tell(
                FinishedFrame(
                    writer=writer,
                    turn_id=event.turn_id or "",
                    outcome=event.data.get("outcome"),
                    result=event.data.get("result"),
                    detail=event.data.get("detail"),
                )
            )
        if frame.turn_id is None or event.turn_id != frame.turn_id:
            return
        if event.type == EventType.STOP_REQUESTED:
            self._connection.tell(
                StopFrame(writer=writer, turn_id=frame.turn_id, reason=_text(event, "reason"))
            )
        elif event.type == EventType.STEER_RECEIVED:
            self._connection.tell(
                SteerFrame(
                    writer=writer,
                    steer_id=_text(event, "steer_id") or "",
                    text=_text(event, "text") or "",
                    actor=event.actor,
                )
            )
        elif is_terminal(event) or (
            event.type == EventType.TURN_RETRIED and event.data.get("attempt") != frame.attempt
        ):
            self.fence("turn-over")

    def fence(self, code: str) -> None:
        if not self.fenced:
            self.fenced = True
            self._connection.tell(FencedFrame(writer=self.opened.writer, code=code))


def _text(event: Event, key: str) -> str | None:
    value = event.data.get(key)
    return value if isinstance(value, str) else None


class AgentConnection:
    """One agent process's socket, with all its writers."""

    def __init__(self, socket: WebSocket, principal: Principal, channels: Channels, gateway: Gateway) -> None:
        self._socket, self._principal, self._channels, self._gateway = socket, principal, channels, gateway
        self._writers: dict[str, tuple[Writer, AsyncExitStack]] = {}
        self._opens: dict[str, asyncio.Task[None]] = {}
        """What opens or has opened each writer that isn't closed."""
        self._outgoing: asyncio.Queue[ServerFrame] = asyncio.Queue(MAX_OUTGOING_FRAMES)
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, frame: ServerFrame) -> None:
        """Queues a frame for the agent; an agent that reads nothing is cut off and reconnects."""
        try:
            self._outgoing.put_nowait(frame)
        except asyncio.QueueFull:
            for task in self._tasks:
                task.cancel()

    async def run(self) -> None:
        """Serves the connection until either side ends it."""
        loops = [asyncio.create_task(self._send_forever()), asyncio.create_task(self._receive_forever())]
        self._tasks.update(loops)
        try:
            await asyncio.wait(
                loops, timeout=self._principal.seconds_left(), return_when=asyncio.FIRST_COMPLETED
            )
            if self._principal.seconds_left() == 0:
                expired = Unauthenticated("The token has expired; get a new one.")
                with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                    await self._socket.close(4000 + expired.status, expired.detail)
        finally:
            for task in self._tasks:
                task.cancel()
            results = await asyncio.gather(*self._tasks, return_exceptions=True)
            for _, resources in list(self._writers.values()):
                await resources.aclose()
            for result in results:
                if isinstance(result, Exception) and not isinstance(
                    result, (WebSocketDisconnect, RuntimeError)
                ):
                    logger.error("An agent's connection failed", exc_info=result)

    async def _send_forever(self) -> None:
        while True:
            frames = [await self._outgoing.get()]
            while not self._outgoing.empty():
                frames.append(self._outgoing.get_nowait())
            await self._socket.send_text("[" + ",".join(frame.model_dump_json() for frame in frames) + "]")

    async def _receive_forever(self) -> None:
        while True:
            raw = await self._socket.receive_text()
            try:
                if len(raw) > MAX_FRAME_BYTES:
                    raise Invalid(f"A frame has at most {MAX_FRAME_BYTES} bytes.", code="frame-too-large")
                await self._handle(_FRAME.validate_json(raw))
            except ValidationError as error:
                self._refuse(Invalid(f"Malformed frame: {_first(error)}", code="bad-frame"), raw)
            except Problem as problem:
                self._refuse(problem, raw)

    def _refuse(self, problem: Problem, raw: str) -> None:
        writer = request = None
        with contextlib.suppress(ValueError, AttributeError):
            frame = json.loads(raw)
            writer, request = frame.get("writer"), frame.get("request")
        self.tell(
            ProblemFrame(
                writer=writer if isinstance(writer, str) else None,
                request=request if isinstance(request, str) else None,
                code=problem.code,
                detail=problem.detail,
                retry=problem.status == 503,
            )
        )

    async def _handle(self, frame: AgentFrame) -> None:
        match frame:
            case WriteFrame():
                await self._write(frame)
            case OpenFrame():
                await self._close(frame.writer)
                self._check_open(frame)
                self._opens[frame.writer] = self._in_background(lambda: self._open(frame), frame)
            case SpawnFrame():
                self._in_background(lambda: self._spawn(frame), frame)
            case CloseFrame():
                await self._close(frame.writer)

    def _in_background(
        self, work: Callable[[], Coroutine[Any, Any, None]], frame: OpenFrame | SpawnFrame
    ) -> asyncio.Task[None]:
        """Asks Temporal without holding up the connection's other writers."""

        async def answer_problems() -> None:
            try:
                await work()
            except Problem as problem:
                self._refuse(problem, frame.model_dump_json())

        task = asyncio.create_task(answer_problems())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _check_open(self, frame: OpenFrame) -> None:
        self._principal.require(Action.WRITE, check_session_id(frame.session_id))
        if frame.actor.role != Role.AGENT:
            raise Invalid("Here write agents: the actor's role must be 'agent'.", code="bad-actor")
        if self._principal.sessions is not None and frame.actor.id != self._principal.subject:
            # A process with an API key runs many agents; a token is for one.
            raise Forbidden(f"This token writes as '{self._principal.subject}' and as nobody else.")
        if len(self._opens) >= MAX_WRITERS_PER_CONNECTION:
            raise Conflict(
                f"A connection has at most {MAX_WRITERS_PER_CONNECTION} writers.", code="too-many-writers"
            )

    async def _open(self, frame: OpenFrame) -> None:
        resources = AsyncExitStack()
        try:
            channel = await resources.enter_async_context(self._channels.use(frame.session_id))
        except BaseException:
            self._opens.pop(frame.writer, None)
            raise
        writer = Writer(self, frame, channel)
        self._writers[frame.writer] = (writer, resources)
        channel.feed.watch(writer.watch)
        resources.callback(channel.feed.unwatch, writer.watch)
        self.tell(OpenedFrame(writer=frame.writer))
        await self._replay_missed(frame, writer)

    async def _replay_missed(self, frame: OpenFrame, writer: Writer) -> None:
        """What happened to the turn before this connection was opened (a reconnect, say)."""
        if frame.turn_id is None:
            return
        if writer.channel.fenced(frame.turn_id, frame.attempt):
            writer.fence("turn-over")
        after = frame.after or 0
        while True:
            page = await writer.channel.feed.page(after)
            for event in page.events:
                writer.watch(event)
            after = page.next_after
            if not page.more:
                return

    async def _close(self, writer_id: str) -> None:
        # It may still be opening, and would otherwise stay for as long as the connection does.
        if opening := self._opens.pop(writer_id, None):
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        if entry := self._writers.pop(writer_id, None):
            await entry[1].aclose()

    async def _write(self, frame: WriteFrame) -> None:
        entry = self._writers.get(frame.writer)
        if entry is None:
            raise Conflict("Open the writer before writing with it.", code="writer-not-open")
        writer = entry[0]
        opened = writer.opened
        write = Write.model_construct(
            writer=frame.writer,
            actor=opened.actor,
            turn_id=opened.turn_id,
            attempt=opened.attempt,
            items=frame.items,
        )
        check_write(write)
        if writer.fenced:
            self.tell(FencedFrame(writer=frame.writer, code="turn-over"))
            return
        await writer.channel.write(
            write, self._acknowledge, lambda problem: writer.fence(problem.code), flush=frame.flush
        )

    def _acknowledge(self, writer: str, n: int) -> None:
        self.tell(AckFrame(writer=writer, n=n))

    async def _spawn(self, frame: SpawnFrame) -> None:
        self._principal.require(Action.WRITE, check_session_id(frame.session_id))
        spawned = await self._gateway.spawn(frame.session_id, frame.spawn)
        self._channels.tick(frame.session_id)
        self.tell(SpawnedFrame(writer=frame.writer, request=frame.request, turn_id=spawned.turn_id))


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


@router.websocket("/ingest")
async def ingest(socket: WebSocket, parts: Parts) -> None:
    """Agents write here and hear of stops and steers; docs/ingest.md describes the frames."""
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
async def post_events(session_id: SessionPath, body: PostedEvents, caller: Caller, parts: Parts) -> Accepted:
    """Writes events as an agent without a socket; answers once they are durable."""
    caller.require(Action.WRITE, session_id)
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
