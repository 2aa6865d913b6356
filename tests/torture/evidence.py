"""What a run leaves: its plan, the record, and what can be read at the end. The oracle judges from this."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tests.torture.plan import Plan
from tests.torture.record import Line, read_record

Event = dict[str, Any]
SIGNS_OF_A_FAULT: Final = (
    '"lastFailure"', "EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT",
    "EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT", "EVENT_TYPE_WORKFLOW_TASK_FAILED",
)  # fmt: skip
"""In a history: a call that was made again, or a worker that was lost."""


@dataclass
class FinalSession:
    """A session as it reads at the end, by each way."""

    name: str
    log: list[Event] = field(default_factory=list)
    """The workflow's own replay, asked of Temporal without any API between."""
    replays: dict[str, list[Event]] = field(default_factory=dict)
    """The replay of each API process."""
    transcripts: dict[str, Any] = field(default_factory=dict)
    snapshots: dict[str, Any] = field(default_factory=dict)
    workflow: str = ""
    """How its workflow stands in Temporal: RUNNING, COMPLETED, …"""
    unreadable: str | None = None


@dataclass
class Final:
    """Everything that is read after the last fault."""

    sessions: list[FinalSession] = field(default_factory=list)
    histories: dict[str, str] = field(default_factory=dict)
    """What Temporal's histories hold, as text, by workflow."""
    replayed: dict[str, str | None] = field(default_factory=dict)
    """What came of replaying each history with the workflows' code: ``None``, or why it failed."""
    secrets: dict[str, str] = field(default_factory=dict)
    """What must appear nowhere, by what it is."""
    ended: dict[str, float | None] = field(default_factory=dict)
    """How many seconds each process took to end at SIGTERM, when all was calm."""
    more: dict[str, Any] = field(default_factory=dict)
    """What profiles other than sessions read, by their own names."""


@dataclass
class Evidence:
    """All of it. ``logs`` are the processes' outputs."""

    plan: Plan
    lines: list[Line]
    final: Final
    logs: dict[str, str] = field(default_factory=dict)

    @cached_property
    def by_operation(self) -> dict[str, list[Line]]:
        found = defaultdict(list)
        for line in self.lines:
            found[line["op"]].append(line)
        return found

    def noted(self, *operations: str) -> Iterator[Line]:
        """Yields the lines of these operations, in the order in which they were noted."""
        for operation in operations:
            yield from self.by_operation.get(operation, [])

    @cached_property
    def readable(self) -> dict[str, FinalSession]:
        """The sessions that can be read, by name."""
        return {session.name: session for session in self.final.sessions if not session.unreadable}

    @cached_property
    def sessions(self) -> dict[str, FinalSession]:
        """Those that nobody has reset: what a session does by its clock begins anew with a reset."""
        reset = {line["session"] for line in self.noted("resets")}
        return {name: session for name, session in self.readable.items() if name not in reset}

    @cached_property
    def fault_times(self) -> list[tuple[float, float, Line]]:
        """When each fault began and ended, also of those that found nothing to strike."""
        ended = {line["fault"]: line["at"] for line in self.noted("fault_over")}
        return [(line["at"], ended.get(line["fault"], line["at"]), line) for line in self.noted("fault")]

    @cached_property
    def counted_faults(self) -> list[Line]:
        """The faults that struck something that was going on."""
        struck = {line["fault"] for line in self.noted("fault_over") if line["struck"]}
        return [line for line in self.noted("fault") if line["fault"] in struck]

    @cached_property
    def clock_difference_seconds(self) -> float:
        """How far the time of day is ahead of the clock of the record."""
        begin = next(self.noted("begin"), None)
        return begin["wall"] - begin["at"] if begin else 0.0

    @cached_property
    def struck(self) -> Counter[str]:
        """How often a call of each workflow failed and was made again, or its worker was lost, by its id."""
        found: Counter[str] = Counter()
        for name, text in self.final.histories.items():
            found[name.rpartition("@")[0]] += sum(text.count(sign) for sign in SIGNS_OF_A_FAULT)
        return found

    def moment(self, time: str) -> float:
        """Returns an event's time on the clock of the record."""
        return datetime.fromisoformat(time).timestamp() - self.clock_difference_seconds

    def troubled(self, target: str, begin: float, end: float, margin_seconds: float = 0.0) -> bool:
        """Returns whether a fault struck the target (a prefix of its name) between two moments."""
        return any(
            (line["target"].startswith(target) or target.startswith(line["target"] + "-"))
            and started - margin_seconds <= end
            and begin <= over + margin_seconds
            for started, over, line in self.fault_times
        )

    def keep(self, folder: Path) -> None:
        """Writes what isn't in the folder yet."""
        (folder / "final.json").write_text(json.dumps(asdict(self.final)))

    @classmethod
    def read(cls, folder: Path) -> "Evidence":
        """Reads what a run has left in its folder."""
        final = json.loads((folder / "final.json").read_text())
        sessions = [FinalSession(**session) for session in final.pop("sessions")]
        return cls(
            plan=Plan.read(folder / "plan.json"),
            lines=list(read_record(folder / "record.jsonl")),
            final=Final(sessions=sessions, **final),
            logs={path.stem: path.read_text(errors="replace") for path in folder.glob("*.log")},
        )
