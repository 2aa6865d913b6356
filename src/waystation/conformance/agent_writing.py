"""Scenarios of writing: connections, writers, items and what becomes of them."""

import asyncio
from itertools import pairwise
from typing import Final

from waystation.conformance.agent_bench import PATIENCE_SECONDS, Bench, Turn
from waystation.conformance.played_api import MAX_FRAME_BYTES, Play, until
from waystation.conformance.scenarios import scenario

QUIET_SECONDS: Final = 1.0
"""Long enough for something to happen that must not."""
REFUSED_HANDSHAKES: Final = (503, 403, 503, 401, 503)
RECONNECT_SECONDS: Final = 60.0
"""An agent that doubles its pauses from two seconds needs as long for as many refusals."""
MIN_PAUSE_SECONDS: Final = 0.02


def _withhold(play: Play) -> None:
    play.acks = False


@scenario(
    "A-01", "A-03", "A-10", "A-17", "A-20", "A-21", "A-22", "A-23", "A-24", "A-25", "A-35", "T-01", "T-03"
)  # fmt: skip
async def text_is_streamed(bench: Bench) -> None:
    """A turn from its beginning to its end, without trouble."""
    turn = await bench.begin("stream 20")
    report, play = bench.report, turn.play
    hand = next(one for one in bench.api.handshakes if one.status == 101)
    right = (hand.path, hand.authorization) == ("/ingest", f"Bearer {bench.key}")
    scheme = hand.authorization.partition(" ")[0]
    report.check(
        "A-01", right, f"{hand.path}, authorization {scheme or 'missing'}, {'the key' if right else 'wrong'}"
    )
    ended = await turn.ended("T-03")
    encoding = ended.payload.metadata.get("encoding", b"").decode() if ended.payload else "none"
    as_it_should = (ended.kind, ended.result) == (
        "completed",
        {"outcome": "completed", "result": {"parts": 20}},
    )
    report.check("T-03", as_it_should and encoding == "json/plain", f"{ended}, encoded as {encoding}")
    flushes = [heard for heard in play.of("write") if heard.frame.get("flush") is True]
    last = play.of("write")[-1] if play.of("write") else None
    report.check("A-35", last in flushes, f"{len(flushes)} of {len(play.of('write'))} writes had flush")
    begun = {item.get("message_id") for item in play.items("message.delta")}
    complete = {item.get("message_id") for item in play.items("message.completed")}
    report.check(
        "A-25", bool(begun) and begun <= complete, f"{len(begun & complete)} of {len(begun)} messages"
    )
    closed = await until(lambda: any(one.writer == play.writer for one in play.of("close")), QUIET_SECONDS)
    report.check("A-17", closed, "close came" if closed else f"no close within {QUIET_SECONDS:g} s")


@scenario("A-11")
async def opened_is_slow(bench: Bench) -> None:
    """What is written before ``opened`` would be refused; inspection sees whether anything is."""

    def slow(play: Play) -> None:
        play.open_after_seconds = 0.5

    turn = await bench.begin("stream 5", prepare=slow)
    await turn.ended("A-11")


@scenario("A-26")
async def text_comes_as_it_is_made(bench: Bench) -> None:
    """Two seconds of text: the first of it must not come with the last."""
    turn = await bench.begin("stream 10 100")
    await turn.ended("A-26")
    times = [heard.at for heard in turn.play.of("write") if heard.items]
    spread = times[-1] - times[0] if times else 0.0
    bench.report.check("A-26", spread > 0.5, f"{len(times)} writes over {spread:.1f} s of a turn of 1.0 s")


@scenario("A-02", "A-12", "A-42", "T-11")
async def two_turns_at_once(bench: Bench) -> None:
    """Two sessions whose turns have the same id; one is stopped, the other goes on."""
    turn = await bench.begin("stream 60 50")
    other = await bench.begin("stream 1000 50", at_stake="T-11")
    report = bench.report
    await asyncio.sleep(0.2)  # the end of the first would have arrived by then
    both = not turn.run.over
    report.demand("T-11", both, "two turns ran at the same time" if both else "one waited for the other")
    ids = (turn.play.writer, other.play.writer)
    report.demand("A-12", ids[0] != ids[1], f"{ids[0]} and {ids[1]}")
    connections = bench.api.connections
    report.check("A-02", connections == 1, f"{connections} connections for two turns")
    await other.wait("A-42", lambda: len(other.play.items()) > 5, "both write")
    await other.play.tell({"op": "stop", "turn_id": "t1", "reason": "enough"})
    ended = await turn.ended("A-42")
    whole = ended.result == {"outcome": "completed", "result": {"parts": 60}}
    report.check("A-42", whole, f"of the turn that nobody stopped: {ended}")


@scenario("A-34")
async def acknowledgements_are_slow(bench: Bench) -> None:
    """Nothing is settled for a second, in which the activity must not complete."""
    turn = await bench.begin("stream 5", prepare=_withhold)
    await turn.wait("A-34", lambda: turn.play.items("message.delta"), "text comes")
    early = await turn.run.ended(QUIET_SECONDS)
    bench.report.demand("A-34", early is None, f"with nothing settled: {early or 'the activity waits'}")
    turn.play.acks = True
    await turn.play.settle()
    ended = await turn.ended("A-34")
    bench.report.check("A-34", ended.kind == "completed", f"once settled: {ended}")


