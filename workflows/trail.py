"""The trail of a workflow that moves money: every step, chained by hashes. Pure."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from pydantic import JsonValue

from waystation.models.base import Frozen, replaced
from waystation.models.trail import AuditEntry, AuditTrail, RepeatedAnswers

GENESIS: Final = "sha256:" + "0" * 64
"""What the first entry names as the hash of the one before."""
MAX_TEXT_CHARACTERS: Final = 500
"""The longest text that an entry keeps; what people and sellers write is cut here."""


class Trail(Frozen):
    """An append-only, bounded chain of entries. Corrections are new entries.

    Notes beyond the bound are dropped, never written over older ones. What others say (signals) fills at most
    half of it and the answers to calls seven eighths, so that nobody can crowd out the workflow's own steps.
    """

    max_entries: int
    entries: tuple[AuditEntry, ...] = ()
    repeated: tuple[RepeatedAnswers, ...] = ()
    """The last answer to each call, and how often it came again since its entry."""

    def noted(self, action: str, actor: str, detail: Mapping[str, JsonValue], *, time: datetime) -> "Trail":
        """Returns the trail with a step of the workflow's own."""
        return self._with(self.max_entries, action, actor, detail, time)

    def heard(self, action: str, actor: str, detail: Mapping[str, JsonValue], *, time: datetime) -> "Trail":
        """Returns the trail with what somebody else said, while there is room for that."""
        return self._with(self.max_entries // 2, action, actor, detail, time)

    def called(self, action: str, actor: str, detail: Mapping[str, JsonValue], *, time: datetime) -> "Trail":
        """Returns the trail with a call's answer; one that says the same again is counted.

        An answer for which there is no room any more is counted too, so that none is lost.
        """
        clean = _clean(detail)
        known = next((one for one in self.repeated if one.action == action), None)
        if known is not None and (_same(known.detail, clean) or not self._takes_answers):
            again = {"detail": clean, "count": known.count + 1, "last": time}
            return self._repeating(
                action, replaced(known, first=known.first if known.count else time, **again)
            )
        after = self._summed_up(action, time=time) if known is not None and known.count else self
        noted = after._with(after._answers_limit, action, actor, clean, time)
        count = 0 if noted is not after else 1
        fresh = RepeatedAnswers(actor=actor, action=action, detail=clean, count=count, first=time, last=time)
        return noted._repeating(action, fresh)

    def summed_up(self, *, time: datetime) -> "Trail":
        """Returns the trail with an entry for each series of answers that were only counted."""
        after = self
        for one in self.repeated:
            after = after._summed_up(one.action, time=time)
        return after

    def of(self, workflow_id: str) -> AuditTrail:
        """Returns the trail as people read it."""
        repeated = tuple(one for one in self.repeated if one.count)
        return AuditTrail(purchase_id=workflow_id, entries=self.entries, repeated=repeated)

    @property
    def _answers_limit(self) -> int:
        return self.max_entries - self.max_entries // 8

    @property
    def _takes_answers(self) -> bool:
        return len(self.entries) < self._answers_limit

    def _summed_up(self, action: str, *, time: datetime) -> "Trail":
        known = next(one for one in self.repeated if one.action == action)
        after = self._repeating(action, None)
        if not known.count:
            return after
        times: dict[str, JsonValue] = {
            "times": known.count,
            "first": known.first.isoformat(),
            "last": known.last.isoformat(),
        }
        return after._with(after.max_entries, action, known.actor, {**known.detail, **times}, time)

    def _repeating(self, action: str, answers: RepeatedAnswers | None) -> "Trail":
        others = tuple(one for one in self.repeated if one.action != action)
        return replaced(self, repeated=others if answers is None else (*others, answers))

    def _with(
        self, limit: int, action: str, actor: str, detail: Mapping[str, JsonValue], time: datetime
    ) -> "Trail":
        if len(self.entries) >= limit:
            return self
        entry = next_entry(self.entries, time=time, actor=actor, action=action, detail=detail)
        return replaced(self, entries=(*self.entries, entry))


def next_entry(
    before: Sequence[AuditEntry], *, time: datetime, actor: str, action: str, detail: Mapping[str, JsonValue]
) -> AuditEntry:
    """Returns the next entry, chained to the last one. ``None`` in ``detail`` is left out."""
    previous = before[-1].hash if before else GENESIS
    seq = before[-1].seq + 1 if before else 1
    clean = _clean(detail)
    return AuditEntry(
        seq=seq,
        time=time,
        actor=actor,
        action=action,
        detail=clean,
        previous=previous,
        hash=_hash(seq, time, actor, action, clean, previous),
    )


def verify(entries: Sequence[AuditEntry]) -> bool:
    """Returns whether the chain is whole: nothing changed, left out, or put in between."""
    previous = GENESIS
    for number, entry in enumerate(entries, start=1):
        expected = _hash(entry.seq, entry.time, entry.actor, entry.action, entry.detail, previous)
        if entry.seq != number or entry.previous != previous or entry.hash != expected:
            return False
        previous = entry.hash
    return True


def canonical(facts: object) -> str:
    """Returns JSON with sorted keys and no blanks: the text that digests and hashes cover."""
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _hash(
    seq: int, time: datetime, actor: str, action: str, detail: Mapping[str, JsonValue], previous: str
) -> str:
    facts = [seq, time.isoformat(), actor, action, dict(detail), previous]
    return "sha256:" + hashlib.sha256(canonical(facts).encode()).hexdigest()


def _clean(detail: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {key: _short(value) for key, value in detail.items() if value is not None}


def _same(known: Mapping[str, JsonValue], said: Mapping[str, JsonValue]) -> bool:
    """Whether two answers say the same: each has a request id of its own."""
    return {**known, "request_id": None} == {**said, "request_id": None}


def _short(value: JsonValue) -> JsonValue:
    return value[:MAX_TEXT_CHARACTERS] if isinstance(value, str) else value
