"""What API processes tell each other about a session: live text, hints of news, stops, who is connected.

A frame is a JSON object on one line. In a frame of live text, the event follows as clients receive it: it was
encoded where the agent's write came in, and is not encoded or parsed again on the way to viewers.
"""

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from waystation.models.requests import PresentPerson


@dataclass(frozen=True, slots=True)
class Delta:
    """Text of a message that is being written; ``wire`` is the event as clients receive it, in UTF-8."""

    turn_id: str | None
    attempt: int
    message_id: str
    offset: int
    length: int
    wire: bytes = b""
    after: int = 0
    """It is shown nowhere before the events up to this ``seq``."""
    kind: Literal["delta"] = "delta"


@dataclass(frozen=True, slots=True)
class Tick:
    """The session has news. ``quiet``: only text that clients have seen live has become durable."""

    quiet: bool = False
    kind: Literal["tick"] = "tick"


@dataclass(frozen=True, slots=True)
class Stopping:
    """Somebody is stopping the session: show nothing live until it is known whether the stop was taken."""

    by: str
    """The stop's request id."""
    kind: Literal["stopping"] = "stopping"


@dataclass(frozen=True, slots=True)
class Stopped:
    """The stop was taken: show nothing live until the log says what was stopped."""

    by: str
    kind: Literal["stopped"] = "stopped"


@dataclass(frozen=True, slots=True)
class NotStopped:
    """The stop could not be delivered: continue."""

    by: str
    kind: Literal["not_stopped"] = "not_stopped"


@dataclass(frozen=True, slots=True)
class Here:
    """Who is connected to one process."""

    process: str
    people: tuple[PresentPerson, ...]
    kind: Literal["presence"] = "presence"


@dataclass(frozen=True, slots=True)
class WhoIsHere:
    """A process that has just begun to follow asks the others."""

    process: str
    kind: Literal["who"] = "who"


@dataclass(frozen=True, slots=True)
class Offers:
    """What the agents connected to one process offer to begin with; told where no session is meant."""

    process: str
    starters: dict[str, tuple[str, ...]]
    kind: Literal["offers"] = "offers"


@dataclass(frozen=True, slots=True)
class WhatIsOffered:
    """A process that has just begun asks the others."""

    process: str
    kind: Literal["what"] = "what"


@dataclass(frozen=True, slots=True)
class Stirred:
    """What waits for people in a session may have changed; told to all who watch over all sessions.

    ``settles``: there may be less of it, and no more. Then it may also be a purchase or a paid request.
    """

    workflow_id: str
    settles: bool = False
    kind: Literal["stirred"] = "stirred"


LiveMessage = (
    Delta | Tick | Stopping | Stopped | NotStopped | Here | WhoIsHere | Stirred | Offers | WhatIsOffered
)

ALL_SESSIONS: Final = ""
"""In place of a session's id: what is of interest to those who watch over all of them."""


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """A message between processes. ``origin`` is its sender, which has already handled it itself."""

    message: Annotated[LiveMessage, Field(discriminator="kind")]
    origin: str = field(default="")


_FRAME: TypeAdapter[LiveFrame] = TypeAdapter(LiveFrame)
_BEHIND_THE_HEAD = {"message": {"wire"}}


def encode(message: LiveMessage, origin: str = "") -> bytes:
    """Returns a message as a frame.

    >>> decode(encode(Tick(), "me"))
    LiveFrame(message=Tick(quiet=False, kind='tick'), origin='me')
    """
    head = _FRAME.dump_json(LiveFrame(message, origin), exclude=_BEHIND_THE_HEAD)
    return head + b"\n" + message.wire if isinstance(message, Delta) else head


def decode(raw: bytes) -> LiveFrame | None:
    """Returns what a frame says, or ``None`` if it says nothing known (to a newer version, perhaps)."""
    head, _, wire = raw.partition(b"\n")
    try:
        frame = _FRAME.validate_json(head)
        if isinstance(frame.message, Delta):
            # Checked here, once: bytes that aren't text would break every socket they reached.
            wire.decode()
            return LiveFrame(_with_wire(frame.message, wire), frame.origin)
    except (ValidationError, UnicodeDecodeError):
        return None
    return frame


def _with_wire(delta: Delta, wire: bytes) -> Delta:
    # Each delta comes through here; ``dataclasses.replace`` would take three times as long.
    return Delta(
        delta.turn_id, delta.attempt, delta.message_id, delta.offset, delta.length, wire, delta.after
    )