@scenario("A-04", "A-13", "A-30", "A-31")
async def the_connection_is_cut(bench: Bench) -> None:
    """Ten items are acknowledged, more have come, and the network goes."""

    def ten(play: Play) -> None:
        play.ack_up_to = 10

    turn = await bench.begin("stream 60 30", prepare=ten)
    play, report = turn.play, bench.report
    await turn.wait("A-30", lambda: len(play.items()) >= 20 and play.acked == 10, "20 items come")
    await asyncio.sleep(0.2)  # until the acknowledgement has arrived
    lost, opens = play.connection, len(play.of("open"))
    bench.api.cut()
    await turn.wait(
        "A-04", lambda: len(bench.api.handshakes) > 1 and bench.api.connections, "it connects again"
    )
    report.check("A-04", True, "connected again after the connection was cut")
    await turn.wait("A-13", lambda: len(play.of("open")) > opens, "the writer is opened again")
    ids = list(dict.fromkeys(heard.writer for heard in play.of("open")))
    report.demand("A-13", len(ids) == 1, f"one attempt was opened as {ids}")
    play.ack_up_to = None
    ended = await turn.ended("A-30")
    again = play.numbers_after(lost)
    sent = set(play.numbers_on(lost))
    unsettled = [n for n in sorted(sent, key=str) if n not in range(11)]
    missing = [n for n in unsettled if n not in again]
    in_order = again == sorted(again, key=lambda n: n if isinstance(n, int) else 0)
    report.check(
        "A-30", not missing and in_order and ended.kind == "completed",
        f"{len(unsettled)} items were not settled, of which {missing or 'none'} didn't come again; {ended}",
    )  # fmt: skip
    report.check(
        "A-31",
        not (kept := [n for n in again if n in range(11)]),
        f"acknowledged, and sent again: {kept or 'nothing'}",
    )


@scenario("A-04", "A-05")
async def handshakes_are_refused(bench: Bench) -> None:
    """The API is away, then refuses the key for a while; the turn goes on meanwhile."""
    turn = await bench.begin("stream 40 50")
    await turn.wait("A-04", lambda: turn.play.items(), "text comes")
    count = len(bench.api.handshakes)
    bench.api.refusals += REFUSED_HANDSHAKES
    bench.api.cut()
    connected = await until(lambda: not bench.api.refusals and bench.api.connections, RECONNECT_SECONDS)
    tries = bench.api.handshakes[count:]
    statuses = [one.status for one in tries]
    pauses = [later.at - earlier.at for earlier, later in pairwise(tries)]
    bench.report.check("A-04", connected, f"handshakes after the loss: {statuses}")
    if len(pauses) >= 4:
        # Each pause is measured with the delays of a busy machine, of which the shorter of two has less.
        grows = min(pauses) >= MIN_PAUSE_SECONDS and min(pauses[-2:]) > 2 * min(pauses[:2])
        bench.report.check("A-05", grows, f"pauses of {', '.join(f'{pause:.2f}' for pause in pauses)} s")


@scenario("A-32", "A-33")
async def items_are_refused(bench: Bench) -> None:
    """Two items in the middle are refused, and the connection is lost before the rest is settled."""

    turn = await bench.begin("stream 10", prepare=_withhold)
    play = turn.play
    await turn.wait("A-32", lambda: len(play.items()) >= 10, "10 items come")
    play.acks, play.refuse, play.ack_up_to = True, range(3, 5), 6
    await play.settle()
    await asyncio.sleep(0.2)  # until the refusal has arrived
    lost = play.connection
    bench.api.cut()
    play.ack_up_to = None
    ended = await turn.ended("A-33")
    again = play.numbers_after(lost)
    refused = [n for n in again if n in play.refuse]
    bench.report.check("A-32", not refused, f"refused, and sent again: {refused or 'nothing'}")
    bench.report.check("A-33", ended.kind in ("completed", "failed"), str(ended))


@scenario("A-15")
async def a_writer_can_not_be_opened_yet(bench: Bench) -> None:
    """The first ``open`` is answered with a problem that passes."""
    problem = {"op": "problem", "code": "temporal-unavailable", "detail": "Try again.", "retry": True}

    def later(play: Play) -> None:
        play.instead_of_opened = [problem]

    turn = await bench.begin("stream 3", prepare=later)
    await turn.wait("A-15", lambda: turn.play.opened, "the writer is opened again")
    first, second = turn.play.of("open")[:2]
    bench.report.check(
        "A-15", second.at - first.at >= MIN_PAUSE_SECONDS, f"opened again after {second.at - first.at:.2f} s"
    )
    ended = await turn.ended("A-15")
    bench.report.check("A-15", ended.kind == "completed", str(ended))


@scenario("A-16")
async def a_writer_can_not_be_opened(bench: Bench) -> None:
    """``open`` is answered with a problem for good."""
    turn: Turn = await bench.begin("wait")
    await turn.wait("A-16", lambda: turn.play.items(), "text comes")
    turn.play.instead_of_opened = [
        {"op": "problem", "code": "wrong-agent", "detail": "Not yours.", "retry": False}
    ]
    bench.api.cut()
    ended = await turn.ended("A-16", PATIENCE_SECONDS)
    bench.report.check("A-16", ended.kind == "failed", str(ended))


@scenario("A-36")
async def nothing_is_settled(bench: Bench) -> None:
    """A turn has six megabytes to write, and the session takes none of them for a while."""
    turn = await bench.begin("fill 60", prepare=_withhold)
    await turn.wait("A-36", lambda: turn.play.items("message.delta"), "text comes")
    most = 0
    for _ in range(15):
        await asyncio.sleep(0.1)
        most = max(most, turn.play.unsettled_bytes())
    bench.report.demand("A-36", most <= MAX_FRAME_BYTES, f"{most:,} bytes came with nothing settled")
    turn.play.acks = True
    await turn.play.settle()
    ended = await turn.ended("A-36", 3 * PATIENCE_SECONDS)
    bench.report.check("A-36", ended.kind == "completed", f"waited at {most:,} bytes; {ended}")
