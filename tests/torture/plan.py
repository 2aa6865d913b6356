"""What a run does, made from a seed: who acts, and what goes wrong when. Pure. A plan is JSON."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

Settings = dict[str, Any]


@dataclass(frozen=True)
class Actor:
    """Somebody who acts from ``begins_seconds`` on, for ``lasts_seconds``; ``actors`` has each ``kind``."""

    name: str
    kind: str
    begins_seconds: float
    lasts_seconds: float
    session: str | None = None
    settings: Settings = field(default_factory=dict)

    def stream(self, seed: int) -> random.Random:
        """Returns the actor's own random numbers, which no other actor changes."""
        return stream(seed, self.name)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong; ``kind`` is a function in ``faults``, ``target`` a process or a proxy."""

    name: str
    kind: str
    target: str
    at_seconds: float
    lasts_seconds: float = 0.0
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A run: replayed, it does the same again, as far as real processes can."""

    seed: int
    seconds: float
    profile: str
    actors: tuple[Actor, ...] = ()
    faults: tuple[Fault, ...] = ()
    settings: Settings = field(default_factory=dict)
    """Of the processes: variables that the product documents, beside those of every run."""

    def without(self, names: Sequence[str]) -> "Plan":
        """Returns the plan without these actors and faults; those that stay do what they did."""
        gone = set(names)
        return replace(
            self,
            actors=tuple(actor for actor in self.actors if actor.name not in gone),
            faults=tuple(fault for fault in self.faults if fault.name not in gone),
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        read = json.loads(text)
        actors = tuple(Actor(**actor) for actor in read.pop("actors"))
        faults = tuple(Fault(**fault) for fault in read.pop("faults"))
        return cls(**read, actors=actors, faults=faults)

    @classmethod
    def read(cls, path: Path) -> "Plan":
        return cls.from_json(path.read_text())


Profile = Callable[[int, float], Plan]
"""Makes a plan from a seed and a number of seconds; ``profiles`` has them by name."""


def stream(seed: int, name: str) -> random.Random:
    """Returns random numbers that depend on the seed and the name alone."""
    return random.Random(f"{seed}/{name}")
