"""What an audience works out once for many is what each of them would have got alone."""

from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from api.live.audience import Audience, Follower, LiveText
from api.live.delivery import Frame, View
from waystation.models.events import Actor, Event, EventType, Role

BOT = Actor(id="bot", role=Role.AGENT)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
MESSAGES = ("a", "b")


class Client(Follower):
    """Notes what it gets, and works out by itself what it should."""

    def __init__(self, joined_at: int, lengths: dict[str, int]) -> None:
        self.joined_at = joined_at
        self.view = View(lengths)
        self.got = b""
        self.should_get = b""

    def push(self, frame: Frame) -> None:
        self.got += frame.sse


class Session:
    """A log with messages that grow, its live text ahead of it, and an audience."""

    def __init__(self) -> None:
        self.tip = 0
        self.durable: dict[str, int] = {}
        self.live: dict[str, int] = {}
        self.audience = Audience()
        self.clients: list[Client] = []

    def join(self, ahead: int) -> None:
        client = Client(self.tip + ahead, self.durable)
        self.clients.append(client)
        self.audience.join(client, self.durable, self.tip)

    def leave(self, number: int) -> None:
        if self.clients:
            self.audience.leave(self.clients.pop(number % len(self.clients)))

    def write(self, message: str, lengths: list[int]) -> None:
        deltas = []
        for length in lengths:
            offset = self.live.get(message, 0)
            deltas.append(LiveText(message, offset, length, Frame(None, f"{message} {offset} {length}")))
            self.live[message] = offset + length
        for client in self.clients:
            for delta in deltas:
                client.view.note_live(delta.message_id, delta.offset, delta.length)
                client.should_get += delta.frame.sse
        self.audience.show(deltas)

    def record(self, message: str, *, complete: bool) -> None:
        start, end = self.durable.get(message, 0), self.live.get(message, 0)
        data = {"offset": start, "text": "x" * (end - start)}
        kind = EventType.MESSAGE_COMPLETED if complete else EventType.MESSAGE_DELTA
        self.tip += 1
        event = Event(seq=self.tip, time=NOW, type=kind, actor=BOT, message_id=message, data=data)
        self.durable[message] = end
        if complete:
            self.durable.pop(message)
            self.live.pop(message, None)
        frame = Frame(event.seq, f"{kind} {message} {end}")
        for client in self.clients:
            if event.seq > client.joined_at:
                needed = client.view.needs(event)
                client.should_get += (frame if needed else Frame.number(event.seq)).sse
        self.audience.tell(event, frame)


messages = st.sampled_from(MESSAGES)
steps = st.one_of(
    st.tuples(st.just("join"), st.integers(0, 2)),
    st.tuples(st.just("leave"), st.integers(0, 9)),
    st.tuples(st.just("write"), messages, st.lists(st.integers(1, 5), min_size=1, max_size=3)),
    st.tuples(st.just("record"), messages, st.booleans()),
)


@given(st.lists(steps, max_size=40))
@example([("join", 1), ("write", "b", [1]), ("record", "b", False), ("record", "b", False)])
@example([("write", "b", [1]), ("join", 1), ("record", "b", False), ("record", "b", False)])
def test_everyone_gets_what_they_would_get_alone(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    session = Session()
    for name, *arguments in steps:
        if name == "record":
            session.record(arguments[0], complete=arguments[1])
        else:
            getattr(session, name)(*arguments)
        for client in session.clients:
            assert client.got == client.should_get
        assert len(session.audience) == len(session.clients)


def test_who_joins_in_the_middle_of_a_message_is_behind_until_the_log_has_brought_it() -> None:
    session = Session()
    session.join(0)
    session.write("a", [3])
    session.join(0)
    assert session.audience.anyone_behind
    session.record("a", complete=False)
    assert not session.audience.anyone_behind
    assert session.clients[0].got.endswith(b"id: 1\n\n")
    assert b"message.delta a 3" in session.clients[1].got
