"""What people and agents ask of a session's turns: to send, stop, steer, and spawn sub-agents."""

from waystation.models.events import Actor, Event, EventType, Role
from waystation.models.owners import SteerGiven, TurnGiven
from waystation.models.sessions import (
    MAX_QUEUED_TURNS,
    AddNote,
    OnBusy,
    Outcome,
    Release,
    SendMessage,
    Sent,
    Spawn,
    Spawned,
    Steer,
    Stop,
    TurnInput,
    Withdraw,
    Withdrawn,
)
from waystation.temporal import names
from workflows.session.course import TurnCourse, agent_actor
from workflows.session.refused import Refused
from workflows.session.turn_state import PendingSteer, TurnState, remember

MAX_SPAWN_DEPTH = 5
MAX_SUB_AGENTS_PER_TURN = 50


class Turns(TurnCourse):
    """Answers each request, or says why it is refused."""

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

    # Sending

    def send(self, message: SendMessage) -> Sent:
        """Records a message and starts, queues, steers or refuses a turn for it."""
        if message.message_id and (known := self.state.sent.get(message.message_id)):
            return known
        message_id = message.message_id or self._new_message_id()
        sent = self._take(message, message_id).model_copy(update={"digest": message.digest()})
        remember(self.state.sent, message_id, sent)
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
        return self.why_full() or self._why_queue_full()

    def _why_queue_full(self) -> Refused | None:
        if self._waiting() < MAX_QUEUED_TURNS:
            return None
        return Refused(names.QUEUE_FULL, f"{MAX_QUEUED_TURNS} turns are waiting already; try again later.")

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
        turn = self._new_turn(message.text, message_id, message.data, message.actor)
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

    def _answer_queued(self, operator: Actor) -> None:
        """Completes waiting turns that a person has answered in the agent's place."""
        for turn_id in list(self.state.queue):
            self._end_turn(
                self.state.turns[turn_id], "completed", {"answered_by": operator.id}, actor=operator
            )

    # Withdrawing

    def withdraw(self, withdraw: Withdraw) -> Withdrawn:
        """Takes back a message that waits for its turn: no agent answers it, or finds it when it reads."""
        message_id, actor = withdraw.message_id, withdraw.actor
        if known := self.state.withdrawn.get(message_id):
            return known
        turn = self._queued_for(message_id)
        assert turn is not None, f"message {message_id} waits for no turn"
        turn_id = turn.input.turn_id
        recorded = self._log.append(
            EventType.MESSAGE_WITHDRAWN, actor, self._now(), turn_id=turn_id, message_id=message_id
        )
        withdrawn = Withdrawn(message_id=message_id, turn_id=turn_id, seq=recorded.seq)
        remember(self.state.withdrawn, message_id, withdrawn)
        self._end_turn(turn, "stopped", {"reason": "withdrawn"}, actor=actor)
        return withdrawn

    def why_not_withdraw(self, withdraw: Withdraw) -> Refused | None:
        """Returns why this message can't be withdrawn, or ``None``."""
        if withdraw.message_id in self.state.withdrawn or self._queued_for(withdraw.message_id):
            return None
        return Refused(
            names.NOT_QUEUED,
            f"The message {withdraw.message_id} waits for no turn: its turn has begun, or it was never sent.",
        )

    def _queued_for(self, message_id: str) -> TurnState | None:
        queued = (self.state.turns[turn_id] for turn_id in self.state.queue)
        return next((turn for turn in queued if turn.input.message_id == message_id), None)

    # Stopping

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
            remember(self.state.outcomes, request_id, finished)
            return
        remember(self.state.outcomes, request_id, Outcome(outcome="pending", turn_id=target))
        self._request_stop(turn.input.turn_id, stop.actor, request_id, stop.reason)

    def pause(self, operator: Actor) -> None:
        """Stops the running turn because an operator has taken over."""
        if running := self._root_turn():
            self._request_stop(running, operator, None, "takeover")

    def why_not_release(self, release: Release) -> Refused | None:
        """Returns why the session can't be handed back with this note, or ``None``; without one it can be."""
        if release.note is None:
            return None
        if refused := self.why_full():
            return refused
        return self._why_queue_full() if release.answer else None

    def release(self, release: Release) -> int:
        """Hands the session back to the agent and returns the seq."""
        released = self._people.release(release.operator)
        if release.note:
            self._people.add_note(AddNote(author=release.operator, text=release.note))
        if release.note and release.answer:
            turn = self._new_turn(release.note, None, {"kind": "handover"}, release.operator)
            # Before what people have said meanwhile, which it may be about.
            if self._root_under_way():
                turn.interrupts = True
                self._enqueue(turn)
            else:
                self.state.queue.insert(0, turn.input.turn_id)
        self.begin_next()
        return released

    # Steering

    def steer(self, steer: Steer) -> None:
        """Offers a message to the running turn; with none running it is sent as an ordinary one."""
        steer_id = steer.request_id or self._new_request_id()
        actor = steer.actor or Actor(id="user", role=Role.USER)
        if steer_id in self.state.outcomes or self._log.has_message(steer_id):
            return
        if self.state.closed:
            remember(
                self.state.outcomes, steer_id, Outcome(outcome="refused", detail="The session is closed.")
            )
            return
        running = self._root_turn()
        if why := self._no_room():
            remember(self.state.outcomes, steer_id, Outcome(outcome="refused", detail=why))
        elif running and not self._people.paused:
            self._receive_steer(steer_id, running, steer.text, actor)
        else:
            self._queue_steer(steer_id, steer.text, actor)

    def _receive_steer(self, steer_id: str, turn_id: str, text: str, actor: Actor) -> Event:
        self.state.steers[steer_id] = PendingSteer(steer_id=steer_id, turn_id=turn_id, text=text, actor=actor)
        remember(self.state.outcomes, steer_id, Outcome(outcome="pending", turn_id=turn_id))
        if self.is_for_the_owner(turn_id):
            self._tell_owner(SteerGiven(turn_id=turn_id, steer_id=steer_id, text=text, actor=actor))
        return self._append(
            EventType.STEER_RECEIVED, actor, turn_id=turn_id, data={"steer_id": steer_id, "text": text}
        )

    def tell_again(self) -> None:
        """Tells the owner of the turn that it runs, and of what was said to it: it has begun again."""
        running = self._root_turn()
        if running is None or not self.is_for_the_owner(running):
            return
        self._tell_owner(TurnGiven(turn=self.state.turns[running].input))
        for steer in self.state.steers.values():
            self._tell_owner(
                SteerGiven(turn_id=steer.turn_id, steer_id=steer.steer_id, text=steer.text, actor=steer.actor)
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
        remember(
            self.state.outcomes,
            steer_id,
            Outcome(outcome="consumed", seq=consumed.seq, turn_id=steer.turn_id),
        )
        return True

    # Ids

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
            agent_actor(parent.input.agent),
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
