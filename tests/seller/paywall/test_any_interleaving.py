"""A paywall's entries and journals under any interleaving of workers, of which some know an older version."""

import asyncio
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.seller.paywall.test_journal import entry, redis_url
from tests.support import examples
from waystation.models.payments import Rail
from waystation.seller.paywall import journal as sqlite_journal
from waystation.seller.paywall import redis_journal
from waystation.seller.paywall.entries import Charge, Entry, EntryState, Lease, Refund, StoredAnswer
from waystation.seller.paywall.journal import FORGETTABLE, Journal, SqliteJournal, every_in_state
from waystation.seller.paywall.redis_journal import RedisJournal

__all__ = ["redis_url"]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAGE = 2
KEYS = st.sampled_from("abcde")
MOMENTS = st.integers(0, 3).map(lambda seconds: NOW + timedelta(seconds=seconds))
"""Few, so that several entries are of the same one."""
ANSWER = StoredAnswer(status=200, headers=(), body_base64="")

FOLLOWS = {
    EntryState.CLAIMED: {EntryState.CLAIMED, EntryState.CHARGED, EntryState.REFUSED},
    EntryState.CHARGED: {EntryState.CHARGED, EntryState.DELIVERED, EntryState.REFUNDING},
    EntryState.REFUNDING: {EntryState.REFUNDING, EntryState.DELIVERED},
    EntryState.DELIVERED: {EntryState.DELIVERED},
    EntryState.REFUSED: set(),
    EntryState.NAMED: {EntryState.NAMED},
}
"""As the docstring of ``entries`` tells a payment's life."""

STEPS: dict[str, Callable[[Entry], Entry]] = {
    "take": lambda one: one.taken(Lease(owner="a", until=NOW)),
    "renew": lambda one: one.renewed(Lease(owner="a", until=NOW)),
    "charge": lambda one: one.charged(Charge(reference="pi", charged_at=NOW)),
    "refuse": lambda one: one.refused("no"),
    "leave unclear": lambda one: one.left_unclear("?", "0x1"),
    "fail to deliver": lambda one: one.undelivered(),
    "deliver": lambda one: one.delivered(ANSWER),
    "deliver what is too large": lambda one: one.delivered(None),
    "begin a refund": lambda one: one.refunding(ANSWER),
    "refund": lambda one: one.refunded(Refund(reference="re", refunded_at=NOW)),
}


def is_new(one: Entry) -> bool:
    """Whether a payment is just being written down: then it gets its name."""
    return one.state is EntryState.CLAIMED and one.version == 0


class Paywall(RuleBasedStateMachine):
    """Two replicas of a journal, beside a dict that says what it must hold."""

    make: Callable[[], tuple[Journal, Journal]]

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.replicas = self.make()
        self.held: dict[str, Entry] = {}
        self.versions: list[Entry] = []
        """Every entry that was ever read or made: what a worker may still believe."""
        self.turn = 0

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            for one in self.replicas:
                self.runner.run(one.close())
            self.runner.close()

    def journal(self) -> Journal:
        self.turn += 1
        return self.replicas[self.turn % 2]

    def insert(self, made: Entry) -> None:
        fresh = made.key not in self.held
        assert self.runner.run(self.journal().insert(made)) == fresh
        if fresh:
            self.held[made.key] = made
            self.versions.append(made)

    def replace(self, before: Entry, after: Entry) -> None:
        current = self.held.get(after.key)
        wins = current is not None and current.version == after.version - 1
        assert self.runner.run(self.journal().replace(after)) == wins
        if not wins:
            return
        assert current is not None
        if before == current:  # a worker that isn't outdated, or was by nothing that matters
            assert after.state in FOLLOWS[current.state]
        self.held[after.key] = after
        self.versions.append(after)

    @rule(key=KEYS, created_at=MOMENTS)
    def claim(self, key: str, created_at: datetime) -> None:
        self.insert(entry(key, created_at))

    @precondition(lambda self: self.versions)
    @rule(step=st.sampled_from(sorted(STEPS)), data=st.data())
    def work(self, step: str, data: st.DataObject) -> None:
        known = data.draw(st.sampled_from(self.versions))
        try:
            after = STEPS[step](known)
        except (ValueError, AssertionError):
            # The entry itself knows what must not follow: nothing after a refusal, no second answer.
            assert known.state is not EntryState.CLAIMED or step not in ("take", "charge", "refuse")
            return
        assert after.state in FOLLOWS[known.state]
        assert known.charge is None or after.charge == known.charge
        assert known.answer is None or after.answer == known.answer
        self.replace(known, after)

    @precondition(lambda self: any(map(is_new, self.versions)))
    @rule(name=st.sampled_from(["n1", "n2"]), data=st.data())
    def name(self, name: str, data: st.DataObject) -> None:
        payment = data.draw(st.sampled_from(list(filter(is_new, self.versions))))
        known = self.held.get(name)
        if known is None:
            self.insert(payment.named(name))
        else:
            self.replace(known, known.renamed(payment))

    @rule(before=MOMENTS)
    def forget(self, before: datetime) -> None:
        gone = [one.key for one in self.held.values() if one.state in FORGETTABLE and one.created_at < before]
        assert self.runner.run(self.journal().forget(delivered_before=before)) == len(gone)
        for key in gone:
            del self.held[key]
        self.versions = [one for one in self.versions if one.key in self.held]

    @rule(state=st.sampled_from(list(EntryState)), before=MOMENTS)
    def list_all(self, state: EntryState, before: datetime) -> None:
        there = [one for one in self.held.values() if one.state is state and one.created_at < before]
        found = self.runner.run(every_in_state(self.journal(), state, created_before=before))
        assert list(found) == sorted(there, key=lambda one: (one.created_at, one.key))

    @invariant()
    def both_replicas_hold_what_was_acknowledged(self) -> None:
        for key, one in getattr(self, "held", {}).items():
            assert self.runner.run(self.journal().load(key)) == one

    @invariant()
    def money_that_moved_is_answered_for(self) -> None:
        for one in getattr(self, "held", {}).values():
            assert one.rail is Rail.MPP_STRIPE
            assert not (one.state is EntryState.REFUSED and one.charge)
            assert one.refund is None or (one.charge and one.answer)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_journal_holds_what_it_has_acknowledged_whoever_writes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for module in (sqlite_journal, redis_journal):
        monkeypatch.setattr(module, "MAX_OPEN_ENTRIES_PER_READ", PAGE)
    url = request.getfixturevalue("redis_url") if kind == "redis" else ""

    def sqlite() -> tuple[Journal, Journal]:
        path = tmp_path / f"{secrets.token_hex(8)}.sqlite3"
        return SqliteJournal(path), SqliteJournal(path)

    def redis() -> tuple[Journal, Journal]:
        prefix = secrets.token_hex(8)
        return RedisJournal(url, prefix=prefix), RedisJournal(url, prefix=prefix)

    class Machine(Paywall):
        make = staticmethod(redis if kind == "redis" else sqlite)

    # SQLite writes to the disk each time, and disks are slow.
    usual = {"sqlite": 10, "redis": 40}[kind]
    bounds = settings(max_examples=examples(usual), stateful_step_count=30)
    run_state_machine_as_test(Machine, settings=bounds)  # type: ignore[no-untyped-call]
