"""The course of a session's turns: which one begins, waits, is retried or stopped, and how it ends.

Pure, like the log: no Temporal, no clock of its own, no I/O. What has to be awaited waits in
``launch`` and ``cancel`` of the state, where the workflow takes it up.
"""

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Literal

from pydantic import JsonValue

from waystation.models.events import SYSTEM, Actor, Event, EventType, Role
from waystation.models.owners import News, SessionEnded, StopWanted, TurnGiven
from waystation.models.sessions import (
    MAX_QUEUED_TURNS,
    Close,
    Outcome,
    TurnAttempt,
    TurnEnded,
    TurnInput,
    TurnWaiting,
)
from workflows.policies import CHECK_TURNS_EVERY, TURN_REPORT_MARGIN
from workflows.session.log import SessionLog
from workflows.session.people import People
from workflows.session.purchases import Purchases
from workflows.session.questions import Questions
from workflows.session.turn_state import Identity, TurnsState, TurnState, remember

_UNDER_WAY = ("running", "waiting")
_WHY_WITHDRAWN = {"stopped": "turn_stopped", "failed": "turn_failed", "completed": "turn_completed"}
_SAYS_NOTHING_OF_THE_AGENT = frozenset(
    {"agent_unavailable", "turn_not_started", "turn_lost", "stopped", None}
)


