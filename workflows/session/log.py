"""What agents write into a session's log: what is taken, what is refused, and who is told what.

Pure, like the log of events beneath it. Nothing here raises on bad input: what can't be accepted is refused,
and its writer learns of it by its ``receipt``. An exception inside a workflow would block the session for
everyone.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import JsonValue

from waystation.models.base import replaced
from waystation.models.events import (
    MAX_DATA_BYTES,
    MAX_MESSAGE_CHARACTERS,
    Event,
    EventType,
    Item,
    Write,
    is_agent_writable,
)
from waystation.models.needs import what_is_missing
from waystation.models.refusals import (
    MAX_OPEN_MESSAGES,
    MAX_OPEN_TOOLS,
    MAX_REFUSALS,
    MAX_REFUSALS_PER_WRITER,
    Receipt,
    Refusal,
    RefusalCode,
)
from workflows.session.event_log import EventLog, Fence, LogState, OpenText, OpenTool
from workflows.session.usage import UsageSums

MAX_WRITERS = 1_000
"""Writers remembered so that repeats are dropped; the one silent longest is forgotten first."""

ConsumeSteer = Callable[[str], bool]
"""Records that a steer was taken up; returns whether there is such a steer."""

TakeInput = Callable[[Write, Item], RefusalCode | None]
"""Takes ``input.requested`` or ``input.withdrawn``, or returns why not."""


def _any_steer(steer_id: str) -> bool:
    """Takes every steer and does nothing; for a log that no workflow uses."""
    return True


def _nobody_is_asked(write: Write, item: Item) -> RefusalCode | None:
    """Takes no question; for a log that no workflow uses."""
    return RefusalCode.BAD_TYPE


@dataclass
class Accepted:
    """The result of a write: the events it made, and why each refused item was refused."""

    events: list[Event] = field(default_factory=list)
    codes: list[RefusalCode] = field(default_factory=list)

    @property
    def refused(self) -> int:
        """How many items were refused."""
        return len(self.codes)


class SessionLog(EventLog):
    """The log with its writers."""

    def __init__(self, state: LogState | None = None, opens_once: Callable[[], bool] = lambda: True) -> None:
        """``opens_once``: whether a tool call that is open can't be opened again; asked where one is."""
        super().__init__(state)
        self.usage = UsageSums(self.state.usage)
        self._opens_once = opens_once

    # Fencing

    def open_fence(self, turn_id: str, attempt: int) -> None:
        """Lets this attempt of the turn write, and no earlier attempt."""
        self.state.fences[turn_id] = Fence(attempt=attempt)

    def mute(self, turn_id: str) -> None:
        """Records nothing more of this turn except the text that its messages end with."""
        if fence := self.state.fences.get(turn_id):
            fence.muted = True

    def close_fence(self, turn_id: str) -> None:
        """Refuses everything this turn writes from now on."""
        self.state.fences.pop(turn_id, None)

    # Writes

    def accept(
        self,
        write: Write,
        now: datetime,
        consume_steer: ConsumeSteer = _any_steer,
        take_input: TakeInput = _nobody_is_asked,
        *,
        full: bool = False,
    ) -> Accepted:
        """Accepts what an agent has written; drops repeats and refuses fenced and malformed items.

        Calls ``consume_steer`` for each steer that the agent has taken up, and ``take_input`` for each
        question that it asks or withdraws, in order with the other items.
        ``full``: writers outside turns, which nothing stops, are muted as the turns of a full session are.
        """
        accepted = Accepted()
        fence = self.state.fences.get(write.turn_id) if write.turn_id else None
        if write.turn_id and (fence is None or fence.attempt != write.attempt):
            # Not noted as decided: the turn may begin later.
            accepted.codes += [RefusalCode.TURN_OVER] * len(write.items)
            self.state.refused += accepted.refused
            return accepted
        seen = self.state.writers.pop(write.writer, 0)
        for item in write.items:
            if item.n <= seen:
                continue
            muted = full if fence is None else fence.muted
            code = self._why_not_take(write, item, now, accepted, consume_steer, take_input, muted=muted)
            if code is RefusalCode.TURN_STOPPED and fence is None:
                code = RefusalCode.SESSION_FULL
            if code:
                accepted.codes.append(code)
                self._note_refusal(write.writer, Refusal(first=seen + 1, last=item.n, code=code))
            seen = item.n
        self._remember_writer(write.writer, seen)
        self.state.refused += accepted.refused
        return accepted

    def receipt(self, writer: str) -> Receipt:
        """Returns what has become of a writer's items; of one that has written nothing, nothing."""
        return Receipt(
            n=self.state.writers.get(writer, 0), refused=tuple(self.state.refusals.get(writer, ()))
        )

    def _remember_writer(self, writer: str, seen: int) -> None:
        writers = self.state.writers
        writers[writer] = seen
        while len(writers) > MAX_WRITERS:
            forgotten = next(iter(writers))
            del writers[forgotten]
            self.state.refusals.pop(forgotten, None)
            self.state.forgotten += 1

    def _too_much_was_refused(self, writer: str) -> bool:
        runs = len(self.state.refusals.get(writer, ()))
        return runs >= MAX_REFUSALS_PER_WRITER or (
            runs > 0 and sum(map(len, self.state.refusals.values())) >= MAX_REFUSALS
        )

    def _note_refusal(self, writer: str, refusal: Refusal) -> None:
        """Keeps what a writer must be told; neighbours that were refused for the same reason are one run."""
        known = self.state.refusals.setdefault(writer, [])
        if known and (known[-1].last + 1, known[-1].code) == (refusal.first, refusal.code):
            known[-1] = Refusal(first=known[-1].first, last=refusal.last, code=refusal.code)
        else:
            known.append(refusal)

    def _why_not_take(
        self,
        write: Write,
        item: Item,
        now: datetime,
        accepted: Accepted,
        consume_steer: ConsumeSteer,
        take_input: TakeInput,
        *,
        muted: bool,
    ) -> RefusalCode | None:
        """Takes an item, or returns why it can't be taken."""
        if self._too_much_was_refused(write.writer):
            return RefusalCode.TOO_MANY_REFUSALS
        if what_is_missing(item):
            return RefusalCode.BAD_ITEM
        match item.type:
            case EventType.MESSAGE_STARTED:
                return self._start_message(write, item, now, accepted, muted=muted)
            case EventType.MESSAGE_DELTA:
                return self._place_delta(write, item, now, accepted, muted=muted)
            case EventType.MESSAGE_COMPLETED:
                return self._complete_message(write, item, now, accepted, muted=muted)
            case _ if muted:
                return RefusalCode.TURN_STOPPED
            case EventType.STEER_CONSUMED:
                steer_id = item.data.get("steer_id")
                known = isinstance(steer_id, str) and consume_steer(steer_id)
                return None if known else RefusalCode.UNKNOWN_STEER
            case EventType.INPUT_REQUESTED | EventType.INPUT_WITHDRAWN:
                return take_input(write, item) if _fits(item.data) else RefusalCode.DATA_TOO_LARGE
            case EventType.TOOL_CALLED:
                return self._call_tool(write, item, now, accepted)
            case EventType.TOOL_RETURNED:
                return self._end_tool(write, item, now, accepted)
            case _:
                return self._append_item(write, item, now, accepted)

    def _append_item(self, write: Write, item: Item, now: datetime, accepted: Accepted) -> RefusalCode | None:
        if not is_agent_writable(item.type):
            return RefusalCode.BAD_TYPE
        if not _fits(item.data):
            return RefusalCode.DATA_TOO_LARGE
        visibility = item.visibility
        if item.type == EventType.USAGE_REPORTED:
            visibility = "staff"
            self.usage.add(write.turn_id, item.data)
        event = self.append(
            item.type,
            write.actor,
            now,
            turn_id=write.turn_id,
            message_id=item.message_id,
            data=item.data,
            visibility=visibility,
        )
        accepted.events.append(event)
        return None

    def _call_tool(self, write: Write, item: Item, now: datetime, accepted: Accepted) -> RefusalCode | None:
        call_id, turn_id = item.data.get("call_id"), write.turn_id
        known = self._open_tool(turn_id, call_id)
        if known and self._opens_once():
            return None if self._is_same_call(known, write, item) else RefusalCode.CALL_ID_TAKEN
        if sum(tool.turn_id == turn_id for tool in self.state.tools) >= MAX_OPEN_TOOLS:
            return RefusalCode.TOO_MANY_TOOLS
        code = self._append_item(write, item, now, accepted)
        if code is None and turn_id is not None and isinstance(call_id, str):
            self._forget_tool(turn_id, call_id)
            tool = OpenTool(
                actor=write.actor,
                turn_id=turn_id,
                call_id=call_id,
                name=item.data.get("name"),
                seq=accepted.events[-1].seq,
                visibility=item.visibility,
            )
            self.state.tools.append(tool)
        return code

    def _open_tool(self, turn_id: str | None, call_id: JsonValue) -> OpenTool | None:
        return next(
            (tool for tool in self.state.tools if (tool.turn_id, tool.call_id) == (turn_id, call_id)), None
        )

    def _is_same_call(self, known: OpenTool, write: Write, item: Item) -> bool:
        called = next(self.after(known.seq - 1), None)
        return (
            called is not None
            and called.seq == known.seq
            and called.actor.id == write.actor.id
            and called.data == item.data
            and called.visibility == item.visibility
        )

    def _end_tool(self, write: Write, item: Item, now: datetime, accepted: Accepted) -> RefusalCode | None:
        turn_id, call_id = write.turn_id, item.data.get("call_id")
        # Outside turns, one writer may report what another has called: nobody keeps account of those calls.
        call = self._open_tool(turn_id, call_id)
        if turn_id is not None and call is None:
            return RefusalCode.UNKNOWN_CALL
        if call and call.visibility:
            item = replaced(item, visibility=call.visibility)
        code = self._append_item(write, item, now, accepted)
        if code is None:
            self._forget_tool(turn_id, call_id)
        return code

    def _forget_tool(self, turn_id: str | None, call_id: JsonValue) -> None:
        self.state.tools = [
            tool for tool in self.state.tools if (tool.turn_id, tool.call_id) != (turn_id, call_id)
        ]

    def _start_message(
        self, write: Write, item: Item, now: datetime, accepted: Accepted, *, muted: bool
    ) -> RefusalCode | None:
        if item.message_id is None or "text" in item.data:
            return RefusalCode.UNKNOWN_MESSAGE
        if not _fits(item.data):
            return RefusalCode.DATA_TOO_LARGE
        if item.message_id in self._finished:
            return RefusalCode.MESSAGE_ID_TAKEN
        if item.message_id in self.state.open:
            known = self._writable(write, item.message_id)
            return None if known and known.data == item.data else RefusalCode.MESSAGE_ID_TAKEN
        if muted:
            return RefusalCode.TURN_STOPPED
        if self._open_by(write) >= MAX_OPEN_MESSAGES:
            return RefusalCode.TOO_MANY_MESSAGES
        event = self.append(
            EventType.MESSAGE_STARTED,
            write.actor,
            now,
            turn_id=write.turn_id,
            message_id=item.message_id,
            data=item.data,
        )
        self.state.open[item.message_id] = OpenText(
            actor=write.actor, turn_id=write.turn_id, started_seq=event.seq, data=item.data
        )
        accepted.events.append(event)
        return None

    def _open_by(self, write: Write) -> int:
        return sum(
            message.turn_id == write.turn_id and message.actor.id == write.actor.id
            for message in self.state.open.values()
        )

    def _writable(self, write: Write, message_id: str | None) -> OpenText | None:
        message = self.state.open.get(message_id or "")
        if message is None or message.actor.id != write.actor.id or message.turn_id != write.turn_id:
            return None
        return message

    def _place_delta(
        self, write: Write, item: Item, now: datetime, accepted: Accepted, *, muted: bool
    ) -> RefusalCode | None:
        offset, text = item.data.get("offset"), item.data.get("text")
        if item.message_id is None or type(offset) is not int or offset < 0 or not isinstance(text, str):
            return RefusalCode.BAD_DELTA
        if item.message_id in self._finished:
            return RefusalCode.MESSAGE_OVER
        if offset + len(text) > MAX_MESSAGE_CHARACTERS:
            return RefusalCode.MESSAGE_TOO_LONG
        if item.message_id not in self.state.open:
            if offset > 0:
                return RefusalCode.GAP
            start = Item(n=item.n, type=EventType.MESSAGE_STARTED, message_id=item.message_id)
            if code := self._start_message(write, start, now, accepted, muted=muted):
                return code
        message = self._writable(write, item.message_id)
        if message is None:
            return RefusalCode.UNKNOWN_MESSAGE
        have = len(message.text)
        if offset > have:
            return RefusalCode.GAP
        fresh = text[have - offset :]
        if not fresh:
            return None
        message.text += fresh
        if not muted:
            accepted.events.append(
                self.append(
                    EventType.MESSAGE_DELTA,
                    message.actor,
                    now,
                    turn_id=message.turn_id,
                    message_id=item.message_id,
                    data={"offset": have, "text": fresh},
                )
            )
        return None

    def _complete_message(
        self, write: Write, item: Item, now: datetime, accepted: Accepted, *, muted: bool
    ) -> RefusalCode | None:
        message_id, extra = item.message_id, dict(item.data)
        text = extra.pop("text", None)
        if message_id is None:
            return RefusalCode.UNKNOWN_MESSAGE
        if message_id in self._finished:
            return RefusalCode.MESSAGE_OVER
        if not _fits(extra):
            return RefusalCode.DATA_TOO_LARGE
        if not (text is None or (isinstance(text, str) and len(text) <= MAX_MESSAGE_CHARACTERS)):
            return RefusalCode.MESSAGE_TOO_LONG
        if message_id in self.state.open:
            if self._writable(write, message_id) is None:
                return RefusalCode.UNKNOWN_MESSAGE
            # What a stopped turn adds now was on nobody's screen.
            whole = None if muted else text
            accepted.events.append(self.complete(message_id, now, text=whole, extra=extra))
            return None
        if muted:
            return RefusalCode.TURN_STOPPED
        if text is None:
            return RefusalCode.UNKNOWN_MESSAGE
        extra.pop("started", None)
        accepted.events.append(
            self.add_message(message_id, write.actor, text, now, turn_id=write.turn_id, extra=extra)
        )
        return None


def _fits(data: dict[str, JsonValue]) -> bool:
    return not data or len(json.dumps(data)) <= MAX_DATA_BYTES
