"""What agents hold back while nothing is acknowledged: bounded, and nothing of it lost."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waystation.agent.connection import IngestConnection, known_frames
from waystation.agent.message_writer import MessageWriter
from waystation.agent.writer import MAX_UNACKNOWLEDGED_BYTES, Writer
from waystation.errors import ConflictError, WriteRefused
from waystation.models.events import Actor
from waystation.models.ingest import (
    AckFrame,
    FencedFrame,
    OpenedFrame,
    OpenFrame,
    RefusedFrame,
    SpawnedFrame,
)
from waystation.models.sessions import Spawn
from waystation.surrogates import mend

TEXT = "x" * 10_000


@pytest.fixture
def writer() -> Writer:
    connection = IngestConnection("http://127.0.0.1:1", "key")
    frame = OpenFrame(
        session_id="s", writer="t1.1", actor=Actor.model_validate({"id": "bot", "role": "agent"})
    )
    return connection.writer(frame, lambda control: None)


async def fill(writer: Writer) -> int:
    """Writes until writing waits; answers how many items went in."""
    written = 0
    while True:
        write = asyncio.create_task(
            writer.write("message.delta", {"offset": written * len(TEXT), "text": TEXT}, "m")
        )
        done, _ = await asyncio.wait([write], timeout=0.05)
        if not done:
            write.cancel()
            return written
        written += 1


async def test_writing_waits_at_the_bound_and_goes_on_when_acknowledged(writer: Writer) -> None:
    written = await fill(writer)
    assert written == pytest.approx(MAX_UNACKNOWLEDGED_BYTES / len(TEXT), abs=2)
    waiting = asyncio.create_task(writer.write("data.x", {}))
    writer.take(AckFrame(writer=writer.key, n=written // 2))
    await asyncio.wait_for(waiting, 1)
    assert await fill(writer) == pytest.approx(written // 2, abs=2)


async def test_what_is_unacknowledged_is_sent_again_after_a_reconnect(writer: Writer) -> None:
    for n in range(5):
        await writer.write("data.x", {"n": n})
    assert json.loads(writer.due()[0])["op"] == "open"
    writer.take(OpenedFrame(writer=writer.key))
    assert [item["n"] for item in json.loads(writer.due()[0])["items"]] == [1, 2, 3, 4, 5]
    writer.take(AckFrame(writer=writer.key, n=2))
    writer.disconnected()
    assert json.loads(writer.due()[0])["op"] == "open"
    assert writer.due() == [], "nothing before it is open again"
    writer.take(OpenedFrame(writer=writer.key))
    (again,) = writer.due()
    assert [item["n"] for item in json.loads(again)["items"]] == [3, 4, 5]
    assert json.loads(again)["flush"] is True


async def test_a_fenced_writer_says_so_to_whoever_waits(writer: Writer) -> None:
    await fill(writer)
    waiting = asyncio.create_task(writer.write("data.x", {}))
    flushing = asyncio.create_task(writer.flush())
    await asyncio.sleep(0)
    writer.take(FencedFrame(writer=writer.key, code="turn-over"))
    for task in (waiting, flushing):
        with pytest.raises(ConflictError, match="The turn is over"):
            await asyncio.wait_for(task, 1)


def refused(writer: Writer, first: int, last: int, code: str = "gap") -> RefusedFrame:
    return RefusedFrame(writer=writer.key, first=first, last=last, code=code, detail=f"It is a {code}.")


async def test_what_the_session_refuses_is_raised_once_and_costs_nothing_else(writer: Writer) -> None:
    writer.due()
    writer.take(OpenedFrame(writer=writer.key))
    for n in range(1, 6):
        await writer.write("data.x", {"n": n})
    flushing = asyncio.create_task(writer.flush())
    await asyncio.sleep(0)
    writer.take(refused(writer, 2, 3))
    writer.take(refused(writer, 2, 3))
    writer.take(AckFrame(writer=writer.key, n=4))
    await asyncio.sleep(0)
    assert not flushing.done(), "the last item isn't settled"
    writer.take(refused(writer, 5, 5, "too-many-tools"))
    with pytest.raises(
        WriteRefused, match=r"3 of the things .* It is a gap. It is a too-many-tools."
    ) as told:
        await asyncio.wait_for(flushing, 1)
    assert (told.value.code, told.value.status) == ("gap", 409)
    await asyncio.wait_for(writer.flush(), 1)
    await writer.write("data.x", {"n": 6})
    writer.disconnected()
    writer.due()
    writer.take(OpenedFrame(writer=writer.key))
    (again,) = writer.due()
    assert [item["n"] for item in json.loads(again)["items"]] == [6], "what is settled isn't sent again"


async def test_a_refusal_is_raised_by_the_next_write_and_that_item_is_not_written(writer: Writer) -> None:
    message = MessageWriter(writer, "m")
    await message.write("one ")
    await writer.write("tool.called", {})
    writer.take(refused(writer, 2, 2))
    with pytest.raises(WriteRefused):
        await message.write("never ")
    await message.write("two")
    assert [json.loads(sealed.json)["data"]["offset"] for sealed in writer._unacknowledged] == [0, 4]


async def test_what_is_waited_for_hears_of_its_own_refusal_and_others_of_theirs(writer: Writer) -> None:
    writer.due()
    writer.take(OpenedFrame(writer=writer.key))
    await writer.write("data.x", {})
    asking = [asyncio.create_task(writer.record("input.requested", {"n": n})) for n in range(3)]
    await asyncio.sleep(0)
    await writer.write("data.x", {})
    others = asyncio.create_task(writer.flush())
    await asyncio.sleep(0)
    writer.take(refused(writer, 1, 1))
    writer.take(AckFrame(writer=writer.key, n=2))
    writer.take(refused(writer, 3, 5, "too-many-questions"))
    with pytest.raises(WriteRefused, match=r"2 of the things .* gap\. It is a too-many-questions\."):
        await asyncio.wait_for(others, 1)
    assert await asyncio.wait_for(asking[0], 1) is None
    for one in asking[1:]:
        with pytest.raises(WriteRefused, match=r"1 of the things .* too-many-questions"):
            await asyncio.wait_for(one, 1)
    await asyncio.wait_for(writer.flush(), 1)


async def test_who_only_waits_takes_no_refusal_from_whom_it_concerns(writer: Writer) -> None:
    await writer.write("data.x", {})
    writer.take(refused(writer, 1, 1))
    assert await asyncio.wait_for(writer.settle(), 1) is False
    with pytest.raises(WriteRefused):
        await writer.write("data.x", {})
    assert await asyncio.wait_for(writer.settle(), 1) is True


async def test_what_does_not_count_after_a_stop_is_no_error(writer: Writer) -> None:
    await writer.write("tool.called", {})
    writer.take(refused(writer, 1, 1, "turn-stopped"))
    await asyncio.wait_for(writer.flush(), 1)


async def test_a_write_that_waits_for_room_asks_for_an_answer(writer: Writer) -> None:
    """Acknowledgements of plain text may otherwise take a second."""
    writer.due()
    writer.take(OpenedFrame(writer=writer.key))
    await fill(writer)
    assert json.loads(writer.due()[-1])["flush"] is True


async def test_spawning_under_one_key_twice_asks_twice(writer: Writer) -> None:
    writer.due()
    writer.take(OpenedFrame(writer=writer.key))
    spawn = Spawn(parent_turn_id="t1", attempt=1, key="k", agent="researcher", text="find")
    for _ in range(2):
        asked = asyncio.create_task(writer.spawn(spawn))
        await asyncio.sleep(0)
        (frame,) = [json.loads(raw) for raw in writer.due() if json.loads(raw)["op"] == "spawn"]
        writer.take(SpawnedFrame(writer=writer.key, request=frame["request"], turn_id="t1.1"))
        assert await asyncio.wait_for(asked, 1) == "t1.1"


async def test_spawning_waits_for_what_was_written_before_and_for_nothing_else(writer: Writer) -> None:
    """Both go different ways: the session must not show a sub-agent before the words that announce it."""
    writer.due()
    writer.take(OpenedFrame(writer=writer.key))
    await writer.write("data.before", {})
    spawn = Spawn(parent_turn_id="t1", attempt=1, key="k", agent="researcher", text="find")
    asked = asyncio.create_task(writer.spawn(spawn))
    await asyncio.sleep(0)
    await writer.write("data.after", {})
    (written,) = [json.loads(raw) for raw in writer.due()]
    assert (written["op"], written["flush"]) == ("write", True)
    writer.take(AckFrame(writer=writer.key, n=1))
    await asyncio.sleep(0)
    (frame,) = [json.loads(raw) for raw in writer.due()]
    assert frame["op"] == "spawn"
    writer.take(SpawnedFrame(writer=writer.key, request=frame["request"], turn_id="t1.1"))
    assert await asyncio.wait_for(asked, 1) == "t1.1"


@pytest.mark.parametrize("result", [object(), {"deep": {1: {2}}, "x": object()}])
async def test_what_is_no_json_is_refused_where_it_is_written(writer: Writer, result: object) -> None:
    """On the wire it would end the connection that all turns of the process share."""
    writer.due()
    writer.take(OpenedFrame(writer=writer.key))
    await writer.write("data.before", {"a": 1})
    with pytest.raises(ValueError, match=r"tool\.returned can't be written as JSON"):
        await writer.write("tool.returned", {"result": result})
    await writer.write("data.after", {"a": 2})
    (frame,) = writer.due()
    assert [(item["n"], item["type"]) for item in json.loads(frame)["items"]] == [
        (1, "data.before"),
        (2, "data.after"),
    ]


async def test_half_a_surrogate_pair_is_mended_wherever_it_is_written(writer: Writer) -> None:
    writer.due()
    writer.take(OpenedFrame(writer=writer.key))
    await writer.write("tool.returned", {"a\udc00": ["\ud83d", "\ud83d\ude00", {"deep": "x\ud83d"}], "n": 1})
    (frame,) = writer.due()
    assert json.loads(frame)["items"][0]["data"] == {
        "a\ufffd": ["\ufffd", "\N{GRINNING FACE}", {"deep": "x\ufffd"}],
        "n": 1,
    }


async def test_what_is_nested_too_deeply_is_refused_where_it_is_written(writer: Writer) -> None:
    deep: Any = "bottom"
    for _ in range(250):
        deep = [deep]
    with pytest.raises(ValueError, match=r"tool\.returned is nested more than 32 levels deep"):
        await writer.write("tool.returned", {"result": deep})


async def test_after_its_end_a_writer_refuses_and_nobody_waits(writer: Writer) -> None:
    await fill(writer)
    waiting = [asyncio.create_task(call) for call in (writer.write("data.x", {}), writer.flush())]
    await asyncio.sleep(0)
    writer.close()
    for late in (*waiting, writer.write("data.x", {}), writer.flush()):
        with pytest.raises(ConflictError, match="The turn is over"):
            await asyncio.wait_for(late, 1)


async def test_parallel_writes_that_wait_for_room_keep_every_character_in_order(writer: Writer) -> None:
    """The offset of a text is known when everything before it has its number, and not when it is written."""
    full = await fill(writer)
    message = MessageWriter(writer, "parallel")
    texts = [f"{number:05}" * 1_000 for number in range(50)]
    writing = [asyncio.create_task(message.write(text)) for text in texts]
    await asyncio.sleep(0)
    assert not any(task.done() for task in writing), "there is no room"
    writer.due()
    writer.take(OpenedFrame(writer=writer.key))
    items: list[dict[str, Any]] = []
    while len(items) < full + len(texts):
        for frame in writer.due():
            items += json.loads(frame)["items"]
        writer.take(AckFrame(writer=writer.key, n=len(items)))
        await asyncio.sleep(0)
    whole = ""
    for item in items[full:]:
        assert item["data"]["offset"] == len(whole)
        whole += item["data"]["text"]
    assert whole == "".join(texts)


@given(st.text(st.sampled_from("aé\N{GRINNING FACE}\ud83d\ude00"), max_size=12), st.data())
def test_a_character_whose_halves_come_apart_is_one_character(text: str, data: st.DataObject) -> None:
    """However a text is cut into pieces, screens show what the whole would have shown."""
    units = text.encode("utf-16-le", "surrogatepass")
    as_halves = "".join(
        units[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(units), 2)
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(as_halves)), max_size=4)))
    pieces = [as_halves[start:end] for start, end in zip([0, *cuts], [*cuts, len(as_halves)], strict=True)]

    async def write() -> str:
        written: list[str] = []
        message = MessageWriter(_Noting(written), "m")
        for piece in pieces:
            await message.write(piece)
        await message.complete()
        return "".join(written)

    assert asyncio.run(write()) == mend(text)


class _Noting(Writer):
    """A writer that only keeps the texts."""

    def __init__(self, written: list[str]) -> None:
        self._written = written

    async def write(self, kind: str, data: Any, message_id: str | None = None, **_: bool) -> None:
        given = data() if callable(data) else data
        self._written.append(given.get("text", ""))

    def raise_refused(self) -> None:
        pass


async def test_one_item_too_large_for_the_connection_is_refused_where_it_is_written(writer: Writer) -> None:
    with pytest.raises(ValueError, match="at most 65536 bytes"):
        await writer.write("tool.returned", {"result": "x" * 70_000})
    await writer.write("message.completed", {"text": "x" * 70_000}, "m")


async def test_the_bound_is_in_bytes_also_for_text_that_takes_several_a_character(writer: Writer) -> None:
    written = 0
    while len(writer._unacknowledged) == written:
        write = asyncio.create_task(writer.write("message.completed", {"text": "語" * 10_000}, f"m{written}"))
        await asyncio.wait([write], timeout=0.05)
        written += 1
    write.cancel()
    assert written == pytest.approx(MAX_UNACKNOWLEDGED_BYTES / 30_000, abs=2)


def test_a_frame_of_a_newer_api_costs_no_other_frame() -> None:
    raw = '[{"op": "news", "writer": "w"}, {"op": "ack", "writer": "w", "n": 3}, 7]'
    assert [frame.op for frame in known_frames(raw)] == ["ack"]