class TurnCourse:
    """Decides what becomes of each turn, and records it."""

    def __init__(
        self,
        state: TurnsState,
        identity: Identity,
        log: SessionLog,
        people: People,
        purchases: Purchases,
        questions: Questions,
        now: Callable[[], datetime],
        in_order: Callable[[], bool] = lambda: True,
    ) -> None:
        """``in_order``: whether interrupts keep their order; asked where it matters, with two of them."""
        self.state = state
        self._identity = identity
        self._log = log
        self._people = people
        self._purchases = purchases
        self._questions = questions
        questions.settled = self.wake
        self._now = now
        self._in_order = in_order

    @property
    def busy(self) -> bool:
        """Whether any turn runs or waits."""
        return bool(self.state.turns)

    @property
    def waiting(self) -> bool:
        """Whether people are waited for, and no turn is known to do anything else meanwhile."""
        asking = self._questions.asking()
        if not self.state.turns:
            return None in asking
        under_way = [turn for turn in self.state.turns.values() if turn.status != "queued"]
        return bool(under_way) and all(self._waits(turn, asking) for turn in under_way)

    def _waits(self, turn: TurnState, asking: Collection[str | None]) -> bool:
        # A turn that the session's owner runs is never parked: it waits once it has asked.
        turn_id = turn.input.turn_id
        asks = turn.status == "running" and turn_id in asking and self.is_for_the_owner(turn_id)
        return turn.status == "waiting" or asks

    @property
    def full(self) -> bool:
        """Whether the log is full."""
        return self._log.size_bytes >= self._identity.limits.max_log_bytes

    # Beginning

    def _root_turn(self) -> str | None:
        """The turn that answers a person now, not a sub-agent's; it may be waiting for people."""
        return next(
            (
                turn_id
                for turn_id, turn in self.state.turns.items()
                if turn.input.parent_turn_id is None and turn.status in _UNDER_WAY
            ),
            None,
        )

    def _root_under_way(self) -> str | None:
        """The turn that answers a person now, and runs or is being stopped."""
        return next(
            (
                turn_id
                for turn_id, turn in self.state.turns.items()
                if turn.input.parent_turn_id is None and turn.status != "queued"
            ),
            None,
        )

    def is_for_the_owner(self, turn_id: str) -> bool:
        """Whether the workflow that the session belongs to runs this turn; it runs no sub-agents."""
        owner, turn = self._identity.owner, self.state.turns.get(turn_id)
        takes_turns = owner is not None and owner.takes_turns
        return takes_turns and (turn is None or turn.input.parent_turn_id is None)

    def _tell_owner(self, news: News) -> None:
        if self._identity.owner:
            self.state.news.append(news)

    def _new_turn(
        self, text: str, message_id: str | None, data: dict[str, JsonValue], actor: Actor
    ) -> TurnState:
        self.state.turn_count += 1
        turn_id = f"t{self.state.turn_count}"
        turn = TurnState(
            input=TurnInput(
                session_id=self._identity.session_id,
                turn_id=turn_id,
                attempt=1,
                agent=self._identity.agent,
                text=text,
                message_id=message_id,
                actor=actor,
                data=data,
            )
        )
        self.state.turns[turn_id] = turn
        return turn

    def _enqueue(self, turn: TurnState) -> None:
        turn_id, queue = turn.input.turn_id, self.state.queue
        before = len(queue)
        if turn.interrupts:
            before = sum(self.state.turns[waiting].interrupts for waiting in queue)
            if before and not self._in_order():
                before = 0
        queue.insert(before, turn_id)
        self._append(
            EventType.TURN_QUEUED, SYSTEM, turn_id=turn_id, data={"message_id": turn.input.message_id}
        )

    def _begin(self, turn: TurnState) -> None:
        turn_id = turn.input.turn_id
        assert turn.status == "queued", f"turn {turn_id} has begun already"
        if turn.input.parent_turn_id is None:
            assert not self._people.paused, "no turn starts while an operator has taken over"
            assert not self._root_under_way(), "at most one turn runs at a time"
        turn.status = "running"
        turn.input = _from_tip(turn.input, self._log.tip)
        self._log.open_fence(turn_id, 1)
        if self.is_for_the_owner(turn_id):
            turn.ends_by = self._now() + timedelta(seconds=self._identity.limits.turn_timeout_seconds)
            turn.check_by = self._now() + CHECK_TURNS_EVERY
        if turn.input.parent_turn_id is None:
            self._append(
                EventType.TURN_STARTED,
                agent_actor(turn.input.agent),
                turn_id=turn_id,
                data={"attempt": 1, "message_id": turn.input.message_id},
            )
        self.state.launch.append(turn_id)

    def begin_next(self) -> None:
        """Starts the turn that has waited longest, if one may start."""
        if self._people.paused or self.state.closing:
            return
        if self._root_under_way():
            return
        if self.state.queue:
            self._begin(self.state.turns[self.state.queue.pop(0)])

    # Attempts and ends

    def turn_attempt(self, attempt: TurnAttempt) -> None:
        """The turn's workflow is about to try again: the earlier attempt may write no more."""
        turn = self.state.turns.get(attempt.turn_id)
        if turn is None or turn.status != "running":
            return
        self._has_run(turn.input.agent, attempt.code)
        turn.input = _as_attempt(turn.input, attempt.attempt)
        self._log.supersede_attempt(attempt.turn_id, self._now())
        self._log.open_fence(attempt.turn_id, attempt.attempt)
        self._append(
            EventType.TURN_RETRIED,
            agent_actor(turn.input.agent),
            turn_id=attempt.turn_id,
            data={"attempt": attempt.attempt, "code": attempt.code, "detail": attempt.detail},
        )

    # Waiting for people

    def turn_waiting(self, waiting: TurnWaiting) -> None:
        """An attempt has ended to wait for people: no process runs the turn until any of it is settled."""
        turn = self.state.turns.get(waiting.turn_id)
        if turn is None:  # of a session that was reset, say: its workflow must not wait forever
            self.state.cancel.append(waiting.turn_id)
            return
        if turn.status != "running" or turn.input.attempt != waiting.attempt:
            return
        if self.is_for_the_owner(waiting.turn_id):  # a workflow waits for itself
            return
        self._has_run(turn.input.agent, "waiting")
        turn.status, turn.waiting_for = "waiting", waiting.waiting_for
        self._log.close_fence(waiting.turn_id)
        self._append(
            EventType.TURN_WAITING,
            agent_actor(turn.input.agent),
            turn_id=waiting.turn_id,
            data={"attempt": waiting.attempt, "waiting_for": list(waiting.waiting_for)},
        )
        self.wake(waiting.turn_id)

    def wake(self, turn_id: str) -> None:
        """Lets a waiting turn go on if anything that it waits for is settled."""
        turn = self.state.turns.get(turn_id)
        if turn is None or turn.status != "waiting" or not any(map(self._is_settled, turn.waiting_for)):
            return
        attempt = turn.input.attempt + 1
        turn.status, turn.waiting_for = "running", ()
        turn.input = _as_attempt(turn.input, attempt)
        self._log.open_fence(turn_id, attempt)
        self._append(
            EventType.TURN_RESUMED, agent_actor(turn.input.agent), turn_id=turn_id, data={"attempt": attempt}
        )
        self.state.resume.append(turn_id)

    def _is_settled(self, awaited: str) -> bool:
        return awaited not in self.state.turns and self._questions.is_settled(awaited)

    def _has_run(self, agent: str, how: str | None) -> None:
        """Learns from how an attempt ended that its agent runs somewhere."""
        if how not in _SAYS_NOTHING_OF_THE_AGENT and agent not in self.state.agents_seen:
            self.state.agents_seen.append(agent)

    def next_deadline(self) -> datetime | None:
        """When the next turn ends without a report, or is to be checked; ``None`` if none is."""
        times = [time for turn in self.state.turns.values() for time in (turn.ends_by, turn.check_by) if time]
        return min(times, default=None)

    def end_overdue(self) -> None:
        """Ends turns that are overdue, so that a session never waits forever, and has others checked."""
        now = self._now()
        for turn in list(self.state.turns.values()):
            if turn.ends_by and turn.ends_by <= now:
                self._end_overdue(turn)
            elif turn.check_by and turn.check_by <= now:
                turn.check_by = now + CHECK_TURNS_EVERY
                self._tell_owner(TurnGiven(turn=turn.input))

    def _end_overdue(self, turn: TurnState) -> None:
        turn_id = turn.input.turn_id
        if turn.status == "stopping":
            self.turn_ended(TurnEnded(turn_id=turn_id, outcome="stopped"))
            return
        seconds = self._identity.limits.turn_timeout_seconds
        self._tell_owner(StopWanted(turn_id=turn_id, reason="turn_timeout"))
        late = f"The turn took longer than {seconds} s."
        self.turn_ended(TurnEnded(turn_id=turn_id, outcome="failed", code="turn_timeout", detail=late))

    def turn_ended(self, ended: TurnEnded) -> None:
        """The turn's workflow reports its end; only the first report counts."""
        turn = self.state.turns.get(ended.turn_id)
        if turn is None:
            return
        self._has_run(turn.input.agent, ended.code if ended.outcome == "failed" else ended.outcome)
        outcome = "stopped" if turn.status == "stopping" else ended.outcome
        self._stop_children(ended.turn_id)
        data: dict[str, JsonValue] = {"attempt": turn.input.attempt}
        if outcome == "completed" and ended.result is not None:
            data["result"] = ended.result
        if outcome == "failed":
            data |= {"code": ended.code, "detail": ended.detail}
        if outcome == "stopped" and turn.stop_reason:
            data["reason"] = turn.stop_reason
        self._end_turn(turn, outcome, data)

    def _end_turn(
        self, turn: TurnState, outcome: str, data: dict[str, JsonValue], actor: Actor | None = None
    ) -> None:
        turn_id = turn.input.turn_id
        assert self.state.turns.get(turn_id) is turn, f"turn {turn_id} has ended already"
        turn.status = "stopping"
        self._questions.withdraw(turn_id, _WHY_WITHDRAWN.get(outcome, outcome))
        self._questions.forget()
        self._log.finish_turn(turn_id, self._now(), finish=outcome)
        self._log.close_fence(turn_id)
        if (used := self._log.usage.end(turn_id)) is not None:
            data = {**data, "usage": used}
        if outcome == "stopped":
            self._purchases.turn_stopped(turn_id)
        self.state.turns.pop(turn_id, None)
        if turn_id in self.state.queue:
            self.state.queue.remove(turn_id)
        if parent := turn.input.parent_turn_id:
            ended = self._append(
                EventType.AGENT_FINISHED,
                agent_actor(turn.input.agent),
                turn_id=turn_id,
                data={"parent_turn_id": parent, "outcome": outcome, **data},
            )
        else:
            ended = self._append(
                f"turn.{outcome}", actor or agent_actor(turn.input.agent), turn_id=turn_id, data=data
            )
            self.state.last_failed = outcome == "failed"
            self.state.last_terminal = Outcome(outcome="already_finished", seq=ended.seq, turn_id=turn_id)
        if turn.input.parent_turn_id:
            self.wake(turn.input.parent_turn_id)
        self._settle_stops(turn, outcome, ended)
        self._expire_steers(turn_id)
        self.begin_next()
        self._close_when_settled()

    # Stopping

    def _request_stop(
        self, turn_id: str, actor: Actor | None, request_id: str | None, reason: str | None
    ) -> None:
        turn = self.state.turns[turn_id]
        if request_id:
            turn.stop_requests.append(request_id)
        if turn.status == "stopping":
            return
        self._append(
            EventType.STOP_REQUESTED,
            actor or SYSTEM,
            turn_id=turn_id,
            data={"reason": reason} if reason else None,
        )
        turn.stop_reason = reason
        if turn.status == "queued":
            self._end_turn(turn, "stopped", {"reason": reason} if reason else {})
            return
        turn.status, turn.check_by = "stopping", None
        self._questions.withdraw(turn_id, "turn_stopped")
        turn.ends_by = (
            self._now() + timedelta(seconds=self._identity.limits.stop_grace_seconds) + TURN_REPORT_MARGIN
        )
        self._log.mute(turn_id)
        self._stop_children(turn_id)
        if turn_id in self.state.launch:
            self.state.launch.remove(turn_id)
            self._end_turn(turn, "stopped", {"reason": reason} if reason else {})
        else:
            self.state.cancel.append(turn_id)

    def stop_all(self, actor: Actor | None, reason: str) -> None:
        """Stops every turn, running or queued."""
        for turn_id in list(self.state.turns):
            if turn_id in self.state.turns:
                self._request_stop(turn_id, actor, None, reason)

    def _stop_children(self, turn_id: str) -> None:
        for child_id, child in list(self.state.turns.items()):
            if child.input.parent_turn_id == turn_id and child.status in _UNDER_WAY:
                self._request_stop(child_id, None, None, "parent_ended")

    def _settle_stops(self, turn: TurnState, outcome: str, ended: Event) -> None:
        for request_id in turn.stop_requests:
            said: Literal["stopped", "already_finished"] = (
                "stopped" if outcome == "stopped" else "already_finished"
            )
            self.state.outcomes[request_id] = Outcome(
                outcome=said,
                seq=ended.seq,
                turn_id=turn.input.turn_id,
            )

    # Steers that nobody took up

    def _expire_steers(self, turn_id: str) -> None:
        for steer in [steer for steer in self.state.steers.values() if steer.turn_id == turn_id]:
            del self.state.steers[steer.steer_id]
            self._append(
                EventType.STEER_EXPIRED, steer.actor, turn_id=turn_id, data={"steer_id": steer.steer_id}
            )
            self._queue_steer(steer.steer_id, steer.text, steer.actor)

    def _queue_steer(self, steer_id: str, text: str, actor: Actor) -> None:
        if why := self._no_room():
            remember(self.state.outcomes, steer_id, Outcome(outcome="refused", detail=why))
            return
        recorded = self._log.add_message(steer_id, actor, text, self._now())
        turn = self._new_turn(text, steer_id, {}, actor)
        self._enqueue(turn)
        remember(
            self.state.outcomes,
            steer_id,
            Outcome(outcome="queued", seq=recorded.seq, turn_id=turn.input.turn_id),
        )
        self.begin_next()

    def _waiting(self) -> int:
        """Turns that wait, and steers: one that isn't taken up becomes a turn."""
        return len(self.state.queue) + len(self.state.steers)

    def _no_room(self) -> str | None:
        """Why no further turn can wait here."""
        if self.state.closing:
            return "The session is closed."
        if self.full:
            return "The session holds all it may; go on in a new one."
        if self._waiting() >= MAX_QUEUED_TURNS:
            return f"{MAX_QUEUED_TURNS} turns are waiting."
        return None

    # Closing

    def close(self, close: Close) -> None:
        """Ends the session: turns are stopped, nothing more is taken, ``session.closed`` comes last."""
        if self.state.closing:
            return
        self.state.closing = close
        self._purchases.session_closed()
        self._questions.withdraw(None, "session_closed")
        self.stop_all(self.state.closing.actor, "session_closed")
        self._close_when_settled()

    def _close_when_settled(self) -> None:
        close = self.state.closing
        if close and not self.state.turns and not self.state.closed:
            self.state.closed = True
            self._append(EventType.SESSION_CLOSED, close.actor or SYSTEM, data={"reason": close.reason})
            self._tell_owner(SessionEnded(reason=close.reason))

    def _append(
        self,
        event_type: str,
        actor: Actor,
        *,
        turn_id: str | None = None,
        data: dict[str, JsonValue] | None = None,
    ) -> Event:
        clean: dict[str, JsonValue] = {k: value for k, value in (data or {}).items() if value is not None}
        return self._log.append(event_type, actor, self._now(), turn_id=turn_id, data=clean)


def _from_tip(turn: TurnInput, tip: int) -> TurnInput:
    return TurnInput.model_validate({**dict(turn), "after": tip})


def _as_attempt(turn: TurnInput, attempt: int) -> TurnInput:
    return TurnInput.model_validate({**dict(turn), "attempt": attempt})


def agent_actor(name: str) -> Actor:
    """Returns an agent as the log names it."""
    return Actor(id=name, role=Role.AGENT)
