"""The oracle's own screen, which judges all others."""

from tests.torture.screen import screen_of

AGENT = {"id": "wild", "role": "agent"}


def event(seq: int, type_: str, message: str | None = None, **data: object) -> dict[str, object]:
    return {
        "seq": seq, "type": type_, "actor": AGENT, "turn_id": "t1", "message_id": message, "data": data,
    }  # fmt: skip


def test_messages_stand_where_they_began_and_withdrawn_ones_nowhere() -> None:
    screen = screen_of(
        [
            event(1, "turn.started"),
            event(4, "message.completed", "b", text="late", started=3),
            event(5, "message.completed", "a", text="early", started=2),
            event(8, "message.superseded", "c", started=6),
        ]
    )
    assert screen.messages == [["a", "wild", "early"], ["b", "wild", "late"]]
    assert (screen.events, screen.cursor) == ([(1, "turn.started")], 8)


def test_text_is_placed_and_what_was_only_live_is_forgotten_with_its_attempt() -> None:
    screen = screen_of([event(1, "turn.started"), event(2, "message.delta", "a", offset=0, text="hel")])
    for message, offset, text in (("a", 2, "llo"), ("a", 0, "he"), ("a", 9, "gap"), ("ghost", 0, "boo")):
        delta = {"actor": AGENT, "turn_id": "t1", "message_id": message}
        screen.live({**delta, "data": {"offset": offset, "text": text}})
    assert screen.messages == [["a", "wild", "hello"], ["ghost", "wild", "boo"]]
    screen.event(event(3, "turn.retried"))
    assert screen.messages == [["a", "wild", "hello"]]
