"""What is looked at in everything that an agent has sent in a turn, whatever the scenario."""

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from waystation.conformance.played_api import MAX_FRAME_BYTES, Heard, Play
from waystation.conformance.report import Report
from waystation.malformed import what_is_wrong
from waystation.models.events import Item, is_agent_writable
from waystation.models.ingest import AgentFrame
from waystation.models.needs import what_is_missing

_FRAME: TypeAdapter[AgentFrame] = TypeAdapter(AgentFrame)
_WAITING = frozenset({"write", "spawn"})
"""What may be sent only with an opened writer."""


def inspect(report: Report, play: Play, given: dict[str, Any]) -> None:
    """Looks at the frames and items of one turn."""
    for heard in play.heard:
        report.check(
            "A-03", not (wrong := _what_is_wrong_with(heard)), wrong or f"{heard.op} is as it should be"
        )
    for heard in play.of("open"):
        _inspect_open(report, heard, given)
    for heard in play.heard:
        if heard.op in _WAITING:
            opened = play.opened.get((heard.connection, heard.writer))
            early = opened is None or heard.at < opened
            report.check("A-11", not early, f"{heard.op} came {'before' if early else 'after'} opened")
    _inspect_items(report, play.items())


def _what_is_wrong_with(heard: Heard) -> str:
    if not isinstance(heard.raw, str):
        return "a binary message"
    if (size := len(heard.raw.encode(errors="replace"))) > MAX_FRAME_BYTES:
        return f"a frame of {size:,} bytes"
    try:
        # Items are judged one by one.
        _FRAME.validate_json(json.dumps({**heard.frame, "items": []} if heard.op == "write" else heard.frame))
    except ValidationError as error:
        return "; ".join(what_is_wrong(error, whole="frame"))
    return ""


def _inspect_open(report: Report, heard: Heard, given: dict[str, Any]) -> None:
    frame, actor = heard.frame, heard.frame.get("actor")
    named = {name: frame.get(name) for name in ("session_id", "turn_id", "attempt", "after")}
    wanted = {name: given[name] for name in named}
    who = (actor.get("id"), actor.get("role")) if isinstance(actor, dict) else None
    report.check(
        "A-10",
        named == wanted and who == (given["agent"], "agent"),
        f"open named {named}, and as actor {who}",
    )


def _inspect_items(report: Report, items: list[dict[str, Any]]) -> None:
    seen: dict[Any, dict[str, Any]] = {}
    for item in items:
        if item.get("n") not in seen:
            report.check(
                "A-20", item.get("n") == len(seen) + 1, f"item {item.get('n')} follows {len(seen)} others"
            )
        first = seen.setdefault(item.get("n"), item)
        report.check("A-21", first == item, f"{item.get('n')} stands for {_brief(first)} and {_brief(item)}")
        wrong = _what_is_wrong_with_item(item)
        report.check("A-22", not wrong, wrong or f"{item.get('type')} has what it needs")
    _inspect_offsets(report, list(seen.values()))


def _brief(item: dict[str, Any]) -> str:
    return json.dumps(item)[:80]


def _what_is_wrong_with_item(item: dict[str, Any]) -> str:
    kind = str(item.get("type"))
    if not is_agent_writable(kind):
        return f"agents can't write {kind}"
    try:
        checked = Item.model_validate({**item, "n": 1})
    except ValidationError as error:
        return f"{kind}: {'; '.join(what_is_wrong(error, whole='item'))}"
    if kind != "message.delta":
        missing = what_is_missing(checked)
        return f"{kind}: {missing}" if missing else ""
    offset, text = checked.data.get("offset"), checked.data.get("text")
    bare = checked.message_id is not None and checked.data.keys() == {"offset", "text"}
    good = bare and type(offset) is int and isinstance(text, str)
    return "" if good else f"message.delta: {_brief(item)}"


def _inspect_offsets(report: Report, items: list[dict[str, Any]]) -> None:
    lengths: dict[Any, int] = {}
    for item in items:
        data = item.get("data")
        if item.get("type") != "message.delta" or not isinstance(data, dict):
            continue
        at, text = lengths.get(item.get("message_id"), 0), str(data.get("text"))
        report.check(
            "A-23",
            data.get("offset") == at,
            f"text at offset {data.get('offset')} where the message has {at} code points",
        )
        lengths[item.get("message_id")] = at + len(text)
