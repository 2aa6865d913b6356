"""``AgentSession``: one durable session between agents, people and their devices.

The workflow owns the truth (who may write, what happened in which order) and nothing else:
text streams past it on the live bus, agents' code runs in their own processes, and each turn
is a workflow of its own (workflows/session/turn.py). Handlers only change state and never wait, so
none needs a lock or has to be drained; the one loop in ``run`` does what has to be awaited.
"""

import functools
from datetime import datetime
from typing import Any, Literal

from temporalio import workflow
from temporalio.exceptions import TemporalError
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from pydantic import BaseModel, Field

    from waystation.models.decisions import Cancel
    from waystation.models.events import MONEY_TYPES, SYSTEM, Actor, Event, EventType, Publish, Role
    from waystation.models.sessions import (
        MAX_PARTICIPANTS,
        MAX_QUEUED_TURNS,
        MAX_REPLAY_EVENTS,
        Close,
        Membership,
        Note,
        OnBusy,
        Outcome,
        Recorded,
        ReplayPage,
        SendMessage,
        Sent,
        SessionStatus,
        Snapshot,
        Spawn,
        Spawned,
        StartSession,
        Steer,
        Stop,
        TakeOver,
        TurnAttempt,
        TurnEnded,
        TurnInput,
        TurnView,
    )
    from waystation.temporal import names
    from workflows.arguments import drop_unless
    from workflows.purchase.rules import FINAL_STATUSES
    from workflows.refusals import INVALID_ROLE, refusal, require
    from workflows.session.log import LogState, SessionLog
    from workflows.session.turn import AgentTurn, TurnPlan

MAX_REMEMBERED_REQUESTS = 1_000
"""Answers kept so that a repeated request gets the first answer again."""
MAX_SPAWN_DEPTH = 5
MAX_SUB_AGENTS_PER_TURN = 50


class TurnState(BaseModel):
    """A turn that is queued or running."""

    input: TurnInput
    status: Literal["queued", "running", "stopping"] = "queued"
    stop_requests: list[str] = Field(default_factory=list)
    stop_reason: str | None = None
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


class SessionState(BaseModel):
    """Everything a session carries across continue-as-new."""

    created: datetime
    log: LogState = Field(default_factory=LogState)
    turns: dict[str, TurnState] = Field(default_factory=dict)
    queue: list[str] = Field(default_factory=list)
    steers: dict[str, PendingSteer] = Field(default_factory=dict)
    outcomes: dict[str, Outcome] = Field(default_factory=dict)
    sent: dict[str, Sent] = Field(default_factory=dict)
    purchases: dict[str, str | None] = Field(default_factory=dict)
    """Purchases under way for this session, with the turns that want them."""
    stopped_turns: list[str] = Field(default_factory=list)
    orphans: list[str] = Field(default_factory=list)
    """Purchases to be told that their turn is over."""
    notes: list[str] = Field(default_factory=list)
    participants: dict[str, Actor] = Field(default_factory=dict)
    taken_over_by: Actor | None = None
    launch: list[str] = Field(default_factory=list)
    cancel: list[str] = Field(default_factory=list)
    turn_count: int = 0
    request_count: int = 0
    last_terminal: Outcome | None = None
    closing: Close | None = None
    closed: bool = False
    runs: int = 1


class SessionInput(StartSession):
    """The workflow's input: what starts a session, and what it carries across continue-as-new."""

    state: SessionState | None = None


def _remember(store: dict[str, Any], key: str, value: Any) -> None:
    store[key] = value
    while len(store) > MAX_REMEMBERED_REQUESTS:
        del store[next(iter(store))]


