"""What sessions tell a workflow, and how far it has numbered what it writes: one inbox for each workflow."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from temporalio import workflow

from waystation.models.owners import (
    SessionEnded,
    SessionNews,
    SteerGiven,
    StopWanted,
    TurnGiven,
)
from waystation.models.questions import QuestionOutcome
from waystation.models.sessions import TurnEnded, TurnInput
from waystation.temporal.messages import ASKER_ANSWERED, OWNER_NEWS

MAX_ENDED = 100
"""Turns whose end is remembered, in case the session asks for them again."""


@dataclass
class SessionInbox:
    """What one session has told this workflow, and this workflow's place in it."""

    begun: bool = False
    """Whether this run has started the session or has asked what runs: it is told of all that follows."""
    closed: bool = False
    waiting: deque[TurnInput] = field(default_factory=deque)
    """Turns that nobody has taken up."""
    known: set[str] = field(default_factory=set)
    """Turns that were given: they may be told of again."""
    stopped: set[str] = field(default_factory=set)
    ended: dict[str, TurnEnded] = field(default_factory=dict)
    """How the last turns have ended here."""
    untold: deque[TurnEnded] = field(default_factory=deque)
    """Ends of which the session does not know: it was reset, say."""
    steers: list[SteerGiven] = field(default_factory=list)
    """What was said to a turn that has not taken it up."""
    steers_known: set[str] = field(default_factory=set)
    stop_turn: dict[str, Callable[[], None]] = field(default_factory=dict)
    """How to stop each turn that is under way."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """What is written at the same time is recorded in the order in which it is numbered."""
    numbered: int = 0

    def take(self, news: TurnGiven | SteerGiven | StopWanted | SessionEnded) -> None:
        """Takes note; what was told before changes nothing."""
        match news:
            case TurnGiven(turn=turn) if turn.turn_id not in self.known:
                self.known.add(turn.turn_id)
                self.waiting.append(turn)
            case TurnGiven(turn=turn) if turn.turn_id in self.ended:
                self.untold.append(self.ended[turn.turn_id])
            case SteerGiven() if news.steer_id not in self.steers_known:
                self.steers_known.add(news.steer_id)
                self.steers.append(news)
            case StopWanted() if news.turn_id not in self.stopped:
                self.stopped.add(news.turn_id)
                if stop := self.stop_turn.get(news.turn_id):
                    stop()
            case SessionEnded():
                self.closed = True
            case _:
                pass

    def note_end(self, ended: TurnEnded) -> None:
        """Remembers how a turn has ended here."""
        self.ended[ended.turn_id] = ended
        if len(self.ended) > MAX_ENDED:
            del self.ended[next(iter(self.ended))]


class Inbox:
    """The handler of the signal that sessions send to their owner."""

    def __init__(self) -> None:
        self.sessions: dict[str, SessionInbox] = {}
        self.settled: dict[str, QuestionOutcome] = {}
        """What became of questions that somebody here waits for, or has not begun to."""

    def take(self, told: SessionNews) -> None:
        """Takes the signal."""
        self.of(told.session_id).take(told.news)

    def take_answer(self, outcome: QuestionOutcome) -> None:
        """Takes the signal that a question was answered, has expired or was withdrawn."""
        self.settled.setdefault(outcome.question_id, outcome)

    def of(self, session_id: str) -> SessionInbox:
        """Returns what one session has told."""
        return self.sessions.setdefault(session_id, SessionInbox())


def inbox() -> Inbox:
    """Returns this workflow's inbox; the first call takes in what has come before.

    It is kept where the SDK keeps handlers, so that it belongs to this run of this workflow alone.
    """
    handler = workflow.get_signal_handler(OWNER_NEWS.name)
    known = getattr(handler, "__self__", None)
    if isinstance(known, Inbox):
        return known
    made = Inbox()
    workflow.set_signal_handler(OWNER_NEWS.name, made.take)
    workflow.set_signal_handler(ASKER_ANSWERED.name, made.take_answer)
    return made
