"""Scenarios of turns: how they are controlled, what they ask for, and how they end in Temporal."""

import asyncio
from typing import Final

from waystation.conformance.agent_bench import PATIENCE_SECONDS, STOP_GRACE_SECONDS, Bench
from waystation.conformance.played_api import Play, until
from waystation.conformance.scenarios import scenario
from waystation.temporal.names import RETRY_TURN, WORKER_SHUTDOWN

SHORT_HEARTBEAT_SECONDS: Final = 2.0
BEYOND_HEARTBEATS_SECONDS: Final = 4.0
CANCEL_SECONDS: Final = 6.0
"""An agent hears of a cancellation with its next heartbeat."""
IN_FLIGHT_SECONDS: Final = 0.5
"""What is sent within this time after a frame went down may have crossed it."""
WITHHELD_SECONDS: Final = 0.6
"""Less than the second for which a failing attempt waits."""
TOLD_SECONDS: Final = 1.0
"""What it takes until the end of an activity is known here."""
EXIT_SECONDS: Final = 15.0
_ENDINGS: Final = frozenset({"message.delta", "message.completed", "tool.returned"})


@scenario("A-40", "A-41")
async def the_turn_is_stopped(bench: Bench) -> None:
    """A stop comes while the turn writes, and comes again."""
    turn = await bench.begin("stream 1000 20")
    play, report = turn.play, bench.report
    await turn.wait("A-40", lambda: len(play.items()) > 5, "text comes")
    stop = {"op": "stop", "turn_id": "t1", "reason": "enough"}
    await play.tell(stop, stop)
    before = {item.get("n") for item in play.items()}
    ended = await turn.ended("A-40", STOP_GRACE_SECONDS + TOLD_SECONDS)
    stopped = isinstance(ended.result, dict) and ended.result.get("outcome") == "stopped"
    report.check("A-40", ended.kind == "completed" and stopped, str(ended))
    report.check("A-40", play.unsettled_bytes() == 0, f"{play.unsettled_bytes()} bytes were not settled")
    new = [item for item in play.items() if item.get("n") not in before]
    report.check(
        "A-41", all(item.get("type") in _ENDINGS for item in new) and len(new) < 20,
        f"{len(new)} items came after the stop: {sorted({str(item.get('type')) for item in new})}",
    )  # fmt: skip


@scenario("A-43")
async def the_writer_is_fenced(bench: Bench) -> None:
    """A later attempt has begun somewhere: nothing of this one counts."""
    turn = await bench.begin("stream 1000 20")
    await turn.wait("A-43", lambda: len(turn.play.items()) > 5, "text comes")
    turn.play.acks = False  # the fenced writer hears nothing more
    await turn.play.tell({"op": "fenced", "code": "turn-over"})
    await asyncio.sleep(IN_FLIGHT_SECONDS)
    count = len(turn.play.items())
    ended = await turn.ended("A-43")
    new = len(turn.play.items()) - count
    bench.report.check("A-43", new == 0, f"{new} items came after fenced; {ended}")


@scenario("A-44")
async def the_turn_is_steered(bench: Bench) -> None:
    """A steer comes twice, as it does after a reconnect."""
    turn = await bench.begin("steer")
    await turn.wait("A-44", lambda: turn.play.items("message.delta"), "text comes")
    actor = {"id": "ada", "role": "user", "name": None}
    steer = {"op": "steer", "steer_id": "s1", "text": "shorter ", "actor": actor}
    await turn.play.tell(steer, steer)
    ended = await turn.ended("A-44")
    taken = [item.get("data") for item in turn.play.items("steer.consumed")]
    as_it_should = ended.result == {"outcome": "completed", "result": {"steer": "shorter "}}
    bench.report.check("A-44", taken == [{"steer_id": "s1"}] and as_it_should, f"taken up: {taken}; {ended}")


@scenario("A-06")
async def the_api_is_newer(bench: Bench) -> None:
    """Frames, fields and writers that nobody knows come with those that count."""

    def withhold(play: Play) -> None:
        play.acks = False

    turn = await bench.begin("stream 3", prepare=withhold)
    play = turn.play
    await turn.wait("A-06", lambda: play.items("message.completed"), "the message comes")
    await play.tell(
        {"op": "from-the-future", "weather": ["sunny"]}, {"op": "ack", "writer": "nobody", "n": 1}
    )
    await play.tell(
        {"op": "problem", "writer": None, "request": None, "code": "odd", "detail": "", "retry": False}
    )
    play.acked = max(int(item["n"]) for item in play.items())
    play.acks = True
    await play.tell(
        {"op": "future"}, {"op": "ack", "n": play.acked, "since": "2030"}, {"op": "later", "writer": 7}
    )
    ended = await turn.ended("A-06")
    bench.report.check("A-06", ended.kind == "completed", str(ended))


