"""The agent processes that are connected: their turns' writes come up, and what they must know goes down.

Acknowledgements, stops, steers and the ends of sub-agents go down the socket on which the writes came up.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Final, Literal

from fastapi import WebSocket
from pydantic import TypeAdapter, ValidationError

from api import metrics
from api.auth import Action, Principal, check_session_id
from api.errors import Conflict, Forbidden, Invalid, Problem, Unauthenticated, malformed
from api.gateways.sessions import Gateway
from api.live.channels import Channel, Channels, check_item
from api.live.feed import is_terminal
from api.live.receipts import Settled
from api.live.sockets import as_problem, close, receive_text, why_ended
from waystation.foreign_json import ForeignJsonError, read_json
from waystation.models.events import Event, EventType, Item, Role, Write
from waystation.models.ingest import (
    AckFrame,
    AgentFrame,
    AnsweredFrame,
    CloseFrame,
    DescribeFrame,
    FencedFrame,
    FinishedFrame,
    OpenedFrame,
    OpenFrame,
    ProblemFrame,
    RefusedFrame,
    ServerFrame,
    SpawnedFrame,
    SpawnFrame,
    SteerFrame,
    StopFrame,
    WriteFrame,
)
from waystation.models.refusals import RefusalCode
from waystation.settings import ANY_AGENT
from waystation.surrogates import mend_escapes

logger = logging.getLogger(__name__)

MAX_FRAME_BYTES = 4 * 1024 * 1024
MAX_WRITERS_PER_CONNECTION = 2_000
MAX_OUTGOING_FRAMES = 20_000

_FRAME: TypeAdapter[AgentFrame] = TypeAdapter(AgentFrame)
_SETTLED: Final[Mapping[str, Literal["answered", "expired", "withdrawn"]]] = {
    EventType.INPUT_ANSWERED: "answered",
    EventType.INPUT_EXPIRED: "expired",
    EventType.INPUT_WITHDRAWN: "withdrawn",
}
_NEXT_ATTEMPT = frozenset({EventType.TURN_RETRIED, EventType.TURN_RESUMED})
_ENDS = frozenset({RefusalCode.TURN_OVER, RefusalCode.SESSION_CLOSED})
"""Refusals after which nothing of the writer counts."""


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
        elif event.type in _SETTLED:
            self._connection.tell(
                AnsweredFrame(
                    writer=writer,
                    question_id=_text(event, "question_id") or "",
                    outcome=_SETTLED[event.type],
                    value=event.data.get("value"),
                    actor=event.actor,
                    reason=_text(event, "reason"),
                )
            )
        elif is_terminal(event) or (event.type in _NEXT_ATTEMPT and _attempt(event) > frame.attempt):
            self.fence("turn-over")

    def settle(self, settled: Settled) -> None:
        """Tells the agent what is recorded, and before that what was refused."""
        for refusal in settled.refused:
            self.refuse(refusal.first, refusal.last, refusal.code, refusal.detail)
        if settled.recorded is not None:
            self._connection.tell(AckFrame(writer=self.opened.writer, n=settled.recorded))
        if over := next((refusal.code for refusal in settled.refused if refusal.code in _ENDS), None):
            self.fence(over)

    def refuse(self, first: int, last: int, code: str, detail: str) -> None:
        """Tells the agent that a run of its items won't be recorded, and why."""
        self._connection.tell(
            RefusedFrame(writer=self.opened.writer, first=first, last=last, code=code, detail=detail)
        )

    def lose(self, problem: Problem) -> None:
        """Tells the agent that nothing more can be taken."""
        self.fence(problem.code)

    def fence(self, code: str) -> None:
        """Tells the agent, once, that this writer may write nothing more."""
        if not self.fenced:
            self.fenced = True
            self._connection.tell(FencedFrame(writer=self.opened.writer, code=code))


def _attempt(event: Event) -> int:
    """Returns the attempt that has begun. Those that began before a writer's own are none of its business."""
    attempt = event.data.get("attempt")
    return attempt if isinstance(attempt, int) else 0


def _text(event: Event, key: str) -> str | None:
    value = event.data.get(key)
    return value if isinstance(value, str) else None


