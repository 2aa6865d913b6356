"""Scenarios of writing to an API: connections, frames, items and what becomes of them."""

import json
from functools import partial
from typing import Final

from waystation.conformance.api_bench import FLUSH_SECONDS, RECORDED, ApiBench, Line, Written
from waystation.conformance.played_api import until
from waystation.conformance.scenarios import scenario

MAX_FRAME_BYTES: Final = 4 * 1024 * 1024
BEFORE: Final[Written] = ("data.before", None, {})
AFTER: Final[Written] = ("data.after", None, {})
CLOSED_BINARY: Final = 1003


@scenario("S-01")
async def those_who_may_not_write(bench: ApiBench) -> None:
    """Nobody, somebody with a wrong key, and a user."""
    session = await bench.session()
    body = {"role": "client", "subject": "ada", "sessions": [session.id]}
    http, url = bench.client.http, bench.client.url
    minted = await http.post(f"{url}/tokens", json=body, headers=bench.client.headers)
    wrong = {"nobody": {}, "a wrong key": {"Authorization": "Bearer wrong"}}
    if minted.is_success:
        wrong["a user"] = {"Authorization": f"Bearer {minted.json()['token']}"}
    for who, headers in wrong.items():
        refused = await bench.is_refused(headers)
        bench.report.check("S-01", bool(refused), f"{who}: {refused or 'is let in'}")


@scenario("S-02", "S-03", "S-04", "S-05", "S-07", "S-08", "S-09")
async def frames_that_are_refused(bench: ApiBench) -> None:
    """Each is answered with a problem, and the connection goes on."""
    pen = await bench.pen()
    line, report = pen.line, bench.report
    backwards = [{"n": n, "type": "data.x"} for n in (2, 1)]
    no_frames = ["{", "[]", '{"op":"dance"}', '{"op":"close","writer":"w","mood":"sunny"}',
                 json.dumps({"op": "write", "writer": pen.writer, "items": backwards})]  # fmt: skip
    for at, frame in enumerate(no_frames, 1):
        await line.send(frame)
        answered = await _problems(line, "bad-frame", at)
        report.demand("S-04", answered, f"{frame[:60]} is answered with {line.frames[-1:]}")
    await line.send('{"op":"close","writer":"' + "w" * MAX_FRAME_BYTES + '"}')
    report.check("S-05", await _problems(line, "frame-too-large", 1), f"answered with {line.frames[-1:]}")
    await line.send({"op": "write", "writer": "nobody", "items": []})
    report.check("S-07", await _problems(line, "writer-not-open", 1), f"answered with {line.frames[-1:]}")
    await line.send({**pen.frame, "writer": "w2", "session_id": "conformance-nowhere"})
    report.check("S-08", await _problems(line, "unknown-session", 1), f"answered with {line.frames[-1:]}")
    await line.send({**pen.frame, "writer": "w3", "actor": {"id": "ada", "role": "user"}})
    report.check("S-09", await _problems(line, "bad-actor", 1), f"answered with {line.frames[-1:]}")
    await pen.write(AFTER)
    goes_on = await line.hears("ack", writer=pen.writer) is not None
    report.check("S-04", goes_on, f"after all that, a write is {'' if goes_on else 'not '}settled")


async def _problems(line: Line, code: str, count: int) -> bool:
    return await until(lambda: len(line.heard("problem", code=code)) >= count, FLUSH_SECONDS)


@scenario("S-06")
async def a_binary_message(bench: ApiBench) -> None:
    """It ends the connection, with a code that says why."""
    line = await bench.line()
    await line.send(b"{}")
    await until(lambda: line.closed_with is not None, FLUSH_SECONDS)
    bench.report.check("S-06", line.closed_with == CLOSED_BINARY, f"closed with {line.closed_with}")


def _acknowledges_more(line: Line, acks: int) -> bool:
    return len(line.heard("ack", n=4)) > acks


@scenario("S-10", "S-11", "S-12", "S-13", "S-17")
async def items_are_recorded(bench: ApiBench) -> None:
    """Once each, however often they come, and text at its place."""
    pen = await bench.pen()
    report = bench.report
    delta = {"offset": 3, "text": "lo wor"}
    hello: Written = ("message.delta", "m", {"offset": 0, "text": "Hello"})
    end: Written = ("message.completed", "m", {})
    numbers = await pen.write(hello, ("message.delta", "m", delta), end, BEFORE)
    fates = await pen.settled(numbers)
    report.check("S-11", set(fates) == {RECORDED}, f"became {fates}")
    events = await bench.events(pen.session)
    found = [event for event in events if event.type == BEFORE[0]]
    report.demand("S-10", bool(found), f"acknowledged, and {'in' if found else 'not in'} the replay")
    said = [event.data.get("text") for event in events if event.type == "message.completed"]
    report.check("S-17", said == ["Hello wor"], f"the messages are {said}")
    for line in (pen.line, await bench.line()):
        again = await bench.pen(session=pen.session, line=line, writer=pen.writer)
        again.n, acks = 3, len(line.heard("ack", n=4))
        await again.write(BEFORE)
        more = await until(partial(_acknowledges_more, line, acks), FLUSH_SECONDS)
        report.check("S-13", more, f"the repeat was {'' if more else 'not '}acknowledged")
    count = sum(event.type == BEFORE[0] for event in await bench.events(pen.session))
    report.check("S-12", count == 1, f"recorded {count} times")