@scenario("A-50", "A-51", "A-52", "A-53")
async def a_sub_agent_is_spawned(bench: Bench) -> None:
    """The request is lost with the connection, and sent again; then the sub-agent runs, and ends."""

    def silent(play: Play) -> None:
        play.spawns, play.acks = False, False

    turn = await bench.begin("spawn", prepare=silent)
    play, report = turn.play, bench.report
    await turn.wait("A-51", lambda: play.items("message.delta"), "text comes")
    await asyncio.sleep(IN_FLIGHT_SECONDS)
    report.check("A-51", not play.of("spawn"), f"{len(play.of('spawn'))} spawns came with nothing settled")
    play.acks = True
    await play.settle()
    await turn.wait("A-50", lambda: play.of("spawn"), "spawn comes")
    asked = play.of("spawn")[0].frame.get("spawn", {})
    named = {name: asked.get(name) for name in ("parent_turn_id", "attempt", "agent", "text")}
    wanted = {"parent_turn_id": "t1", "attempt": 1, "agent": bench.agent, "text": "stream 3"}
    report.check("A-50", named == wanted, f"spawn named {named}")
    count = len(play.of("spawn"))
    bench.api.cut()
    play.spawns = True
    await turn.wait("A-52", lambda: len(play.of("spawn")) > count, "spawn comes again")
    keys = [heard.frame.get("spawn", {}).get("key") for heard in play.of("spawn")]
    report.check("A-52", len(set(keys)) == 1, f"keys {keys}")
    await asyncio.sleep(IN_FLIGHT_SECONDS)
    report.check("A-53", not turn.run.over, "the turn goes on before the sub-agent has ended")
    await play.tell(
        {"op": "finished", "turn_id": "t1.9", "outcome": "completed", "result": "another's", "detail": None},
        {"op": "finished", "turn_id": "t1.1", "outcome": "completed", "result": {"parts": 3}, "detail": None},
    )
    ended = await turn.ended("A-53")
    report.check(
        "A-53", ended.result == {"outcome": "completed", "result": {"child": {"parts": 3}}}, str(ended)
    )


@scenario("A-27")
async def a_tool_is_called(bench: Bench) -> None:
    """A tool call and its end, in the order of writing."""
    turn = await bench.begin("tool")
    ended = await turn.ended("A-27")
    calls, returns = (
        [(item["data"].get("call_id"), item["data"].get("name")) for item in turn.play.items(kind)]
        for kind in ("tool.called", "tool.returned")
    )
    once = len(calls) == 1 and calls == returns
    bench.report.check(
        "A-27", once and ended.kind == "completed", f"called {calls}, returned {returns}; {ended}"
    )


@scenario("T-04", "T-05")
async def the_turn_is_long_and_canceled(bench: Bench) -> None:
    """A turn that does nothing outlives two heartbeat timeouts; then Temporal cancels it."""
    turn = await bench.begin("wait", heartbeat_seconds=SHORT_HEARTBEAT_SECONDS)
    early = await turn.run.ended(BEYOND_HEARTBEATS_SECONDS)
    bench.report.demand(
        "T-04", early is None, f"with a timeout of {SHORT_HEARTBEAT_SECONDS:g} s: {early or 'the turn lives'}"
    )
    await turn.run.cancel()
    ended = await turn.ended("T-05", CANCEL_SECONDS)
    stopped = isinstance(ended.result, dict) and ended.result.get("outcome") == "stopped"
    bench.report.check("T-05", stopped or ended.kind == "canceled", str(ended))


@scenario("T-06", "T-10")
async def the_turn_fails(bench: Bench) -> None:
    """The turn's own code raises, when the session has not yet taken what it wrote."""

    def withhold(play: Play) -> None:
        play.acks = False

    turn = await bench.begin("fail", prepare=withhold)
    await until(lambda: turn.play.items("message.delta") or turn.run.over, PATIENCE_SECONDS)
    early = await turn.run.ended(WITHHELD_SECONDS)
    bench.report.check("T-10", early is None, f"with nothing settled: {early or 'the activity waits'}")
    turn.play.acks = True
    await turn.play.settle()
    ended = await turn.ended("T-06")
    ours = ended.failure_type in (RETRY_TURN, WORKER_SHUTDOWN)
    bench.report.check(
        "T-06", ended.kind == "failed" and "as asked" in ended.message and not ours, str(ended)
    )


@scenario("A-14", "A-24", "T-07")
async def the_turn_is_tried_again(bench: Bench) -> None:
    """The first attempt asks for another, which begins in the same session."""
    first = await bench.begin("retry")
    ended = await first.ended("T-07")
    bench.report.demand("T-07", (ended.kind, ended.failure_type) == ("failed", RETRY_TURN), str(ended))
    second = await bench.begin("retry", after=first)
    ended = await second.ended("T-07")
    bench.report.check("T-07", ended.result == {"outcome": "completed", "result": {"attempt": 2}}, str(ended))
    ids = (first.play.writer, second.play.writer)
    bench.report.check("A-14", ids[0] != ids[1], f"the attempts wrote as {ids[0]} and {ids[1]}")


@scenario("T-02")
async def the_worker_is_newer(bench: Bench) -> None:
    """The input has fields that nobody knows."""
    turn = await bench.begin("stream 3", at_stake="T-02", mood="sunny", prospects={"tomorrow": ["rain"]})
    ended = await turn.ended("T-02")
    bench.report.check("T-02", ended.kind == "completed", str(ended))


@scenario("T-09")
async def payloads_are_encrypted(bench: Bench) -> None:
    """There are encryption keys: the agent reads its input, so it must have them, and must use them."""
    if bench.temporal.client.data_converter.payload_codec is None:
        return
    turn = await bench.begin("stream 3")
    ended = await turn.ended("T-09")
    bench.report.check(
        "T-09", ended.kind == "completed" and ended.encrypted, f"{ended}, encrypted: {ended.encrypted}"
    )


@scenario("T-08")
async def the_process_is_told_to_exit(bench: Bench) -> None:
    """SIGTERM while a turn runs; the last scenario, for there is no agent after it."""
    turn = await bench.begin("wait")
    await turn.wait("T-08", lambda: turn.play.items(), "text comes")
    exited = await bench.subject.terminate(EXIT_SECONDS)
    if exited is None:
        return
    ended = await turn.ended("T-08", PATIENCE_SECONDS)
    gave_back = ended.kind == "failed" and ended.failure_type == WORKER_SHUTDOWN
    bench.report.check(
        "T-08", gave_back and exited, f"{ended}; the process has {'' if exited else 'not '}exited"
    )
