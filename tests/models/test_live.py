"""What API processes tell each other passes as it is, and what says nothing known is passed over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waystation.models.live import (
    Delta,
    Here,
    LiveFrame,
    LiveMessage,
    NotStopped,
    Stopped,
    Stopping,
    Tick,
    WhoIsHere,
    decode,
    encode,
)
from waystation.models.requests import PresentPerson

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PEOPLE = st.builds(PresentPerson, id=TEXT, role=TEXT, name=TEXT | st.none(), connections=st.integers(0, 9))
DELTAS = st.builds(
    Delta,
    turn_id=TEXT | st.none(),
    attempt=st.integers(0, 9),
    message_id=TEXT,
    offset=st.integers(0, 10**9),
    length=st.integers(0, 10**6),
    wire=TEXT.map(str.encode),
)
MESSAGES: st.SearchStrategy[LiveMessage] = st.one_of(
    DELTAS,
    st.builds(Tick, quiet=st.booleans()),
    st.builds(Stopping, TEXT),
    st.builds(Stopped, TEXT),
    st.builds(NotStopped, TEXT),
    st.builds(Here, process=TEXT, people=st.lists(PEOPLE, max_size=3).map(tuple)),
    st.builds(WhoIsHere, TEXT),
)


@given(MESSAGES, TEXT)
def test_every_message_comes_out_as_it_went_in(message: LiveMessage, origin: str) -> None:
    assert decode(encode(message, origin)) == LiveFrame(message, origin)


@given(st.binary())
def test_live_text_is_passed_on_as_it_was_encoded(wire: bytes) -> None:
    delta = Delta(turn_id="t1", attempt=1, message_id="m", offset=0, length=1, wire=wire)
    assert encode(delta).endswith(b"\n" + wire)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"message":{"kind":"of a newer version"},"origin":"x"}',
        b'{"message":{"kind":"delta"},"origin":"x"}\n{}',
        encode(Delta(turn_id=None, attempt=0, message_id="m", offset=0, length=0)) + b"\xff",
    ],
    ids=["nothing", "null", "empty", "deep", "newer", "incomplete", "no text"],
)
def test_what_says_nothing_known_is_passed_over(raw: bytes) -> None:
    assert decode(raw) is None
