"""The trail of a workflow that moves money: every step, chained by hashes. Pure."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from pydantic import JsonValue

from waystation.models.base import Frozen
from waystation.models.trail import AuditEntry, AuditTrail

GENESIS: Final = "sha256:" + "0" * 64
"""What the first entry names as the hash of the one before."""
MAX_TEXT_CHARACTERS: Final = 500
"""The longest text that an entry keeps; what people and sellers write is cut here."""


class Trail(Frozen):
    """An append-only, bounded chain of entries. Corrections are new entries.

    Notes beyond the bound are dropped, never written over older ones. What others say (signals) fills at most
    half of it, so that nobody can crowd out the workflow's own steps.
    """

    max_entries: int
    entries: tuple[AuditEntry, ...] = ()

    def noted(self, action: str, actor: str, detail: Mapping[str, JsonValue], *, time: datetime) -> "Trail":
        """Returns the trail with a step of the workflow's own."""
        return self._with(self.max_entries, action, actor, detail, time)

    def heard(self, action: str, actor: str, detail: Mapping[str, JsonValue], *, time: datetime) -> "Trail":
        """Returns the trail with what somebody else said, while there is room for that."""
        return self._with(self.max_entries // 2, action, actor, detail, time)

    def of(self, workflow_id: str) -> AuditTrail:
        """Returns the trail as people read it."""
        return AuditTrail(purchase_id=workflow_id, entries=self.entries)

    def _with(
        self, limit: int, action: str, actor: str, detail: Mapping[str, JsonValue], time: datetime
    ) -> "Trail":
        if len(self.entries) >= limit:
            return self
        entry = next_entry(self.entries, time=time, actor=actor, action=action, detail=detail)
        return Trail(max_entries=self.max_entries, entries=(*self.entries, entry))


def next_entry(
    before: Sequence[AuditEntry], *, time: datetime, actor: str, action: str, detail: Mapping[str, JsonValue]
) -> AuditEntry:
    """Returns the next entry, chained to the last one. ``None`` in ``detail`` is left out."""
    previous = before[-1].hash if before else GENESIS
    seq = before[-1].seq + 1 if before else 1
    clean = {key: _short(value) for key, value in detail.items() if value is not None}
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


def _short(value: JsonValue) -> JsonValue:
    return value[:MAX_TEXT_CHARACTERS] if isinstance(value, str) else value
