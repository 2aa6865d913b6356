"""APIs that break one requirement each: ours, with what goes up or comes down a connection changed."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from waystation.conformance.api_bench import Frame, Line
from waystation.conformance.api_refusals import CASES

Down = Callable[["Changed", Frame], list[Frame]]
Up = Callable[["Changed", Frame], Frame]


class Changed(Line):
    """A line on which a broken API speaks."""

    down: Down = staticmethod(lambda line, frame: [frame])
    up: Callable[[Frame], Frame] = staticmethod(lambda frame: frame)
    number = 1
    """1 for the first line of a scenario."""
    lies_about_its_end = False

    async def send(self, frame: Frame | str | bytes) -> None:
        await super().send(self.up(frame) if isinstance(frame, dict) else frame)

    def end(self, code: int | None) -> None:
        super().end(1000 if self.lies_about_its_end else code)

    def hear(self, message: str | bytes) -> None:
        super().hear(json.dumps([new for frame in json.loads(message) for new in self.down(self, frame)]))


def dropped(op: str, **fields: Any) -> Down:
    def down(_: Changed, frame: Frame) -> list[Frame]:
        hit = frame["op"] == op and all(frame.get(name) == value for name, value in fields.items())
        return [] if hit else [frame]

    return down


def altered(op: str, changes: Mapping[str, Any], **fields: Any) -> Down:
    def down(_: Changed, frame: Frame) -> list[Frame]:
        hit = frame["op"] == op and all(frame.get(name) == value for name, value in fields.items())
        return [{**frame, **changes} if hit else frame]

    return down


def also_unknown(_: Changed, frame: Frame) -> list[Frame]:
    return [frame, {"op": "weather"}]


def widened(_: Changed, frame: Frame) -> list[Frame]:
    return [{**frame, "last": frame["last"] + 1} if frame["op"] == "refused" else frame]


def acknowledged_too(_: Changed, frame: Frame) -> list[Frame]:
    ack = {"op": "ack", "writer": frame.get("writer"), "n": frame.get("last")}
    return [frame, ack] if frame["op"] == "refused" else [frame]


def acknowledged_once(line: Changed, frame: Frame) -> list[Frame]:
    known = any(one["n"] == frame.get("n") for one in line.heard("ack")) or line.number > 1
    return [] if frame["op"] == "ack" and known else [frame]


def only_to_the_first(op: str) -> Down:
    def down(line: Changed, frame: Frame) -> list[Frame]:
        return [] if frame["op"] == op and line.number > 1 else [frame]

    return down


def another_turn(line: Changed, frame: Frame) -> list[Frame]:
    return [{**frame, "turn_id": "t1.2"} if frame.get("request") == "r2" else frame]


def back_to_four(_: Changed, frame: Frame) -> list[Frame]:
    return [{**frame, "n": 4} if frame["op"] == "ack" and frame["n"] > 4 else frame]


def items_changed(change: Callable[[list[Frame]], list[Frame]]) -> Up:
    def up(_: Changed, frame: Frame) -> Frame:
        return {**frame, "items": change(frame["items"])} if frame["op"] == "write" else frame

    return up


def acknowledged_unsent(line: Changed, frame: Frame) -> Frame:
    if frame["op"] == "write":
        Line.hear(line, json.dumps([{"op": "ack", "writer": frame["writer"], "n": frame["items"][-1]["n"]}]))
        return {**frame, "items": []}
    return frame


def renumbered(items: list[Frame]) -> list[Frame]:
    """A repeat comes as something new."""
    return [{**items[0], "n": 5}] if len(items) == 1 else items


def swapped(items: list[Frame]) -> list[Frame]:
    if len(items) != 2:
        return items
    return [{**items[1], "n": items[0]["n"]}, {**items[0], "n": items[1]["n"]}]


def where_it_ends(items: list[Frame]) -> list[Frame]:
    return [
        {**one, "data": {**one["data"], "offset": 5}} if one["data"].get("offset") == 3 else one
        for one in items
    ]


def cut_short(items: list[Frame]) -> list[Frame]:
    return [
        {**one, "data": {**one["data"], "text": "l"}} if one["data"].get("text") == "llo" else one
        for one in items
    ]


def asked_anew(items: list[Frame]) -> list[Frame]:
    """A question that comes again comes as another."""
    if len(items) != 1 or items[0]["type"] != "input.requested":
        return items
    return [{**items[0], "data": {**items[0]["data"], "question_id": "q-again"}}]


def whole(items: list[Frame]) -> list[Frame]:
    return [
        {**one, "type": "message.completed", "data": {"text": "soon"}}
        if one["message_id"] == "early"
        else one
        for one in items
    ]


DOWN: dict[str, Down] = {
    "S-02": also_unknown,
    "S-03": dropped("opened"),
    "S-04": dropped("problem", code="bad-frame"),
    "S-05": dropped("problem", code="frame-too-large"),
    "S-07": dropped("problem", code="writer-not-open"),
    "S-08": dropped("problem", code="unknown-session"),
    "S-09": dropped("problem", code="bad-actor"),
    "S-11": dropped("ack"),
    "S-12": back_to_four,
    "S-13": acknowledged_once,
    "S-14": altered("refused", {"detail": None}),
    "S-15": widened,
    "S-16": acknowledged_too,
    **{case.number: altered("refused", {"code": "odd"}, code=case.code) for case in CASES},
    "S-35": altered("refused", {"code": "odd"}, code="too-many-refusals"),
    "S-36": dropped("fenced"),
    "S-37": altered("refused", {"code": "odd"}, code="turn-stopped"),
    "S-38": dropped("fenced"),
    "S-40": altered("stop", {"reason": None}),
    "S-42": dropped("fenced"),
    "S-43": altered("steer", {"actor": None}),
    "S-44": only_to_the_first("steer"),
    "S-45": another_turn,
    "S-46": dropped("finished"),
    "S-47": altered("problem", {"request": None}),
    "S-74": altered("answered", {"value": None}),
    "S-75": only_to_the_first("answered"),
}
UP: dict[str, Up] = {
    "S-10": acknowledged_unsent,
    "S-12": items_changed(renumbered),
    "S-17": items_changed(where_it_ends),
    "S-41": items_changed(cut_short),
    "S-60": items_changed(swapped),
    "S-61": items_changed(whole),
    "S-76": items_changed(asked_anew),
}
POSTED: dict[str, dict[str, Any]] = {"S-50": {"n": 0}, "S-51": {"refused": []}}
"""What is changed in the answers to posted events."""


class ChangedAnswers(httpx.AsyncHTTPTransport):
    """HTTP to a broken API."""

    def __init__(self, changes: Mapping[str, Any]) -> None:
        super().__init__()
        self._changes = changes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if not (request.method == "POST" and request.url.path.endswith("/events")):
            return response
        body = json.loads(await response.aread())
        changed = {name: self._changes.get(name, value) for name, value in body.items()}
        return httpx.Response(response.status_code, json=changed)
