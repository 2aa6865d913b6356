"""What a session tells the workflow that it belongs to, and what workflows write into sessions."""

from typing import Annotated, Literal

from pydantic import Field

from waystation.models.base import Frozen
from waystation.models.events import Actor, Identifier, SessionId, Write
from waystation.models.sessions import TurnInput


class TurnGiven(Frozen):
    """A turn has begun, and is the workflow's; told again now and then, while it runs."""

    kind: Literal["turn"] = "turn"
    turn: TurnInput


class SteerGiven(Frozen):
    """Somebody has said something to the running turn."""

    kind: Literal["steer"] = "steer"
    turn_id: Identifier
    steer_id: Identifier
    text: str
    actor: Actor


class StopWanted(Frozen):
    """The turn is stopped: what it writes counts no more."""

    kind: Literal["stop"] = "stop"
    turn_id: Identifier
    reason: str | None = None


class SessionEnded(Frozen):
    """The session is closed; nothing follows."""

    kind: Literal["closed"] = "closed"
    reason: str | None = None


News = Annotated[TurnGiven | SteerGiven | StopWanted | SessionEnded, Field(discriminator="kind")]


class SessionNews(Frozen):
    """The argument of the signal ``waystation_session``, from a session to its owner."""

    session_id: SessionId
    news: News


class SessionWrite(Frozen):
    """What a workflow writes into a session."""

    session_id: SessionId
    write: Write


class QuestionRef(Frozen):
    """A question of a session."""

    session_id: SessionId
    question_id: Identifier


class WriterRef(Frozen):
    """In whose name, and into what, a workflow writes."""

    session_id: SessionId
    agent: Identifier
    turn_id: Identifier | None = None
    """Null writes outside turns."""
