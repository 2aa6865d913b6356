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
FORGER: Final = "forger"
EXPECTED_FAILURES: Final = frozenset({"PurchaseIdTaken", "CancelledError"})
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
                what = f"{id_}: answered 2xx, and there is no such thing in {kind}"
                judged.holds(there, what, staked=len(lines) > 1)
            if all(_refused(line) for line in lines):
                judged.holds(
                    not there, f"{id_}: refused {[line['status'] for line in lines]}, and there", staked=True
                )


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
    books = Books(evidence)
    for id_, entries in books.trails.items():
        read = [AuditEntry.model_validate(entry) for entry in entries]
        judged.holds(verify(read), f"{id_}: its trail is broken", staked=books.at_stake(id_))


@promise("A token or key is in no history, even where that is decrypted.", "docs/trust.md")
def secrets_are_sealed_in_histories(evidence: Evidence, judged: Judged) -> None:
    clear = evidence.final.more.get("money", {}).get("clear", {})
    for what, secret in evidence.final.secrets.items():
        for where, text in clear.items():
            judged.holds(secret not in text, f"{what} is in the decrypted history of {where}")


@promise("Nobody spends, grants or decides what is not theirs to.", "docs/trust.md")
def nothing_is_stolen(evidence: Evidence, judged: Judged) -> None:
    books, running = Books(evidence), evidence.final.more.get("money", {}).get("running", {})
    for line in evidence.noted("attacked"):
        if "made" in line:
            judged.holds(line["made"] not in running, f"{line['role']} has made {line['made']}")
    for line in evidence.noted("forged"):
        view = books.purchases.get(line["id"]) or books.payments.get(line["id"]) or {}
        who = view.get("approved_by") or (view.get("approval") or {}).get("approver")
        judged.holds(who != FORGER, f"{line['id']}: the forged {line['signal']} counts")
        counted = books.actions(line["id"], "approval.received", "rejection.received")
        judged.holds(FORGER not in [entry["actor"] for entry in counted], f"{line['id']}: {counted}")


@promise("A workflow of one's own is told what came of its purchase.",
         "docs/purchases.md#from-your-own-workflows")  # fmt: skip
def errands_are_told_the_truth(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    for line in evidence.noted("errand"):
        view = books.purchases.get(line["id"])
        if "status" in line:
            fine = view is not None and (view["status"], view["money_moved"]) == (
                line["status"], line["money_moved"],
            )  # fmt: skip
            judged.holds(fine, f"{line['id']}: told {line['status']}, and it is {view and view['status']}")
        else:
            judged.holds(line.get("failed") in EXPECTED_FAILURES, f"{line['id']}: {line}")


@promise("A refused decision has no effect: stale, twice, or by somebody who may not.",
         "docs/purchases.md#approve")  # fmt: skip
def refused_decisions_do_nothing(evidence: Evidence, judged: Judged) -> None:
    for line in evidence.noted("decided"):
        if line["digest"] is not None and line["digest"].endswith("0" * 64) and line["definite"]:
            judged.holds(line["status"] != 200, f"{line['id']}: a decision on nothing was taken: {line}")


@promise("An order event without its seller's signature is refused, and one that can't be read harms nobody.",
         "docs/purchases.md#webhooks")  # fmt: skip
def order_events_are_signed(evidence: Evidence, judged: Judged) -> None:
    for line in evidence.noted("order_event"):
        if line["proxied"]:
            continue
        status, what = line["status"], str(line)
        judged.holds(status < 500 or status == 503, what, staked=True)
        if line["known_as_wrong"]:
            judged.holds(status in (401, 503), what, staked=True)
