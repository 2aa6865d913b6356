"""What holds of the processes: they live, answer, end when told to, and keep secrets."""

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

from tests.torture.evidence import Evidence
from tests.torture.oracle.promises import Judged, promise

SIGTERM_SECONDS: Final = {"worker": 5.0, "wild": 10.0, "api": 3.0}
MEASURING_SECONDS: Final = 1.0
"""A busy machine takes this long to notice that a process has ended, and the process to leave Python."""
HEALTH_SECONDS: Final = 1.0
"""Beside the time in which the machine let neither the process nor its prober run."""
GAVE_UP: Final = "ReadTimeout"
"""Noted in place of a status when the prober waited no longer."""
RESTARTING_SECONDS: Final = 20.0
"""After its start a process may not serve yet."""
ENCRYPTED: Final = frozenset({"binary/encrypted", "binary/null", "json/protobuf"})
"""``json/protobuf`` says where in the payload storage an encrypted one is."""
READABLE: Final = frozenset(
    {
        "memo",
        "searchAttributes",
        "header",
        "markerRecordedEventAttributes",
        "activityTaskCanceledEventAttributes",
    }
)
"""What Temporal and its SDK write and read themselves: names, patches, why an activity never began."""
NO_START: Final = ("Temporal can't be reached", "can't be made (File exists)")
MAX_MEMORY_BYTES: Final = 600_000_000


@promise("No process ends by itself.", "docs/architecture.md#the-processes")
def processes_live(evidence: Evidence, judged: Judged) -> None:
    for line in evidence.noted("ended"):
        # What lacks Temporal or its folder when it starts says so and ends; whoever started it tries again.
        alone = not line["expected"] and not any(reason in line["said"] for reason in NO_START)
        judged.holds(not alone, f"{line['actor']} ended with {line['code']}: {line['said'][-300:]}")


@promise("When the last fault is over, every process serves again.", "docs/architecture.md#the-processes")
def everything_comes_back(evidence: Evidence, judged: Judged) -> None:
    judged.checked += len(list(evidence.noted("calm")))
    for line in evidence.noted("never_calm"):
        judged.holds(False, line["why"])


@promise(
    "SIGTERM ends a worker within 5 seconds, an agent within 10, the API within 3.",
    "docs/operations.md#processes",
)
def sigterm_ends_in_time(evidence: Evidence, judged: Judged) -> None:
    for line in evidence.noted("terminated"):
        kind = line["actor"].partition("-")[0]
        if kind not in SIGTERM_SECONDS:
            continue
        seconds, bound = line["seconds"], SIGTERM_SECONDS[kind]
        fine = seconds is not None and seconds <= bound + MEASURING_SECONDS
        judged.holds(fine, f"{line['actor']} took {seconds} s, not {bound} ({line['fault']})")


@promise("/health answers within a second as long as the process responds.", "docs/http-api.md#get-health")
def health_is_quick(evidence: Evidence, judged: Judged) -> None:
    for line in evidence.noted("health"):
        judged.checked += line["answered"]
    starts = [(line["at"], line["actor"]) for line in evidence.noted("started")]
    for line in evidence.noted("slow_health"):
        began, ended, process = line["at"] - line["seconds"], line["at"], line["process"]
        starting = any(
            name == process and at - 2 <= ended and began <= at + RESTARTING_SECONDS for at, name in starts
        )
        if starting or evidence.troubled(process, began, ended, margin_seconds=1.0):
            continue
        answered = line["status"] == 200 or line["status"] == GAVE_UP  # within what the machine took
        fine = answered and line["seconds"] <= HEALTH_SECONDS + max(0.0, line["lag"])
        judged.holds(
            fine, f"{process} answered {line['status']} after {line['seconds']} s (lag {line['lag']} s)"
        )


@promise("No process needs more memory than it should.", "docs/scaling.md")
def memory_is_bounded(evidence: Evidence, judged: Judged) -> None:
    for line in evidence.noted("memory"):
        judged.holds(line["bytes"] < MAX_MEMORY_BYTES, f"{line['process']} has {line['bytes']:,} bytes")


@promise("No secret appears in a log, a history or an event.", "docs/trust.md")
def secrets_stay_secret(evidence: Evidence, judged: Judged) -> None:
    logs = {f"log of {name}": text for name, text in evidence.logs.items()}
    events = {f"events of {name}": str(session.log) for name, session in evidence.readable.items()}
    read = evidence.final.more.get("money", {}).get("events", {})
    shopping = {f"events of {name}": text for name, text in read.items()}
    for what, secret in evidence.final.secrets.items():
        for where, text in {**logs, **events, **shopping, **evidence.final.histories}.items():
            judged.holds(secret not in text, f"{what} is in the {where}")


@promise("Every history replays with the code that wrote it.", "docs/operations.md#upgrades")
def histories_replay(evidence: Evidence, judged: Judged) -> None:
    for name, failure in evidence.final.replayed.items():
        judged.holds(failure is None, f"{name}: {failure}")


@promise("With encryption keys every payload in a history is encrypted.", "docs/operations.md#encryption")
def payloads_are_encrypted(evidence: Evidence, judged: Judged) -> None:
    for name, text in evidence.final.histories.items():
        for encoding in _encodings(json.loads(text)["events"]):
            judged.holds(encoding in ENCRYPTED, f"{name} has a payload of {encoding}")


def _encodings(node: Any, within: str = "") -> Iterator[str]:
    """Yields how each payload is encoded, except where Temporal itself must be able to read it."""
    match node:
        case {"metadata": {"encoding": str(encoding)}, **_rest}:
            yield base64.b64decode(encoding).decode()
        case dict():
            for key, value in node.items():
                if key not in READABLE:
                    yield from _encodings(value, key)
        case list():
            for value in node:
                yield from _encodings(value, within)


@promise("No process logs an error that nobody expected.", "docs/errors.md#500-and-503")
def no_unexpected_errors(evidence: Evidence, judged: Judged) -> None:
    signs = ("exception was never retrieved", "was never awaited", "Exception in ASGI application")
    for name, text in evidence.logs.items():
        if name in ("temporal", "redis"):
            continue
        for sign in signs:
            judged.holds(sign not in text, f"{name}: {_around(text, sign)}")


@promise("The torture's own actors do their part.", "tests/torture")
def actors_do_their_part(evidence: Evidence, judged: Judged) -> None:
    judged.checked += len(evidence.plan.actors)
    for line in evidence.noted("actor_failed"):
        judged.holds(False, f"{line['actor']}: {line['traceback'][-600:]}")
    for line in evidence.noted("unfinished"):
        judged.holds(False, f"{line['actor']} ({line['kind']}) was not done at the end")


def _around(text: str, sign: str) -> str:
    at = text.find(sign)
    return text[max(0, at - 200) : at + 400]
