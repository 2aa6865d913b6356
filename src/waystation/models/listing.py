"""What a list says of a session without asking it: its workflow keeps that where Temporal's lists have it."""

from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import Field

from waystation.models.base import FrozenOpen
from waystation.models.events import Actor, Role

MAX_LINE_CHARACTERS: Final = 160
MAX_LISTED_PEOPLE: Final = 8


class ListedStatus(StrEnum):
    """What a session in a list is doing; the first that fits, from below."""

    IDLE = "idle"
    FAILED = "failed"
    """It is idle, and its last turn has failed."""
    RUNNING = "running"
    WAITING = "waiting"
    """It waits for a person: an answer, an approval of a tool, a cart or a payment."""
    PAUSED = "paused"
    """A person has taken over."""
    CLOSED = "closed"


class Awaited(FrozenOpen):
    """Whose answer a session waits for: anybody who answers in one of the roles, or one of the people."""

    roles: tuple[str, ...] = ()
    people: tuple[Actor, ...] = ()
    """With their names, where the session knows them."""


class LastLine(FrozenOpen):
    """The beginning of the last message, in one line."""

    text: str = Field(max_length=MAX_LINE_CHARACTERS)
    actor: Actor


class SessionRow(FrozenOpen):
    """What a session's memo says of it for lists, encrypted as everything else."""

    awaited: Awaited | None = None
    people: tuple[Actor, ...] = ()
    """Who has taken part or written, the latest first; the first few."""
    people_count: int = 0
    taken_over_by: Actor | None = None
    last_line: LastLine | None = None
    assigned_to: Actor | None = None
    """Who looks after it; for staff."""


def one_line(text: str) -> str:
    """Returns the beginning of a text, in one line.

    >>> one_line("Yes.  \\n\\n It has\\tarrived.")
    'Yes. It has arrived.'
    """
    line = " ".join(text[: 4 * MAX_LINE_CHARACTERS].split())
    return line if len(line) <= MAX_LINE_CHARACTERS else line[: MAX_LINE_CHARACTERS - 1] + "…"


def in_odd_milliseconds(time: datetime) -> datetime:
    """Returns a time as lists compare it, in an odd number of milliseconds.

    The store of Temporal's dev server compares times as text, and leaves out zeros at the end: there, 12.5 s
    is later than 12.501 s.
    """
    return time.replace(microsecond=(time.microsecond // 1_000 | 1) * 1_000)


def as_person(person_id: str, known: Actor | None) -> Actor:
    """Returns somebody who is asked for by id, with the name under which the session knows them."""
    return known or Actor(id=person_id, role=Role.USER)
