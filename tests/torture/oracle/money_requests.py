"""What holds of requests about money: what was answered counts, and an id stands for one thing."""

from collections import defaultdict
from typing import Final

from tests.torture.evidence import Evidence
from tests.torture.oracle.books import Books
from tests.torture.oracle.promises import Judged, promise
from tests.torture.record import Line
from waystation.models.trail import AuditEntry
from workflows.trail import verify

STARTS: Final = {"buy": "purchases", "pay": "payments", "grant": "mandates"}
LATER: Final = frozenset({408, 429, 500, 503})


@promise("What was answered 2xx has begun, what was refused has not.", "docs/http-api.md#purchases")
def what_was_started_is_there(evidence: Evidence, judged: Judged) -> None:
    read = evidence.final.more.get("money", {})
    for operation, kind in STARTS.items():
        tries: dict[str, list[Line]] = defaultdict(list)
        for line in evidence.noted(operation):
            tries[line["id"]].append(line)
        for id_, lines in tries.items():
            there = id_ in read.get("running", {})
            if any(line["status"] in (200, 201) and not line["proxied"] for line in lines):
                judged.holds(there, f"{id_}: answered 2xx, and there is no such thing in {kind}")
            if all(_refused(line) for line in lines):
                judged.holds(not there, f"{id_}: refused {[line['status'] for line in lines]}, and there")


def _refused(line: Line) -> bool:
    status = line["status"]
    return bool(line["proxied"]) or (status is not None and 400 <= status < 500 and status not in LATER)


@promise("An id that is used again for something else is refused with 409.", "docs/errors.md#409")
def ids_stand_for_one_thing(evidence: Evidence, judged: Judged) -> None:
    begun = {
        line["id"]
        for operation in ("buy", "pay")
        for line in evidence.noted(operation)
        if line["status"] in (200, 201) and not line["proxied"]
    }
    for line in evidence.noted("buy_other", "pay_other"):
        status = line["status"]
        if line["id"] in begun and status is not None and not line["proxied"] and status not in LATER:
            judged.holds(status == 409, f"{line['id']}: other terms under its id were answered {status}")


@promise("Trails are whole: each entry is chained to the one before.", "docs/purchases.md#guarantees")
def trails_are_whole(evidence: Evidence, judged: Judged) -> None:
    for id_, entries in Books(evidence).trails.items():
        read = [AuditEntry.model_validate(entry) for entry in entries]
        judged.holds(verify(read), f"{id_}: its trail is broken")


@promise("A refused decision has no effect: stale, twice, or by somebody who may not.",
         "docs/purchases.md#approve")  # fmt: skip
def refused_decisions_do_nothing(evidence: Evidence, judged: Judged) -> None:
    for line in evidence.noted("decided"):
        if line["digest"] is not None and line["digest"].endswith("0" * 64) and line["definite"]:
            judged.holds(line["status"] != 200, f"{line['id']}: a decision on nothing was taken: {line}")
