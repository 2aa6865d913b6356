"""The property that matters: whatever is lost, doubled, reordered, retried or continued as new,
every client's transcript equals the workflow's.

The parts are the real ones (log, ring and gate of the feed, a client's view and transcript);
only time and the network are played by hypothesis.
"""

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from api.live.delivery import Frame, Gate, View
from tests.support import examples
from waystation.client.transcript import Transcript
from waystation.models.events import Actor, Event, EventType, Item, LiveDelta, Role, Write
from workflows.session.event_log import LogState
from workflows.session.log import SessionLog

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOT = Actor(id="bot", role=Role.AGENT)
ADA = Actor(id="ada", role=Role.USER)


class Writing:
    """An agent's attempt: numbers its items, keeps what is unacknowledged."""

    def __init__(self, turn_id: str, attempt: int) -> None:
        self.turn_id, self.attempt = turn_id, attempt
        self.items: list[Item] = []
        self.durable = 0
        self.lengths: dict[str, int] = {}
        self.message: str | None = None
        self.count = 0

    def item(self, kind: str, message_id: str | None, data: dict[str, Any]) -> Item:
        item = Item(n=len(self.items) + 1, type=kind, message_id=message_id, data=data)
        self.items.append(item)
        return item

    def batch(self, start: int, end: int) -> Write:
        return Write(
            writer=f"{self.turn_id}.{self.attempt}",
            actor=BOT,
            turn_id=self.turn_id,
            attempt=self.attempt,
            items=tuple(self.items[start:end]),
        )


class Screen:
    """A client: connected or not, with messages still on their way to it."""

    def __init__(self) -> None:
        self.transcript = Transcript()
        self.view: View | None = None
        self.wire: list[str] = []
        self.joined_at = 0

    def receive(self, block: str) -> None:
        """What waystation.client does with a block."""
        number, _, data = block.partition("|")
        if not data:
            self.transcript.advance(int(number))
        elif number:
            self.transcript.apply(Event.model_validate_json(data))
        else:
            self.transcript.place(LiveDelta.model_validate_json(data))


