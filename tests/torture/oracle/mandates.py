"""What holds of mandates: their limits, seen all the time and in the processor's ledger."""

from collections import defaultdict

from tests.torture.evidence import Evidence
from tests.torture.oracle.books import Books
from tests.torture.oracle.promises import Judged, promise


@promise("Spent + reserved stays within the cap at all times.", "docs/purchases.md#grant-a-mandate")
def caps_hold(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    staked = {name for name in books.mandates if books.limit_at_stake(name)}
    for line in evidence.noted("held"):
        fine = line["spent"] + line["reserved"] <= line["cap"] and line["left"] >= 0
        held = line["reserved"] > 0 and line["mandate"] in staked
        judged.holds(fine, f"{line['mandate']}: {line}", staked=held)


@promise("What is taken for a mandate's purchases stays within its limits.",
         "docs/purchases.md#grant-a-mandate")  # fmt: skip
def charges_stay_within_limits(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    taken: dict[str, list[int]] = defaultdict(list)
    for id_, view in books.purchases.items():
        taken[view["request"]["mandate_id"]] += books.charges.get(id_, [])
    for name, mandate in books.mandates.items():
        terms, amounts, staked = mandate["terms"], taken[name], books.limit_at_stake(name)
        cap, single = terms["cap"]["amount"], terms["per_payment_cap"]
        back = mandate["refunded"]["amount"] if terms["refunds_give_room"] else 0
        judged.holds(sum(amounts) - back <= cap, f"{name}: {amounts} taken, the cap is {cap}", staked=staked)
        judged.holds(
            not single or max(amounts, default=0) <= single,
            f"{name}: {amounts}, each {single}",
            staked=staked,
        )
        for constraint in terms["constraints"]:
            if constraint["type"] == "max_payments":
                few = len(amounts) <= constraint["count"] and mandate["payments"] <= constraint["count"]
                what = f"{name}: {len(amounts)} payments, {mandate['payments']} counted: {constraint}"
                judged.holds(few, what, staked=staked)


@promise("A mandate's sums are those of its reservations.", "docs/purchases.md#grant-a-mandate")
def balances_add_up(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    for name, mandate in books.mandates.items():
        spent = sum(one["spent"] - one["refunded"] for one in mandate["reservations"])
        held = sum(one["amount"] for one in mandate["reservations"] if one["state"] == "held")
        what = f"{name}: {spent} and {held} in its reservations: {mandate}"
        told = (mandate["spent"]["amount"], mandate["reserved"]["amount"])
        judged.holds((spent, held) == told, what[:600], staked=books.limit_at_stake(name))


@promise("After the end of all purchases nothing is reserved without a holder that runs.",
         "docs/purchases.md#grant-a-mandate")  # fmt: skip
def nothing_stays_reserved(evidence: Evidence, judged: Judged) -> None:
    books = Books(evidence)
    running = evidence.final.more.get("money", {}).get("running", {})
    for name, mandate in books.mandates.items():
        for one in mandate["reservations"]:
            alive = running.get(one["holder"]) == "RUNNING"
            staked = books.at_stake(one["holder"] or one["key"])
            judged.holds(one["state"] != "held" or alive, f"{name}: {one} is held by nobody", staked=staked)