class AgentConnection:
    """One agent process's socket, with all its writers."""

    def __init__(
        self,
        socket: WebSocket,
        principal: Principal,
        channels: Channels,
        gateway: Gateway,
        offer: Callable[[Mapping[str, tuple[str, ...]]], None],
    ) -> None:
        """``offer`` takes what its agents say that people may begin with."""
        self._offer = offer
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
            ended, _ = await asyncio.wait(
                loops, timeout=self._principal.seconds_left(), return_when=asyncio.FIRST_COMPLETED
            )
            expired = as_problem(Unauthenticated("The token has expired; get a new one."))
            if closing := why_ended(ended) if ended else expired:
                await close(self._socket, closing)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for _, resources in list(self._writers.values()):
                await resources.aclose()

    async def _send_forever(self) -> None:
        while True:
            frames = [await self._outgoing.get()]
            while not self._outgoing.empty():
                frames.append(self._outgoing.get_nowait())
            await self._socket.send_text("[" + ",".join(frame.model_dump_json() for frame in frames) + "]")

    async def _receive_forever(self) -> None:
        while True:
            raw = await receive_text(self._socket)
            try:
                if len(raw) > MAX_FRAME_BYTES or (not raw.isascii() and len(raw.encode()) > MAX_FRAME_BYTES):
                    raise Invalid(f"A frame has at most {MAX_FRAME_BYTES} bytes.", code="frame-too-large")
                await self._handle(_read_frame(raw))
            except ValidationError as error:
                self._refuse(malformed("frame", error.errors(), code="bad-frame"), raw)
            except Problem as problem:
                self._refuse(problem, raw)

    def _refuse(self, problem: Problem, raw: str) -> None:
        writer = request = None
        with contextlib.suppress(ForeignJsonError):
            frame = read_json(mend_escapes(raw), allow_nan=True)
            if isinstance(frame, dict):
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
            case DescribeFrame():
                self._offer(frame.starters)
            case CloseFrame():
                await self._close(frame.writer)

    def _in_background(
        self, work: Callable[[], Coroutine[object, None, None]], frame: OpenFrame | SpawnFrame
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
            raise Invalid("Only agents may write here: the actor's role must be 'agent'.", code="bad-actor")
        check_speaks_for(self._principal, frame.actor.id)
        if len(self._opens) >= MAX_WRITERS_PER_CONNECTION:
            raise Conflict(
                f"A connection has at most {MAX_WRITERS_PER_CONNECTION} writers.", code="too-many-writers"
            )

    async def _open(self, frame: OpenFrame) -> None:
        resources = AsyncExitStack()
        try:
            if frame.turn_id is not None:
                await check_turn(self._gateway, self._principal, frame.session_id, frame.turn_id)
            channel = await resources.enter_async_context(self._channels.use(frame.session_id))
        except BaseException:
            self._opens.pop(frame.writer, None)
            raise
        writer = Writer(self, frame, channel)
        self._writers[frame.writer] = (writer, resources)
        channel.feed.watch(writer.watch)
        resources.callback(channel.feed.unwatch, writer.watch)
        resources.callback(channel.forget, frame.writer, writer)
        if frame.turn_id is not None:
            channel.catch_up(frame.writer, writer)
        self.tell(OpenedFrame(writer=frame.writer))
        await self._replay_missed(frame, writer)

    async def _replay_missed(self, frame: OpenFrame, writer: Writer) -> None:
        """Tells what happened to the turn before this connection was opened (by a reconnect, for example)."""
        if frame.turn_id is None:
            return
        if writer.channel.fenced(frame.turn_id, frame.attempt):
            writer.fence("turn-over")
        after = frame.after or 0
        while True:
            # What the agent has heard of, now or on an earlier connection, must be on screens before what it
            # then writes, in every process. So the log is read anew.
            page = await writer.channel.feed.page(after, anew=True)
            writer.channel.know(frame.writer, writer, page.next_after)
            for event in page.events:
                writer.watch(event)
            after = page.next_after
            if not page.more:
                writer.channel.caught_up(frame.writer, writer)
                return

    async def _close(self, writer_id: str) -> None:
        # A writer that is still opening would otherwise stay as long as the connection does.
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
            items=tuple(_taken(writer, frame.items)),
        )
        if writer.fenced:
            self.tell(FencedFrame(writer=frame.writer, code="turn-over"))
            return
        await writer.channel.write(write, writer, flush=frame.flush)

    async def _spawn(self, frame: SpawnFrame) -> None:
        self._principal.require(Action.WRITE, check_session_id(frame.session_id))
        await check_turn(self._gateway, self._principal, frame.session_id, frame.spawn.parent_turn_id)
        spawned = await self._gateway.spawn(frame.session_id, frame.spawn)
        self._channels.tick(frame.session_id)
        if entry := self._writers.get(frame.writer):
            writer = entry[0]
            writer.channel.know(frame.writer, writer, spawned.seq)
        self.tell(SpawnedFrame(writer=frame.writer, request=frame.request, turn_id=spawned.turn_id))


def _read_frame(raw: str) -> AgentFrame:
    """Returns a frame. Half a surrogate pair costs the items that hold one, and not their neighbours.

    Raises:
        ValidationError: It is no frame.
        Invalid: Half a surrogate pair is somewhere else.
    """
    try:
        return _FRAME.validate_json(raw)
    except ValidationError:
        mended = mend_escapes(raw)
        if mended == raw:
            raise
    frame = _FRAME.validate_json(mended)
    if not isinstance(frame, WriteFrame):
        raise Invalid("The frame contains half a surrogate pair, which is not a character.", code="bad-frame")
    # Of the same form, so nested no deeper; Python's strings can hold halves, for which items are refused.
    return _FRAME.validate_python(json.loads(raw))


def _taken(writer: Writer, items: Iterable[Item]) -> Iterator[Item]:
    """Yields what a session may take; tells the agent of each item that none would."""
    for item in items:
        try:
            check_item(item)
        except Invalid as problem:
            metrics.REFUSED_ITEMS.labels(problem.code).inc()
            writer.refuse(item.n, item.n, problem.code, problem.detail)
        else:
            yield item


def check_speaks_for(principal: Principal, agent: str) -> None:
    """Raises unless the caller may act as this agent."""
    if not principal.speaks_for(agent):
        raise Forbidden(
            f"This credential may not act as the agent '{agent}'; its key's 'agents' name those it may.",
            code="wrong-agent",
        )


async def check_turn(gateway: Gateway, principal: Principal, session_id: str, turn_id: str) -> None:
    """Raises unless the turn runs, and is of an agent that the caller may act as."""
    if principal.speaks_for(ANY_AGENT):
        return
    snapshot = await gateway.snapshot(session_id)
    agent = next((turn.agent for turn in snapshot.running if turn.turn_id == turn_id), None)
    if agent is None:
        raise Conflict(f"Turn {turn_id} isn't running (any more).", code="unknown-turn")
    check_speaks_for(principal, agent)