@workflow.defn(name=names.SESSION_WORKFLOW)
class AgentSession:
    """The workflow of a session; its workflow id is the session's id."""

    @workflow.init
    def __init__(self, start: SessionInput) -> None:
        self._start = start.model_copy(update={"state": None})
        self._id = workflow.info().workflow_id
        self._state = start.state or SessionState(created=workflow.now())
        self._log = SessionLog(self._state.log)
        if start.state is None:
            self._append(
                EventType.SESSION_STARTED,
                start.started_by or SYSTEM,
                data={"agent": start.agent, **({"title": start.title} if start.title else {})},
            )

    @workflow.run
    async def run(self, start: SessionInput) -> None:
        while not self._state.closed or self._has_work():
            await workflow.wait_condition(self._may_proceed)
            await self._work()
            if self._should_continue_as_new():
                self._state.runs += 1
                workflow.continue_as_new(self._start.model_copy(update={"state": self._state}))
        await workflow.wait_condition(workflow.all_handlers_finished)

    # The loop: what has to be awaited

    def _has_work(self) -> bool:
        return bool(self._state.launch or self._state.cancel or self._state.orphans)

    def _may_proceed(self) -> bool:
        return self._has_work() or self._state.closed or self._should_continue_as_new()

    def _should_continue_as_new(self) -> bool:
        info, limit = workflow.info(), self._start.limits.events_per_run
        due = info.is_continue_as_new_suggested() or 0 < limit <= info.get_current_history_length()
        return due and not self._state.closed and not self._has_work() and workflow.all_handlers_finished()

    async def _work(self) -> None:
        while self._state.launch:
            await self._launch(self._state.launch.pop(0))
        while self._state.cancel:
            await self._cancel(self._state.cancel.pop(0))
        while self._state.orphans:
            await self._tell_orphan(self._state.orphans.pop(0))

    async def _launch(self, turn_id: str) -> None:
        turn = self._state.turns.get(turn_id)
        if turn is None:
            return
        try:
            await workflow.start_child_workflow(
                AgentTurn.run,
                TurnPlan(turn=turn.input, limits=self._start.limits),
                id=names.turn_workflow_id(self._id, turn_id),
                parent_close_policy=ParentClosePolicy.ABANDON,
            )
        except TemporalError as error:
            self.turn_ended(
                TurnEnded(turn_id=turn_id, outcome="failed", code="turn_not_started", detail=str(error))
            )

    async def _cancel(self, turn_id: str) -> None:
        try:
            await workflow.get_external_workflow_handle(names.turn_workflow_id(self._id, turn_id)).cancel()
        except TemporalError:
            # It has ended by itself in the meantime; its report is on the way or was lost with it.
            self.turn_ended(TurnEnded(turn_id=turn_id, outcome="stopped"))

    async def _tell_orphan(self, purchase_id: str) -> None:
        """A purchase whose turn was stopped ends, unless somebody has approved it; it decides that itself."""
        wish = Cancel(by="session", reason="the turn was stopped")
        try:
            await workflow.get_external_workflow_handle(purchase_id).signal("turn_stopped", wish)
        except TemporalError:
            workflow.logger.info("The purchase %s has ended already", purchase_id)

    # Agents write

    @workflow.signal
    @drop_unless(Publish)
    def publish(self, publish: Publish) -> None:
        """Takes in a batch that agents have written."""
        if self._state.closed:
            return
        now = workflow.now()
        for write in publish.writes:
            self._log.accept(write, now, functools.partial(self._consume_steer, write.actor))
        if self._full():
            self._stop_all(None, "session_full")

    @workflow.signal
    @drop_unless(Note)
    def note(self, note: Note) -> None:
        """Records what another workflow (a purchase) reports."""
        if note.key in self._state.notes:
            return
        for event in note.events:
            if event.type == EventType.PURCHASE_UPDATED:
                self._follow_purchase(event.data)
        if self._state.closing:
            return
        self._state.notes = [*self._state.notes[-MAX_REMEMBERED_REQUESTS:], note.key]
        for event in note.events:
            if event.type in MONEY_TYPES:
                self._append(event.type, SYSTEM, data=event.data)

    def _follow_purchase(self, data: dict[str, Any]) -> None:
        purchase_id, turn_id = data.get("purchase_id"), data.get("turn_id")
        if not isinstance(purchase_id, str):
            return
        if data.get("status") in FINAL_STATUSES:
            self._state.purchases.pop(purchase_id, None)
        elif purchase_id not in self._state.purchases:
            _remember(self._state.purchases, purchase_id, turn_id)
            if self._state.closing or turn_id in self._state.stopped_turns:
                self._state.orphans.append(purchase_id)

    def _leave_purchases(self, turn_id: str) -> None:
        """What a stopped turn has begun to buy is told so, also if this session hears of it only later."""
        self._state.stopped_turns = [*self._state.stopped_turns[-MAX_REMEMBERED_REQUESTS:], turn_id]
        self._state.orphans += [one for one, turn in self._state.purchases.items() if turn == turn_id]

    # People send

    @workflow.update
    def send(self, message: SendMessage) -> Sent:
        """Takes a message and starts, queues, steers or refuses a turn for it."""
        if message.message_id and (known := self._state.sent.get(message.message_id)):
            return known
        message_id = message.message_id or self._new_message_id()
        sent = self._take(message, message_id)
        _remember(self._state.sent, message_id, sent)
        return sent

    @send.validator
    def _validate_send(self, message: SendMessage) -> None:
        require(message, SendMessage)
        if message.message_id and message.message_id in self._state.sent:
            return
        self._refuse_if_closed()
        if message.message_id and self._log.has_message(message.message_id):
            raise refusal(
                names.MESSAGE_ID_TAKEN, f"The message id {message.message_id} is taken; choose another."
            )
        if message.actor.role == Role.AGENT:
            raise refusal(INVALID_ROLE, "Agents write through their own connection, not with 'send'.")
        if message.actor.role == Role.OPERATOR and self._state.taken_over_by is None:
            raise refusal(names.NOT_TAKEN_OVER, "An operator speaks after taking over; call take_over first.")
        if message.on_busy == OnBusy.REJECT and self._busy():
            raise refusal(
                names.SESSION_BUSY, "A turn is running or waiting; send with on_busy=queue, or stop it first."
            )
        self._refuse_if_full()
        if self._waiting() >= MAX_QUEUED_TURNS:
            raise refusal(names.QUEUE_FULL, f"{MAX_QUEUED_TURNS} turns are waiting already; try again later.")

    def _take(self, message: SendMessage, message_id: str) -> Sent:
        if message.on_busy == OnBusy.STEER and (running := self._root_turn()):
            received = self._receive_steer(message_id, running, message.text, message.actor)
            return Sent(status="steered", message_id=message_id, seq=received.seq, turn_id=running)
        recorded = self._log.add_message(
            message_id, message.actor, message.text, workflow.now(), extra=message.data
        )
        if message.actor.role == Role.OPERATOR:
            self._answer_queued(message.actor)
            return Sent(status="recorded", message_id=message_id, seq=recorded.seq)
        busy = self._busy()
        turn = self._new_turn(message.text, message_id, message.data)
        if busy and message.on_busy == OnBusy.INTERRUPT:
            if running := self._root_turn():
                self._request_stop(running, message.actor, None, "interrupted")
            self._enqueue(turn, front=True)
        elif busy or self._state.taken_over_by:
            self._enqueue(turn)
        else:
            self._begin(turn)
        status = "queued" if turn.status == "queued" else "started"
        return Sent(status=status, message_id=message_id, seq=recorded.seq, turn_id=turn.input.turn_id)

    # Turns

    def _busy(self) -> bool:
        return bool(self._state.turns)

    def _root_turn(self) -> str | None:
        """The turn that runs now and answers a person, not a sub-agent's."""
        return next(
            (
                turn_id
                for turn_id, turn in self._state.turns.items()
                if turn.input.parent_turn_id is None and turn.status == "running"
            ),
            None,
        )

    def _new_turn(self, text: str, message_id: str, data: dict[str, Any]) -> TurnState:
        self._state.turn_count += 1
        turn_id = f"t{self._state.turn_count}"
        turn = TurnState(
            input=TurnInput(
                session_id=self._id,
                turn_id=turn_id,
                attempt=1,
                agent=self._start.agent,
                text=text,
                message_id=message_id,
                data=data,
            )
        )
        self._state.turns[turn_id] = turn
        return turn

    def _enqueue(self, turn: TurnState, *, front: bool = False) -> None:
        turn_id = turn.input.turn_id
        self._state.queue.insert(0 if front else len(self._state.queue), turn_id)
        self._append(
            EventType.TURN_QUEUED, SYSTEM, turn_id=turn_id, data={"message_id": turn.input.message_id}
        )

    def _begin(self, turn: TurnState) -> None:
        turn_id = turn.input.turn_id
        turn.status = "running"
        turn.input = turn.input.model_copy(update={"after": self._log.tip})
        self._log.open_fence(turn_id, 1)
        if turn.input.parent_turn_id is None:
            self._append(
                EventType.TURN_STARTED,
                _agent(turn.input.agent),
                turn_id=turn_id,
                data={"attempt": 1, "message_id": turn.input.message_id},
            )
        self._state.launch.append(turn_id)

    def _begin_next(self) -> None:
        if self._state.taken_over_by or self._state.closing:
            return
        if any(
            turn.input.parent_turn_id is None and turn.status != "queued"
            for turn in self._state.turns.values()
        ):
            return
        if self._state.queue:
            self._begin(self._state.turns[self._state.queue.pop(0)])

    @workflow.signal
    @drop_unless(TurnAttempt)
    def turn_attempt(self, attempt: TurnAttempt) -> None:
        """The turn's workflow is about to try again: the earlier attempt may write no more."""
        turn = self._state.turns.get(attempt.turn_id)
        if turn is None or turn.status != "running":
            return
        turn.input = turn.input.model_copy(update={"attempt": attempt.attempt})
        self._log.supersede_turn_messages(attempt.turn_id, workflow.now())
        self._log.open_fence(attempt.turn_id, attempt.attempt)
        self._append(
            EventType.TURN_RETRIED,
            _agent(turn.input.agent),
            turn_id=attempt.turn_id,
            data={"attempt": attempt.attempt, "code": attempt.code, "detail": attempt.detail},
        )

    @workflow.signal
    @drop_unless(TurnEnded)
    def turn_ended(self, ended: TurnEnded) -> None:
        """The turn's workflow reports its end; only the first report counts."""
        turn = self._state.turns.get(ended.turn_id)
        if turn is None:
            return
        outcome = "stopped" if turn.status == "stopping" else ended.outcome
        self._stop_children(ended.turn_id)
        data: dict[str, Any] = {"attempt": turn.input.attempt}
        if outcome == "completed" and ended.result is not None:
            data["result"] = ended.result
        if outcome == "failed":
            data |= {"code": ended.code, "detail": ended.detail}
        if outcome == "stopped" and turn.stop_reason:
            data["reason"] = turn.stop_reason
        self._end_turn(turn, outcome, data)

    def _end_turn(
        self, turn: TurnState, outcome: str, data: dict[str, Any], actor: Actor | None = None
    ) -> None:
        turn_id = turn.input.turn_id
        self._log.finish_turn_messages(turn_id, workflow.now(), finish=outcome)
        self._log.close_fence(turn_id)
        if outcome == "stopped":
            self._leave_purchases(turn_id)
        self._state.turns.pop(turn_id, None)
        if turn_id in self._state.queue:
            self._state.queue.remove(turn_id)
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
            self._state.last_terminal = Outcome(outcome="already_finished", seq=ended.seq, turn_id=turn_id)
        self._settle_stops(turn, outcome, ended)
        self._expire_steers(turn_id)
        self._begin_next()
        self._close_when_settled()

    # Stop

    @workflow.signal
    @drop_unless(Stop, optional=True)
    def stop(self, stop: Stop | None = None) -> None:
        """Stops a turn, running or queued; without ``turn_id`` whatever runs."""
        stop = stop or Stop()
        request_id = stop.request_id or self._new_request_id()
        if request_id in self._state.outcomes:
            return
        target = stop.turn_id or self._root_turn()
        turn = self._state.turns.get(target) if target else None
        if turn is None:
            last = self._state.last_terminal
            finished = Outcome(
                outcome="already_finished",
                seq=last.seq if last and stop.turn_id in (None, last.turn_id) else None,
                turn_id=stop.turn_id or (last.turn_id if last else None),
            )
            _remember(self._state.outcomes, request_id, finished)
            return
        _remember(self._state.outcomes, request_id, Outcome(outcome="pending", turn_id=target))
        self._request_stop(turn.input.turn_id, stop.actor, request_id, stop.reason)

    def _request_stop(
        self, turn_id: str, actor: Actor | None, request_id: str | None, reason: str | None
    ) -> None:
        turn = self._state.turns[turn_id]
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
        self._log.mute(turn_id)
        self._stop_children(turn_id)
        if turn_id in self._state.launch:
            self._state.launch.remove(turn_id)
            self._end_turn(turn, "stopped", {"reason": reason} if reason else {})
        else:
            self._state.cancel.append(turn_id)

    def _full(self) -> bool:
        return self._log.size_bytes >= self._start.limits.max_log_bytes

    def _stop_all(self, actor: Actor | None, reason: str) -> None:
        for turn_id in list(self._state.turns):
            if turn_id in self._state.turns:
                self._request_stop(turn_id, actor, None, reason)

    def _stop_children(self, turn_id: str) -> None:
        for child_id, child in list(self._state.turns.items()):
            if child.input.parent_turn_id == turn_id and child.status == "running":
                self._request_stop(child_id, None, None, "parent_ended")

    def _settle_stops(self, turn: TurnState, outcome: str, ended: Event) -> None:
        for request_id in turn.stop_requests:
            said: Literal["stopped", "already_finished"] = (
                "stopped" if outcome == "stopped" else "already_finished"
            )
            self._state.outcomes[request_id] = Outcome(
                outcome=said,
                seq=ended.seq,
                turn_id=turn.input.turn_id,
            )

    # Steer

    @workflow.signal
    @drop_unless(Steer)
    def steer(self, steer: Steer) -> None:
        """Offers a message to the running turn; with none running it is sent as an ordinary one."""
        steer_id = steer.request_id or self._new_request_id()
        actor = steer.actor or Actor(id="user", role=Role.USER)
        if steer_id in self._state.outcomes or self._log.has_message(steer_id):
            return
        if self._state.closed:
            _remember(
                self._state.outcomes, steer_id, Outcome(outcome="refused", detail="The session is closed.")
            )
            return
        running = self._root_turn()
        if why := self._no_room():
            _remember(self._state.outcomes, steer_id, Outcome(outcome="refused", detail=why))
        elif running and not self._state.taken_over_by:
            self._receive_steer(steer_id, running, steer.text, actor)
        else:
            self._queue_steer(steer_id, steer.text, actor)

    def _receive_steer(self, steer_id: str, turn_id: str, text: str, actor: Actor) -> Event:
        self._state.steers[steer_id] = PendingSteer(
            steer_id=steer_id, turn_id=turn_id, text=text, actor=actor
        )
        _remember(self._state.outcomes, steer_id, Outcome(outcome="pending", turn_id=turn_id))
        return self._append(
            EventType.STEER_RECEIVED, actor, turn_id=turn_id, data={"steer_id": steer_id, "text": text}
        )

    def _consume_steer(self, agent: Actor, steer_id: str) -> None:
        steer = self._state.steers.pop(steer_id, None)
        if steer is None:
            return
        consumed = self._append(
            EventType.STEER_CONSUMED, agent, turn_id=steer.turn_id, data={"steer_id": steer_id}
        )
        self._log.add_message(
            steer_id, steer.actor, steer.text, workflow.now(), turn_id=steer.turn_id, extra={"kind": "steer"}
        )
        _remember(
            self._state.outcomes,
            steer_id,
            Outcome(outcome="consumed", seq=consumed.seq, turn_id=steer.turn_id),
        )

    def _expire_steers(self, turn_id: str) -> None:
        for steer in [steer for steer in self._state.steers.values() if steer.turn_id == turn_id]:
            del self._state.steers[steer.steer_id]
            self._append(
                EventType.STEER_EXPIRED, steer.actor, turn_id=turn_id, data={"steer_id": steer.steer_id}
            )
            self._queue_steer(steer.steer_id, steer.text, steer.actor)

    def _queue_steer(self, steer_id: str, text: str, actor: Actor) -> None:
        if why := self._no_room():
            _remember(self._state.outcomes, steer_id, Outcome(outcome="refused", detail=why))
            return
        recorded = self._log.add_message(steer_id, actor, text, workflow.now())
        turn = self._new_turn(text, steer_id, {})
        self._enqueue(turn)
        _remember(
            self._state.outcomes,
            steer_id,
            Outcome(outcome="queued", seq=recorded.seq, turn_id=turn.input.turn_id),
        )
        self._begin_next()

    def _waiting(self) -> int:
        """Turns that wait, and steers: one that isn't taken up becomes a turn."""
        return len(self._state.queue) + len(self._state.steers)

    def _no_room(self) -> str | None:
        """Why no further turn can wait here."""
        if self._state.closing:
            return "The session is closed."
        if self._full():
            return "The session holds all it may; go on in a new one."
        if self._waiting() >= MAX_QUEUED_TURNS:
            return f"{MAX_QUEUED_TURNS} turns are waiting."
        return None

    def _new_request_id(self) -> str:
        while True:
            self._state.request_count += 1
            if self._is_free(request_id := f"r{self._state.request_count}"):
                return request_id

    def _new_message_id(self) -> str:
        number = self._log.tip + 1
        while not self._is_free(f"m{number}"):
            number += 1
        return f"m{number}"

    def _is_free(self, name: str) -> bool:
        """Whether nobody has chosen this id, for a message or for a request (which a steer is at first)."""
        return not (name in self._state.outcomes or name in self._state.sent or self._log.has_message(name))

    # Sub-agents

    @workflow.update
    def spawn(self, spawn: Spawn) -> Spawned:
        """Starts a sub-agent for a running turn; it writes to this session directly."""
        parent = self._state.turns[spawn.parent_turn_id]
        if known := parent.spawned.get(spawn.key):
            return Spawned(turn_id=known, seq=self._log.tip)
        turn_id = f"{spawn.parent_turn_id}.{len(parent.spawned) + 1}"
        parent.spawned[spawn.key] = turn_id
        turn = TurnState(
            input=TurnInput(
                session_id=self._id,
                turn_id=turn_id,
                attempt=1,
                agent=spawn.agent,
                text=spawn.text,
                parent_turn_id=spawn.parent_turn_id,
                depth=parent.input.depth + 1,
            )
        )
        self._state.turns[turn_id] = turn
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

    @spawn.validator
    def _validate_spawn(self, spawn: Spawn) -> None:
        require(spawn, Spawn)
        parent = self._state.turns.get(spawn.parent_turn_id)
        if parent is None or parent.status != "running" or parent.input.attempt != spawn.attempt:
            raise refusal(names.UNKNOWN_TURN, f"Turn {spawn.parent_turn_id} isn't running (any more).")
        if parent.input.depth >= MAX_SPAWN_DEPTH:
            raise refusal(names.SPAWN_REFUSED, f"Sub-agents may be nested {MAX_SPAWN_DEPTH} deep.")
        self._refuse_if_full()
        if len(parent.spawned) >= MAX_SUB_AGENTS_PER_TURN and spawn.key not in parent.spawned:
            raise refusal(names.SPAWN_REFUSED, f"One turn may spawn {MAX_SUB_AGENTS_PER_TURN} sub-agents.")

    # People

    @workflow.update
    def join(self, membership: Membership) -> Recorded:
        """Adds a participant; joining twice is harmless."""
        participant = membership.participant
        if self._state.participants.get(participant.id) == participant:
            return Recorded(seq=self._log.tip)
        self._state.participants[participant.id] = participant
        return Recorded(seq=self._append(EventType.PARTICIPANT_JOINED, participant).seq)

    @join.validator
    def _validate_join(self, membership: Membership) -> None:
        require(membership, Membership)
        self._refuse_if_closed()
        known = self._state.participants.get(membership.participant.id)
        if known == membership.participant:
            return
        self._refuse_if_full()
        if known is None and len(self._state.participants) >= MAX_PARTICIPANTS:
            raise refusal(
                names.TOO_MANY_PARTICIPANTS, f"A session has at most {MAX_PARTICIPANTS} participants."
            )

    @workflow.update
    def leave(self, membership: Membership) -> Recorded:
        """Removes a participant; an operator who leaves releases the session."""
        participant = self._state.participants.pop(membership.participant.id, None)
        if participant is None or self._state.closed:
            return Recorded(seq=self._log.tip)
        left = self._append(EventType.PARTICIPANT_LEFT, participant)
        if self._state.taken_over_by and self._state.taken_over_by.id == participant.id:
            left = self._release(participant)
        return Recorded(seq=left.seq)

    @leave.validator
    def _validate_leave(self, membership: Membership) -> None:
        require(membership, Membership)

    @workflow.update
    def take_over(self, take_over: TakeOver) -> Recorded:
        """Pauses the agent: the running turn is stopped, new ones wait, the operator speaks."""
        operator = take_over.operator
        if self._state.taken_over_by and self._state.taken_over_by.id == operator.id:
            return Recorded(seq=self._log.tip)
        if operator.id not in self._state.participants:
            self._state.participants[operator.id] = operator
            self._append(EventType.PARTICIPANT_JOINED, operator)
        self._state.taken_over_by = operator
        started = self._append(
            EventType.TAKEOVER_STARTED,
            operator,
            data={"reason": take_over.reason} if take_over.reason else None,
        )
        if running := self._root_turn():
            self._request_stop(running, operator, None, "takeover")
        return Recorded(seq=started.seq)

    @take_over.validator
    def _validate_take_over(self, take_over: TakeOver) -> None:
        require(take_over, TakeOver)
        self._refuse_if_closed()
        if take_over.operator.role != Role.OPERATOR:
            raise refusal(INVALID_ROLE, "Only an actor with the role 'operator' can take over.")
        holder = self._state.taken_over_by
        if holder and holder.id != take_over.operator.id:
            raise refusal(names.TAKEN_OVER, f"{holder.name or holder.id} has taken over already.")

    @workflow.update
    def release(self, release: TakeOver) -> Recorded:
        """Gives the session back to the agent, which continues with what was said."""
        return Recorded(seq=self._release(release.operator).seq)

    @release.validator
    def _validate_release(self, release: TakeOver) -> None:
        require(release, TakeOver)
        self._refuse_if_closed()
        if self._state.taken_over_by is None:
            raise refusal(names.NOT_TAKEN_OVER, "Nobody has taken over.")

    def _release(self, operator: Actor) -> Event:
        self._state.taken_over_by = None
        released = self._append(EventType.TAKEOVER_RELEASED, operator)
        self._begin_next()
        return released

    def _answer_queued(self, operator: Actor) -> None:
        """What a person has answered in the agent's place, the agent need not answer again."""
        for turn_id in list(self._state.queue):
            self._end_turn(
                self._state.turns[turn_id], "completed", {"answered_by": operator.id}, actor=operator
            )

    @workflow.signal
    @drop_unless(Close, optional=True)
    def close(self, close: Close | None = None) -> None:
        """Ends the session: turns are stopped, nothing more is taken, ``session.closed`` comes last."""
        if self._state.closing:
            return
        self._state.closing = close or Close()
        self._state.orphans += self._state.purchases
        self._stop_all(self._state.closing.actor, "session_closed")
        self._close_when_settled()

    def _close_when_settled(self) -> None:
        close = self._state.closing
        if close and not self._state.turns and not self._state.closed:
            self._state.closed = True
            self._append(EventType.SESSION_CLOSED, close.actor or SYSTEM, data={"reason": close.reason})

    # Reading

    @workflow.query
    def replay(self, after: int = 0, limit: int = MAX_REPLAY_EVENTS) -> ReplayPage:
        """Events after a cursor, oldest first, one bounded page at a time."""
        return self._log.replay(after, max(1, min(limit, MAX_REPLAY_EVENTS)), closed=self._state.closed)

    @workflow.query
    def snapshot(self) -> Snapshot:
        """What the session is doing now."""
        state = self._state
        return Snapshot(
            session_id=self._id,
            agent=self._start.agent,
            status=self._status(),
            tip=self._log.tip,
            title=self._start.title,
            metadata=self._start.metadata,
            created=state.created,
            running=tuple(turn.view() for turn in state.turns.values() if turn.status != "queued"),
            queued=tuple(state.turns[turn_id].view() for turn_id in state.queue),
            participants=tuple(state.participants.values()),
            taken_over_by=state.taken_over_by,
            open_messages=self._log.open_messages(),
            runs=state.runs,
            refused=self._log.state.refused,
        )

    @workflow.query
    def outcome(self, request_id: str) -> Outcome | None:
        """What became of a stop or steer; null if it is unknown."""
        return self._state.outcomes.get(request_id)

    def _status(self) -> SessionStatus:
        if self._state.closing:
            return SessionStatus.CLOSED
        if self._state.taken_over_by:
            return SessionStatus.PAUSED
        return SessionStatus.RUNNING if self._busy() else SessionStatus.IDLE

    # Helpers

    def _refuse_if_closed(self) -> None:
        if self._state.closing:
            raise refusal(names.SESSION_CLOSED, "The session is closed; start another one.")

    def _refuse_if_full(self) -> None:
        if self._full():
            raise refusal(
                names.SESSION_FULL,
                f"The session holds all it may ({self._start.limits.max_log_bytes:,} bytes); "
                "go on in a new one.",
            )

    def _append(
        self,
        event_type: str,
        actor: Actor,
        *,
        turn_id: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> Event:
        clean = {key: value for key, value in (data or {}).items() if value is not None}
        return self._log.append(event_type, actor, workflow.now(), turn_id=turn_id, data=clean)


def _agent(name: str) -> Actor:
    return Actor(id=name, role=Role.AGENT)
