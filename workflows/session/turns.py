"""The turns of a session: which one runs, waits, is retried, steered or stopped, and its sub-agents.

Pure, like the log: no Temporal, no clock of its own, no I/O. What has to be awaited waits in
``launch`` and ``cancel`` of the state, where the workflow takes it up.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, TypeVar

from pydantic import BaseModel, Field, JsonValue

from waystation.models.events import SYSTEM, Actor, Event, EventType, Role
from waystation.models.sessions import (
    MAX_QUEUED_TURNS,
    Close,
    OnBusy,
    Outcome,
    SendMessage,
    Sent,
    SessionLimits,
    Spawn,
    Spawned,
    Steer,
    Stop,
    TurnAttempt,
    TurnEnded,
    TurnInput,
    TurnView,
)
from waystation.temporal import names
from workflows.policies import TURN_REPORT_MARGIN
from workflows.session.log import SessionLog
from workflows.session.people import People
from workflows.session.purchases import Purchases
from workflows.session.refused import Refused

MAX_REMEMBERED_REQUESTS = 1_000
"""Answers kept so that a repeated request gets the first answer again."""
MAX_SPAWN_DEPTH = 5
MAX_SUB_AGENTS_PER_TURN = 50

_SAYS_NOTHING_OF_THE_AGENT = frozenset(
    {"agent_unavailable", "turn_not_started", "turn_lost", "stopped", None}
)

T = TypeVar("T")


class TurnState(BaseModel):
    """A turn that is queued or running."""

    input: TurnInput
    status: Literal["queued", "running", "stopping"] = "queued"
    stop_requests: list[str] = Field(default_factory=list)
    stop_reason: str | None = None
    interrupts: bool = False
    """Whether it was sent to interrupt what runs: such turns go first, in the order in which they came."""
    ends_by: datetime | None = None
    """When a stopped turn has ended, whether its workflow has reported it or not."""
    spawned: dict[str, str] = Field(default_factory=dict)

    def view(self) -> TurnView:
        return TurnView(
            turn_id=self.input.turn_id,
            agent=self.input.agent,
            status=self.status,
            attempt=self.input.attempt if self.status != "queued" else 0,
            message_id=self.input.message_id,
            parent_turn_id=self.input.parent_turn_id,
        )


class PendingSteer(BaseModel):
    """A steer that the running turn has not taken up yet."""

    steer_id: str
    turn_id: str
    text: str
    actor: Actor


class TurnsState(BaseModel):
    """What a session carries of its turns across continue-as-new."""

    turns: dict[str, TurnState] = Field(default_factory=dict)
    queue: list[str] = Field(default_factory=list)
    steers: dict[str, PendingSteer] = Field(default_factory=dict)
    outcomes: dict[str, Outcome] = Field(default_factory=dict)
    sent: dict[str, Sent] = Field(default_factory=dict)
    launch: list[str] = Field(default_factory=list)
    """Turns whose workflows are to be started."""
    cancel: list[str] = Field(default_factory=list)
    """Turns whose workflows are to be cancelled."""
    agents_seen: list[str] = Field(default_factory=list)
    """Agents that have run a turn in this session."""
    turn_count: int = 0
    request_count: int = 0
    last_terminal: Outcome | None = None
    closing: Close | None = None
    closed: bool = False


class Identity(NamedTuple):
    """What turns need to know of their session and never change."""

    session_id: str
    agent: str
    limits: SessionLimits


def _remember(store: dict[str, T], key: str, value: T) -> None:
    store[key] = value
    while len(store) > MAX_REMEMBERED_REQUESTS:
        del store[next(iter(store))]


class Turns:
    """Decides what becomes of each turn, and records it."""

    def __init__(
        self,
        state: TurnsState,
        identity: Identity,
        log: SessionLog,
        people: People,
        purchases: Purchases,
        now: Callable[[], datetime],
        in_order: Callable[[], bool] = lambda: True,
    ) -> None:
        """``in_order``: whether interrupts keep their order; asked where it matters, with two of them."""
        self.state = state
        self._identity = identity
        self._log = log
        self._people = people
        self._purchases = purchases
        self._now = now
        self._in_order = in_order

    @property
    def busy(self) -> bool:
        """Whether any turn runs or waits."""
        return bool(self.state.turns)

    @property
    def full(self) -> bool:
        """Whether the log is full."""
        return self._log.size_bytes >= self._identity.limits.max_log_bytes

    # Refusing

    def why_closed(self) -> Refused | None:
        """Returns why a session that is closing takes nothing more, or ``None``."""
        if self.state.closing:
            return Refused(names.SESSION_CLOSED, "The session is closed; start another one.")
        return None

    def why_full(self) -> Refused | None:
        """Returns why a full session takes nothing more, or ``None``."""
        if self.full:
            return Refused(
                names.SESSION_FULL,
                f"The session holds all it may ({self._identity.limits.max_log_bytes:,} bytes); "
                "go on in a new one.",
            )
        return None

    # People send

    def send(self, message: SendMessage) -> Sent:
        """Records a message and starts, queues, steers or refuses a turn for it."""
        if message.message_id and (known := self.state.sent.get(message.message_id)):
            return known
        message_id = message.message_id or self._new_message_id()
        sent = self._take(message, message_id).model_copy(update={"digest": message.digest()})
        _remember(self.state.sent, message_id, sent)
        return sent

    def why_not_send(self, message: SendMessage) -> Refused | None:
        """Returns why this message can't be taken, or ``None``."""
        if message.message_id and message.message_id in self.state.sent:
            return None
        if refused := self.why_closed():
            return refused
        if message.message_id and self._log.has_message(message.message_id):
            return Refused(
                names.MESSAGE_ID_TAKEN, f"The message id {message.message_id} is taken; choose another."
            )
        if message.actor.role == Role.AGENT:
            return Refused(names.INVALID_ROLE, "Agents write through their own connection, not with 'send'.")
        if message.actor.role == Role.OPERATOR and (refused := self._people.why_not_speak(message.actor)):
            return refused
        if message.on_busy == OnBusy.REJECT and self.busy:
            return Refused(
                names.SESSION_BUSY, "A turn is running or waiting; send with on_busy=queue, or stop it first."
            )
        if refused := self.why_full():
            return refused
        if self._waiting() >= MAX_QUEUED_TURNS:
            return Refused(
                names.QUEUE_FULL, f"{MAX_QUEUED_TURNS} turns are waiting already; try again later."
            )
        return None

    def _take(self, message: SendMessage, message_id: str) -> Sent:
        if message.on_busy == OnBusy.STEER and (running := self._root_turn()):
            received = self._receive_steer(message_id, running, message.text, message.actor)
            return Sent(status="steered", message_id=message_id, seq=received.seq, turn_id=running)
        recorded = self._log.add_message(
            message_id, message.actor, message.text, self._now(), extra=message.data
        )
        if message.actor.role == Role.OPERATOR:
            self._answer_queued(message.actor)
            return Sent(status="recorded", message_id=message_id, seq=recorded.seq)
        busy = self.busy
        turn = self._new_turn(message.text, message_id, message.data)
        if busy and message.on_busy == OnBusy.INTERRUPT:
            # Queued first: a turn that hasn't been started yet ends immediately, and the next one begins.
            turn.interrupts = True
            self._enqueue(turn)
            if running := self._root_turn():
                self._request_stop(running, message.actor, None, "interrupted")
        elif busy or self._people.paused:
            self._enqueue(turn)
        else:
            self._begin(turn)
        status = "queued" if turn.status == "queued" else "started"
        return Sent(status=status, message_id=message_id, seq=recorded.seq, turn_id=turn.input.turn_id)

    # Turns

    def _root_turn(self) -> str | None:
        """The turn that runs now and answers a person, not a sub-agent's."""
        return next(
            (
                turn_id
                for turn_id, turn in self.state.turns.items()
                if turn.input.parent_turn_id is None and turn.status == "running"
            ),
            None,
        )

    def _new_turn(self, text: str, message_id: str, data: dict[str, JsonValue]) -> TurnState:
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
        if turn.input.parent_turn_id is None:
            self._append(
                EventType.TURN_STARTED,
                _agent(turn.input.agent),
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
            _agent(turn.input.agent),
            turn_id=attempt.turn_id,
            data={"attempt": attempt.attempt, "code": attempt.code, "detail": attempt.detail},
        )

    def _has_run(self, agent: str, how: str | None) -> None:
        """Learns from how an attempt ended that its agent runs somewhere."""
        if how not in _SAYS_NOTHING_OF_THE_AGENT and agent not in self.state.agents_seen:
            self.state.agents_seen.append(agent)

    def next_deadline(self) -> datetime | None:
        """When the next stopped turn ends without its workflow's report; ``None`` if none is stopped."""
        return min((turn.ends_by for turn in self.state.turns.values() if turn.ends_by), default=None)

    def end_overdue(self) -> None:
        """Ends stopped turns whose workflows have not reported it: a session never waits for them forever."""
        for turn in [turn for turn in self.state.turns.values() if turn.ends_by]:
            if turn.ends_by and turn.ends_by <= self._now():
                self.turn_ended(TurnEnded(turn_id=turn.input.turn_id, outcome="stopped"))

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
        self._log.finish_turn(turn_id, self._now(), finish=outcome)
        self._log.close_fence(turn_id)
        if outcome == "stopped":
            self._purchases.turn_stopped(turn_id)
        self.state.turns.pop(turn_id, None)
        if turn_id in self.state.queue:
            self.state.queue.remove(turn_id)
        if parent := turn.input.parent_turn_id:
            ended = self._append(
                EventType.AGENT_FINISHED,
                _agent(turn.input.agent),
                turn_id=turn_id,
                data={"parent_turn_id": parent, "outcome": outcome, **data},
            )
        else:
            ended = self._append(
                f"turn.{outcome}", actor or _agent(turn.input.agent), turn_id=turn_id, data=data
            )
            self.state.last_terminal = Outcome(outcome="already_finished", seq=ended.seq, turn_id=turn_id)
        self._settle_stops(turn, outcome, ended)
        self._expire_steers(turn_id)
        self.begin_next()
        self._close_when_settled()

    # Stop

    def stop(self, stop: Stop) -> None:
        """Stops a turn, running or queued; without ``turn_id`` whatever runs, or is being stopped."""
        request_id = stop.request_id or self._new_request_id()
        if request_id in self.state.outcomes:
            return
        target = stop.turn_id or self._root_under_way()
        turn = self.state.turns.get(target) if target else None
        if turn is None:
            last = self.state.last_terminal
            finished = Outcome(
                outcome="already_finished",
                seq=last.seq if last and stop.turn_id in (None, last.turn_id) else None,
                turn_id=stop.turn_id or (last.turn_id if last else None),
            )
            _remember(self.state.outcomes, request_id, finished)
            return
        _remember(self.state.outcomes, request_id, Outcome(outcome="pending", turn_id=target))
        self._request_stop(turn.input.turn_id, stop.actor, request_id, stop.reason)

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
        turn.status = "stopping"
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
            if child.input.parent_turn_id == turn_id and child.status == "running":
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

    def pause(self, operator: Actor) -> None:
        """Stops the running turn because an operator has taken over."""
        if running := self._root_turn():
            self._request_stop(running, operator, None, "takeover")

    # Steer

    def steer(self, steer: Steer) -> None:
        """Offers a message to the running turn; with none running it is sent as an ordinary one."""
        steer_id = steer.request_id or self._new_request_id()
        actor = steer.actor or Actor(id="user", role=Role.USER)
        if steer_id in self.state.outcomes or self._log.has_message(steer_id):
            return
        if self.state.closed:
            _remember(
                self.state.outcomes, steer_id, Outcome(outcome="refused", detail="The session is closed.")
            )
            return
        running = self._root_turn()
        if why := self._no_room():
            _remember(self.state.outcomes, steer_id, Outcome(outcome="refused", detail=why))
        elif running and not self._people.paused:
            self._receive_steer(steer_id, running, steer.text, actor)
        else:
            self._queue_steer(steer_id, steer.text, actor)

    def _receive_steer(self, steer_id: str, turn_id: str, text: str, actor: Actor) -> Event:
        self.state.steers[steer_id] = PendingSteer(steer_id=steer_id, turn_id=turn_id, text=text, actor=actor)
        _remember(self.state.outcomes, steer_id, Outcome(outcome="pending", turn_id=turn_id))
        return self._append(
            EventType.STEER_RECEIVED, actor, turn_id=turn_id, data={"steer_id": steer_id, "text": text}
        )

    def consume_steer(self, agent: Actor, steer_id: str) -> bool:
        """Records that an agent has taken up a steer; returns whether there is such a steer.

        An attempt hears of those that an earlier one has taken up, too: they are recorded already.
        """
        steer = self.state.steers.pop(steer_id, None)
        if steer is None:
            return self._log.has_message(steer_id)
        consumed = self._append(
            EventType.STEER_CONSUMED, agent, turn_id=steer.turn_id, data={"steer_id": steer_id}
        )
        self._log.add_message(
            steer_id, steer.actor, steer.text, self._now(), turn_id=steer.turn_id, extra={"kind": "steer"}
        )
        _remember(
            self.state.outcomes,
            steer_id,
            Outcome(outcome="consumed", seq=consumed.seq, turn_id=steer.turn_id),
        )
        return True

    def _expire_steers(self, turn_id: str) -> None:
        for steer in [steer for steer in self.state.steers.values() if steer.turn_id == turn_id]:
            del self.state.steers[steer.steer_id]
            self._append(
                EventType.STEER_EXPIRED, steer.actor, turn_id=turn_id, data={"steer_id": steer.steer_id}
            )
            self._queue_steer(steer.steer_id, steer.text, steer.actor)

    def _queue_steer(self, steer_id: str, text: str, actor: Actor) -> None:
        if why := self._no_room():
            _remember(self.state.outcomes, steer_id, Outcome(outcome="refused", detail=why))
            return
        recorded = self._log.add_message(steer_id, actor, text, self._now())
        turn = self._new_turn(text, steer_id, {})
        self._enqueue(turn)
        _remember(
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

    def _new_request_id(self) -> str:
        while True:
            self.state.request_count += 1
            if self._is_free(request_id := f"r{self.state.request_count}"):
                return request_id

    def _new_message_id(self) -> str:
        number = self._log.tip + 1
        while not self._is_free(f"m{number}"):
            number += 1
        return f"m{number}"

    def _is_free(self, name: str) -> bool:
        """Whether nobody has chosen this id, for a message or for a request (which a steer is at first)."""
        return not (name in self.state.outcomes or name in self.state.sent or self._log.has_message(name))

    # Sub-agents

    def spawn(self, spawn: Spawn) -> Spawned:
        """Starts a sub-agent for a running turn; it writes to this session directly."""
        parent = self.state.turns[spawn.parent_turn_id]
        if known := parent.spawned.get(spawn.key):
            return Spawned(turn_id=known, seq=self._log.tip)
        turn_id = f"{spawn.parent_turn_id}.{len(parent.spawned) + 1}"
        parent.spawned[spawn.key] = turn_id
        turn = TurnState(
            input=TurnInput(
                session_id=self._identity.session_id,
                turn_id=turn_id,
                attempt=1,
                agent=spawn.agent,
                text=spawn.text,
                parent_turn_id=spawn.parent_turn_id,
                depth=parent.input.depth + 1,
            )
        )
        self.state.turns[turn_id] = turn
        spawned = self._append(
            EventType.AGENT_SPAWNED,
            _agent(parent.input.agent),
            turn_id=turn_id,
            data={
                "agent": spawn.agent,
                "parent_turn_id": spawn.parent_turn_id,
                "key": spawn.key,
                "text": spawn.text,
            },
        )
        self._begin(turn)
        return Spawned(turn_id=turn_id, seq=spawned.seq)

    def why_not_spawn(self, spawn: Spawn) -> Refused | None:
        """Returns why no sub-agent can be spawned, or ``None``."""
        parent = self.state.turns.get(spawn.parent_turn_id)
        if parent is None or parent.status != "running" or parent.input.attempt != spawn.attempt:
            return Refused(names.UNKNOWN_TURN, f"Turn {spawn.parent_turn_id} isn't running (any more).")
        if parent.input.depth >= MAX_SPAWN_DEPTH:
            return Refused(names.SPAWN_REFUSED, f"Sub-agents may be nested {MAX_SPAWN_DEPTH} deep.")
        if refused := self.why_full():
            return refused
        if len(parent.spawned) >= MAX_SUB_AGENTS_PER_TURN and spawn.key not in parent.spawned:
            return Refused(names.SPAWN_REFUSED, f"One turn may spawn {MAX_SUB_AGENTS_PER_TURN} sub-agents.")
        return None

    # Closing

    def _answer_queued(self, operator: Actor) -> None:
        """Completes waiting turns that a person has answered in the agent's place."""
        for turn_id in list(self.state.queue):
            self._end_turn(
                self.state.turns[turn_id], "completed", {"answered_by": operator.id}, actor=operator
            )

    def close(self, close: Close) -> None:
        """Ends the session: turns are stopped, nothing more is taken, ``session.closed`` comes last."""
        if self.state.closing:
            return
        self.state.closing = close
        self._purchases.session_closed()
        self.stop_all(self.state.closing.actor, "session_closed")
        self._close_when_settled()

    def _close_when_settled(self) -> None:
        close = self.state.closing
        if close and not self.state.turns and not self.state.closed:
            self.state.closed = True
            self._append(EventType.SESSION_CLOSED, close.actor or SYSTEM, data={"reason": close.reason})

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


def _agent(name: str) -> Actor:
    return Actor(id=name, role=Role.AGENT)
