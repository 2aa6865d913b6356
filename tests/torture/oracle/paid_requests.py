"""What holds of paid requests and allowances: paid once, for what was asked, and settled."""

from collections import defaultdict
from typing import Final

from tests.torture.evidence import Evidence
from tests.torture.oracle.books import Books, Json
from tests.torture.oracle.promises import Judged, promise

EVM: Final = frozenset({"mpp-evm", "x402-exact"})


def _price(view: Json) -> int:
    return int(view["offer"]["price"]["amount"]) if view["offer"] else 0


def _by_card(view: Json) -> bool:
    return bool(view["offer"]) and view["offer"]["rail"] not in EVM


@promise(
    "A paid request is charged once, exactly its price.", "docs/paid-requests.md#what-happens-step-by-step"
)
def a_payment_is_charged_once(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    for id_, view in books.payments.items():
        charges = books.charges.get(id_, [])
        staked = bool(charges) and books.at_stake(id_)
        judged.holds(len(charges) <= 1, f"{id_}: charged {charges}", staked=staked)
        for amount in charges:
            what = f"{id_}: {amount} charged, the price is {_price(view)}"
            judged.holds(amount == _price(view), what, staked=staked)


@promise("What a paid request says about money is what the processor says.",
         "docs/paid-requests.md#what-happens-step-by-step")  # fmt: skip
def payments_tell_the_truth(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    for id_, view in books.payments.items():
        if not view["final"] or not _by_card(view):
            continue
        captured, booked, moved = books.captured(id_), books.booked(id_), view["money_moved"]
        what = f"{id_} is {view['status']}, moved {moved}: {captured} charged, {booked} booked"
        if moved == "unknown":
            judged.holds(captured <= booked + books.reserved(id_), what, staked=True)
        else:
            staked = books.at_stake(id_)
            judged.holds((moved == "yes") == (captured > 0), what, staked=staked)
            judged.holds(captured <= booked + books.reserved(id_), what, staked=staked)
            judged.holds(view["status"] == "refused" or booked == captured, what, staked=staked)


@promise("No transfer happens that no payment accounts for, and none twice.",
         "docs/paid-requests.md#what-happens-step-by-step")  # fmt: skip
def transfers_are_accounted_for(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    nonces = [(one["payer"], one["nonce"]) for one in books.transfers]
    judged.holds(len(nonces) == len(set(nonces)), f"an authorization moved money twice: {nonces}")
    by_chain = [
        _price(view)
        for view in books.payments.values()
        if view["offer"] and view["offer"]["rail"] in EVM and view["money_moved"] != "no"
    ]
    by_chain += [
        view["spent"] + view["held"]
        for view in books.allowances.values()
        if "erc20" in view["budget"]["currency"]
    ]
    moved = [one["amount"] for one in books.transfers]
    struck = sum(books.at_stake(id_) for id_, view in books.payments.items() if not _by_card(view))
    judged.holds(sum(moved) <= sum(by_chain), f"transfers of {moved}, payments of {by_chain}")
    judged.at_stake = struck


@promise("Every paid request ends.", "docs/paid-requests.md#what-happens-step-by-step")
def payments_end(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    for id_, view in books.payments.items():
        # An agent's payment waits for a person for a day, also when its turn is over.
        waits = view["status"] == "awaiting_approval" and view["session_id"] is not None
        what = f"{id_} is {view['status']} at the end"
        judged.holds(view["final"] or waits, what, staked=books.at_stake(id_))


@promise("The answer to a paid request is what was paid for.", "docs/paid-requests.md#buying")
def payers_get_what_they_paid_for(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    limits = {line["id"]: line["asked"]["request"]["max_price"] for line in evidence.noted("pay")}
    for line in evidence.noted("paid"):
        outcome, what = line["outcome"], f"{line['id']}: {line['subject']} asked for, got {line['outcome']}"
        if outcome["status"] == "delivered":
            staked = books.at_stake(line["id"])
            judged.holds(outcome["answered"] is not None, what, staked=staked)
            judged.holds(outcome["subject"] in (None, line["subject"]), what, staked=staked)
        limit, price = limits.get(line["id"]), outcome["price"]
        if price and limit and outcome["money_moved"] != "no":
            fine = price["currency"] == limit["currency"] and price["amount"] <= limit["amount"]
            judged.holds(fine, f"{what}, at most {limit}")
        if outcome["status"] in ("refused", "free", "failed"):
            judged.holds(outcome["money_moved"] == "no", what)


@promise("What an agent fetches is what it paid for; a retried turn gets it again without paying again.",
         "docs/paid-requests.md#many-small-payments")  # fmt: skip
def agents_get_what_they_paid_for(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    for line in evidence.noted("fetched"):
        if line["answered"] == 200:
            fine = line["got"] in (None, line["subject"])
            staked = line["attempt"] > 1 or books.at_stake(line["id"] or "")
            judged.holds(fine, f"{line['subject']} wanted, got {line['got']}", staked=staked)


@promise("An approval of a payment is of the terms that were shown, by somebody who may.",
         "docs/paid-requests.md#what-happens-step-by-step")  # fmt: skip
def payments_are_approved(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    asked = {line["id"]: line["asked"]["request"]["mandate_id"] for line in evidence.noted("pay")}
    for id_, view in books.payments.items():
        terms = books.mandates.get(asked.get(id_, ""), {}).get("terms")
        captured = books.captured(id_)
        if not captured or terms is None:
            continue
        who = view["approved_by"]
        by_itself = captured <= terms["approval_threshold"]
        allowed = who is not None and (not terms["approvers"] or who in terms["approvers"])
        judged.holds(
            by_itself or allowed,
            f"{id_}: {captured} paid, approved by {who}: {terms}",
            staked=books.at_stake(id_),
        )
        if not by_itself:
            said = [
                line for line in evidence.noted("decided")
                if (line["id"], line["who"], line["verdict"]) == (id_, who, "approve")
                if line["digest"] == view["terms_digest"] and (line["status"] == 200 or not line["definite"])
            ]  # fmt: skip
            judged.holds(bool(said), f"{id_}: {who} has not approved {view['terms_digest']}")


@promise("Every allowance is settled, with what was spent booked and the rest free again.",
         "docs/paid-requests.md#many-small-payments")  # fmt: skip
def allowances_are_settled(evidence: Evidence, judged: Judged) -> None:
    books, running = Books(evidence), evidence.final.more.get("money", {}).get("running", {})
    for id_, view in books.allowances.items():
        what, staked = f"{id_}: {view}"[:500], books.at_stake(id_) or books.was_left(id_)
        judged.holds(view["spent"] + view["held"] <= view["budget"]["amount"], what, staked=staked)
        judged.holds(not view["open"], f"{what} is open", staked=staked)
        # A holder that never comes back is waited for: an hour after its lease.
        ended = running.get(id_) != "RUNNING" or view["holder"] is not None
        judged.holds(ended, f"{what} runs", staked=staked)
        if running.get(id_) == "COMPLETED":
            booked = books.booked(id_)
            fine = booked == view["spent"] and books.reserved(id_) == 0
            judged.holds(fine, f"{what}, {booked} booked", staked=staked)


@promise("What is charged within an allowance stays within its budget, and each key is charged once.",
         "docs/paid-requests.md#many-small-payments")  # fmt: skip
def allowances_are_charged_once(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    for id_, view in books.allowances.items():
        if view["budget"]["currency"] != "usd":
            continue
        keys = {whose: amounts for whose, amounts in books.charges.items() if whose.startswith(f"{id_}:")}
        staked = bool(keys) and (books.at_stake(id_) or books.was_left(id_))
        for whose, amounts in keys.items():
            judged.holds(len(amounts) <= 1, f"{whose} was charged {amounts}", staked=staked)
        taken = sum(map(sum, keys.values()))
        what = f"{id_}: {taken} taken, {view}"[:500]
        judged.holds(taken <= view["budget"]["amount"], what, staked=staked)
        # A holder that has not come back yet may have paid what it was leased.
        judged.holds(taken <= view["spent"] + view["held"], what, staked=staked)
        moved = [one["detail"].get("money_moved") for one in books.trails.get(id_, [])]
        if not view["holder"] and "unknown" not in moved and not books.actions(id_, "holder.lost"):
            judged.holds(taken == view["spent"], f"{what}, and all of it is known", staked=staked)


@promise("A turn that is tried again goes on with its allowances, as long as they last.",
         "docs/paid-requests.md#many-small-payments")  # fmt: skip
def allowances_stay_open_for_their_turn(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    for line in evidence.noted("fetched", "fetch_refused"):
        allowance = (line["id"] or "").partition(":")[0]
        if allowance not in books.allowances:
            continue
        closed = line["op"] == "fetch_refused" and line["rule"] == "AllowanceClosed"
        why = books.actions(allowance, "mandate.revoked", "allowance.ended", "allowance.refused")
        fine = not closed or bool(why) or books.allowances[allowance]["refusal"] is not None
        judged.holds(
            fine, f"{line}, and {allowance} was neither revoked nor over", staked=line["attempt"] > 1
        )


@promise("A program that pays goes on where it was killed: the same id is paid once, with one answer.",
         "docs/paid-requests.md#buying")  # fmt: skip
def programs_pay_once(evidence: Evidence, judged: Judged) -> None:
    answers: dict[str, set[tuple[str | None, int | None]]] = defaultdict(set)
    often: dict[str, int] = defaultdict(int)
    for line in evidence.noted("sdk_paid"):
        if line["answered"] == 200:
            fine = line["got"] in (None, line["subject"])
            judged.holds(fine, f"{line['id']}: {line['subject']} wanted, got {line['got']}", staked=False)
        if line["moved"] == "yes":
            often[line["id"]] += 1
            answers[line["id"]].add((line["got"], line["run"]))
    for id_, got in answers.items():
        judged.holds(len(got) == 1, f"{id_} has several answers: {got}", staked=often[id_] > 1)
    for line in evidence.noted("sdk_never_done"):
        judged.holds(False, f"{line['program']} was never done")