class Sessions(RuleBasedStateMachine):
    @initialize(clients=st.integers(1, 3))
    def begin(self, clients: int) -> None:
        self.log = SessionLog()
        self.log.append(EventType.SESSION_STARTED, ADA, NOW)
        self.gate = Gate()
        self.read_up_to = 0
        self.screens = [Screen() for _ in range(clients)]
        self.writing: Writing | None = None
        self.old: list[Writing] = []
        self.live: list[tuple[Writing, Item]] = []
        self.turns = 0

    # The agent

    @precondition(lambda self: self.writing is None)
    @rule()
    def start_turn(self) -> None:
        self.turns += 1
        turn_id = f"t{self.turns}"
        self.log.add_message(f"m-{turn_id}", ADA, "hi", NOW)
        self.log.append(EventType.TURN_STARTED, BOT, NOW, turn_id=turn_id, data={"attempt": 1})
        self.log.open_fence(turn_id, 1)
        self.writing = Writing(turn_id, 1)

    @precondition(lambda self: self.writing is not None)
    @rule(text=st.text("aé😀\n", min_size=1, max_size=4))
    def write(self, text: str) -> None:
        w = self.writing
        assert w
        if w.message is None:
            w.count += 1
            w.message = f"{w.turn_id}-{w.attempt}-{w.count}"
            w.lengths[w.message] = 0
            w.item(EventType.MESSAGE_STARTED, w.message, {})
        item = w.item(EventType.MESSAGE_DELTA, w.message, {"offset": w.lengths[w.message], "text": text})
        w.lengths[w.message] += len(text)
        self.live.append((w, item))

    @precondition(lambda self: self.writing is not None and self.writing.message is not None)
    @rule()
    def complete_message(self) -> None:
        assert self.writing
        self.writing.item(EventType.MESSAGE_COMPLETED, self.writing.message, {})
        self.writing.message = None

    # The live path: any order, any number of times, or never

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def show(self, data: st.DataObject) -> None:
        w, item = data.draw(st.sampled_from(self.live[-12:]))
        assert item.message_id
        if not self.gate.knows(w.turn_id) or not self.gate.passes(w.turn_id, w.attempt, item.message_id):
            return
        live = LiveDelta(
            actor=BOT, turn_id=w.turn_id, message_id=item.message_id, data=item.data, attempt=w.attempt
        )
        for screen in self.screens:
            if screen.view is not None:
                text = str(item.data["text"])
                screen.view.note_live(item.message_id, int(str(item.data["offset"])), len(text))
                screen.wire.append("|" + live.model_dump_json())

    # The durable path: any batching, repeats, repeats batched otherwise

    @precondition(lambda self: self.writing is not None)
    @rule(back=st.integers(0, 4), size=st.integers(1, 6))
    def publish(self, back: int, size: int) -> None:
        w = self.writing
        assert w
        start = max(w.durable - back, 0)
        end = min(start + size, len(w.items))
        self.log.accept(w.batch(start, end), NOW)
        w.durable = max(w.durable, end)

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def zombie_publishes(self, data: st.DataObject) -> None:
        zombie = data.draw(st.sampled_from(self.old))
        assert not self.log.accept(zombie.batch(0, len(zombie.items)), NOW).events

    # The workflow

    @precondition(lambda self: self.writing is not None)
    @rule(outcome=st.sampled_from(["completed", "stopped", "failed"]), tail=st.booleans())
    def end_turn(self, outcome: str, tail: bool) -> None:
        w = self.writing
        assert w
        if outcome == "stopped":
            self.log.append(EventType.STOP_REQUESTED, ADA, NOW, turn_id=w.turn_id)
            self.log.mute(w.turn_id)
        if tail or outcome == "completed":
            before = self.log.tip
            accepted = self.log.accept(w.batch(w.durable, len(w.items)), NOW)
            if outcome == "stopped":
                kinds = {event.type for event in accepted.events}
                assert kinds <= {EventType.MESSAGE_COMPLETED}, "no token follows a stop"
            assert self.log.tip >= before
        self.log.finish_turn(w.turn_id, NOW, outcome)
        self.log.close_fence(w.turn_id)
        self.log.append(f"turn.{outcome}", BOT, NOW, turn_id=w.turn_id)
        self.old.append(w)
        self.writing = None

    @precondition(lambda self: self.writing is not None)
    @rule()
    def retry_turn(self) -> None:
        w = self.writing
        assert w
        self.old.append(w)
        self.log.supersede_attempt(w.turn_id, NOW)
        self.writing = Writing(w.turn_id, w.attempt + 1)
        self.log.open_fence(w.turn_id, self.writing.attempt)
        data: dict[str, Any] = {"attempt": self.writing.attempt}
        self.log.append(EventType.TURN_RETRIED, BOT, NOW, turn_id=w.turn_id, data=data)

    @rule()
    def continue_as_new(self) -> None:
        carried = json.loads(json.dumps(self.log.state.model_dump(mode="json")))
        self.log = SessionLog(LogState.model_validate(carried))

    # The feed and its clients

    @rule(limit=st.integers(1, 5))
    def feed_reads(self, limit: int) -> None:
        page = self.log.replay(self.read_up_to, limit)
        for event in page.events:
            self.gate.observe(event)
            for screen in self.screens:
                if screen.view is not None and event.seq > screen.joined_at:
                    full = screen.view.needs(event)
                    screen.wire.append(f"{event.seq}|{event.to_wire() if full else ''}")
        self.read_up_to = max(self.read_up_to, page.next_after)

    @rule(data=st.data())
    def client_receives(self, data: st.DataObject) -> None:
        screen = data.draw(st.sampled_from(self.screens))
        count = data.draw(st.integers(0, len(screen.wire)))
        for block in screen.wire[:count]:
            screen.receive(block)
        del screen.wire[:count]

    @rule(data=st.data())
    def client_drops(self, data: st.DataObject) -> None:
        """The connection is lost with everything that was on its way."""
        screen = data.draw(st.sampled_from(self.screens))
        screen.view = None
        screen.wire.clear()

    @rule(data=st.data())
    def client_connects(self, data: st.DataObject) -> None:
        screen = data.draw(st.sampled_from(self.screens))
        if screen.view is None:
            self._connect(screen)

    def _connect(self, screen: Screen) -> None:
        # The client may have read, from a page, further than the feed has.
        cursor = screen.transcript.cursor
        while True:
            page = self.log.replay(cursor, 3)
            screen.wire += [f"{event.seq}|{event.to_wire()}" for event in page.events]
            cursor = max(cursor, page.next_after)
            if not page.more:
                break
        screen.view = View(self.gate.lengths)
        screen.joined_at = cursor

    @rule()
    def new_device(self) -> None:
        if len(self.screens) < 5:
            self.screens.append(Screen())

    @invariant()
    def numbers_only_grow(self) -> None:
        if hasattr(self, "log"):
            seqs = [event.seq for event in self.log.state.events]
            assert seqs == sorted(set(seqs))
            assert not seqs or seqs[-1] == self.log.tip

    @invariant()
    def its_size_is_that_of_its_events(self) -> None:
        if hasattr(self, "log"):
            assert self.log.size_bytes == SessionLog(self.log.state).size_bytes

    def teardown(self) -> None:
        """In the end the network is good: every client must show what the workflow holds."""
        if not hasattr(self, "log"):
            return
        if self.writing:
            self.end_turn("completed", True)
        while self.read_up_to < self.log.tip:
            self.feed_reads(100)
        truth = Transcript()
        for event in self.log.after(0):
            truth.apply(event)
        for screen in self.screens:
            if screen.view is None:
                self._connect(screen)
            for block in screen.wire:
                screen.receive(block)
            assert shown(screen.transcript) == shown(truth)
            assert screen.transcript.cursor == self.log.tip


def shown(transcript: Transcript) -> list[tuple[str, str, str]]:
    return [(message.id, message.text, message.status) for message in transcript]


TestSessions = Sessions.TestCase
TestSessions.settings = settings(
    max_examples=examples(60), stateful_step_count=60, suppress_health_check=list(HealthCheck)
)


def test_a_frame_is_one_block_of_the_event_stream() -> None:
    assert Frame.number(7).sse == b"id: 7\n\n"
    assert Frame(None, "{}").sse == b"data: {}\n\n"
    assert Frame(3, "{}").sse == b"id: 3\ndata: {}\n\n"
