"""The pure machines of a session under random messages: what must hold, whatever order they come in."""

from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support import examples
from waystation.models.events import Actor, EventType, Item, Role, Write
from waystation.models.owners import TurnGiven
from waystation.models.sessions import (
    Close,
    OnBusy,
    Release,
    SendMessage,
    SessionLimits,
    SessionOwner,
    Spawn,
    Steer,
    Stop,
    TakeOver,
    TurnAttempt,
    TurnEnded,
    Withdraw,
)
from workflows.session.event_log import LogState
from workflows.session.log import SessionLog
from workflows.session.people import People, PeopleState
from workflows.session.purchases import Purchases, PurchasesState
from workflows.session.questions import Questions, QuestionsState
from workflows.session.turn_state import Identity, TurnsState
from workflows.session.turns import Turns

NOW = datetime(2026, 1, 1, tzinfo=UTC)
USER = Actor(id="ann", role=Role.USER)
OPERATORS = [Actor(id="olga", role=Role.OPERATOR), Actor(id="otto", role=Role.OPERATOR)]
NAMESAKES = [Actor(id="olga", role=Role.USER), Actor(id="otto", role=Role.USER)]
"""Users who have operators' ids."""
BOT = Actor(id="bot", role=Role.AGENT)
TERMINAL = {"turn.completed", "turn.failed", "turn.stopped"}
TURN_IDS = st.sampled_from(["t1", "t2", "t3", "t1.1", "t2.1", "t2.2"])
BOUNDS = settings(max_examples=examples(40), stateful_step_count=30)


def now() -> datetime:
    return NOW


class LogMachine(RuleBasedStateMachine):
    """Two messages of one turn are written, repeated, muted, ended and withdrawn."""

    def __init__(self) -> None:
        super().__init__()
        self.log = SessionLog()
        self.log.open_fence("t1", 1)
        self.count = 0

    def write(self, kind: str, message_id: str, data: dict[str, int | str]) -> None:
        self.count += 1
        item = Item(n=self.count, type=kind, message_id=message_id, data=dict(data))
        self.log.accept(Write(writer="w", actor=BOT, turn_id="t1", attempt=1, items=(item,)), NOW)

    @rule(message=st.sampled_from("ab"), offset=st.integers(0, 6), text=st.text("xy", min_size=1, max_size=3))
    def delta(self, message: str, offset: int, text: str) -> None:
        self.write("message.delta", message, {"offset": offset, "text": text})

    @rule(message=st.sampled_from("ab"))
    def complete(self, message: str) -> None:
        self.write("message.completed", message, {})

    @rule()
    def retry(self) -> None:
        self.log.supersede_attempt("t1", NOW)

    @rule()
    def carry_over(self) -> None:
        state = LogState.model_validate_json(self.log.state.model_dump_json())
        assert state == self.log.state
        self.log = SessionLog(state)

    @invariant()
    def seq_strictly_grows(self) -> None:
        numbers = [event.seq for event in self.log.state.events]
        assert numbers == sorted(set(numbers))
        assert not numbers or numbers[-1] == self.log.tip

    @invariant()
    def offsets_join(self) -> None:
        for message_id, message in self.log.state.open.items():
            text = ""
            for event in self.log.state.events:
                if event.message_id == message_id and event.type == EventType.MESSAGE_DELTA:
                    assert event.data["offset"] == len(text)
                    text += str(event.data["text"])
            assert text == message.text

    @invariant()
    def replay_pages_concatenate_to_the_log(self) -> None:
        events, after, more = [], 0, True
        while more:
            page = self.log.replay(after, 2)
            events += page.events
            after, more = page.next_after, page.more
        assert events == self.log.state.events


class PeopleMachine(RuleBasedStateMachine):
    """Operators join, leave, take over and release, as far as they are allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.log = SessionLog()
        self.people = People(PeopleState(), self.log, now)

    @rule(who=st.sampled_from([USER, *NAMESAKES, *OPERATORS]))
    def join(self, who: Actor) -> None:
        if self.people.why_not_join(who, full=None) is None:
            self.people.join(who)

    @rule(who=st.sampled_from([USER, *NAMESAKES, *OPERATORS]))
    def leave(self, who: Actor) -> None:
        held = self.people.holds(who)
        assert self.people.leave(who, closed=False).released == held

    @rule(
        who=st.sampled_from([USER, *NAMESAKES, *OPERATORS]),
        instead_of=st.none() | st.sampled_from([one.id for one in (USER, *NAMESAKES, *OPERATORS)]),
    )
    def take_over(self, who: Actor, instead_of: str | None) -> None:
        wanted, holder = TakeOver(operator=who, instead_of=instead_of), self.people.state.taken_over_by
        if self.people.why_not_take_over(wanted) is None and not self.people.holds(who):
            assert holder is None or holder.id == instead_of, "nobody loses it to who didn't know of them"
            self.people.take_over(wanted)
            assert self.people.holds(who)

    @precondition(lambda self: self.people.paused)
    @rule(who=st.sampled_from([*NAMESAKES, *OPERATORS]))
    def release(self, who: Actor) -> None:
        assert (self.people.why_not_speak(who) is None) == self.people.holds(who)
        if self.people.why_not_speak(who) is None:
            self.people.release(who)

    @rule()
    def carry_over(self) -> None:
        state = PeopleState.model_validate_json(self.people.state.model_dump_json())
        assert state == self.people.state
        self.people = People(state, self.log, now)

    @invariant()
    def who_has_taken_over_takes_part(self) -> None:
        holder = self.people.state.taken_over_by
        assert holder is None or (
            holder.role == Role.OPERATOR and holder.id in self.people.state.participants
        )

    @invariant()
    def the_log_says_who_has_it_and_from_whom(self) -> None:
        holder = None
        for event in self.log.state.events:
            if event.type == EventType.TAKEOVER_STARTED:
                assert event.data.get("instead_of") == (holder.id if holder else None)
                holder = event.actor
            elif event.type == EventType.TAKEOVER_RELEASED:
                assert holder == event.actor
                holder = None
        assert self.people.state.taken_over_by == holder


class TurnsMachine(RuleBasedStateMachine):
    """Turns are sent, steered, stopped, retried, spawned and ended, and operators interfere."""

    OWNER: ClassVar[SessionOwner | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.clock = NOW
        self.log = SessionLog()
        self.people = People(PeopleState(), self.log, now)
        self.bind(TurnsState())

    def bind(self, state: TurnsState) -> None:
        identity = Identity("s", "bot", SessionLimits(), self.OWNER)
        purchases = Purchases(PurchasesState())
        questions = Questions(QuestionsState(), "s", (), self.log, lambda: self.clock)
        self.turns = Turns(state, identity, self.log, self.people, purchases, questions, lambda: self.clock)

    @rule(on_busy=st.sampled_from(list(OnBusy)), actor=st.sampled_from([USER, OPERATORS[0]]))
    def send(self, on_busy: OnBusy, actor: Actor) -> None:
        message = SendMessage(text="hi", actor=actor, on_busy=on_busy)
        if self.turns.why_not_send(message) is None:
            self.turns.send(message)

    @rule(turn_id=st.none() | TURN_IDS)
    def stop(self, turn_id: str | None) -> None:
        roots = [
            root
            for root, turn in self.turns.state.turns.items()
            if turn.input.parent_turn_id is None and turn.status != "queued"
        ]
        request_id = f"stop-{len(self.turns.state.outcomes)}"
        self.turns.stop(Stop(turn_id=turn_id, request_id=request_id))
        if roots and turn_id is None:
            # Also the second stop of a turn hears of that turn.
            assert self.turns.state.outcomes[request_id].turn_id == roots[0]
            assert self.turns.state.outcomes[request_id].outcome in ("pending", "stopped")

    @rule(number=st.integers(0, 3), actor=st.sampled_from([USER, OPERATORS[0]]))
    def withdraw(self, number: int, actor: Actor) -> None:
        state = self.turns.state
        queued = [state.turns[turn_id].input.message_id for turn_id in state.queue]
        known = [*queued, *state.withdrawn, "unknown"]
        withdraw = Withdraw(message_id=known[number % len(known)] or "unknown", actor=actor)
        refused = self.turns.why_not_withdraw(withdraw)
        assert (refused is not None) == (withdraw.message_id == "unknown")
        if refused is None:
            withdrawn = self.turns.withdraw(withdraw)
            assert withdrawn.turn_id not in state.turns
            assert self.turns.withdraw(withdraw) == withdrawn

    @rule()
    def steer(self) -> None:
        self.turns.steer(Steer(text="rather this"))

    @rule()
    def consume_steer(self) -> None:
        for steer_id in list(self.turns.state.steers)[:1]:
            self.turns.consume_steer(BOT, steer_id)

    @rule(parent=TURN_IDS, key=st.sampled_from("ab"))
    def spawn(self, parent: str, key: str) -> None:
        spawn = Spawn(parent_turn_id=parent, attempt=1, key=key, agent="helper", text="help")
        if self.turns.why_not_spawn(spawn) is None:
            self.turns.spawn(spawn)

    @rule(turn_id=TURN_IDS)
    def retry(self, turn_id: str) -> None:
        self.turns.turn_attempt(TurnAttempt(turn_id=turn_id, attempt=2, code="x", detail="y"))

    @rule(turn_id=TURN_IDS, failed=st.booleans())
    def end(self, turn_id: str, failed: bool) -> None:
        turn = self.turns.state.turns.get(turn_id)
        if turn and turn.status != "queued" and turn_id not in self.turns.state.launch:
            self.turns.turn_ended(TurnEnded(turn_id=turn_id, outcome="failed" if failed else "completed"))

    @rule()
    def work(self) -> None:
        self.turns.state.launch.clear()
        self.turns.state.news.clear()
        while self.turns.state.cancel:
            stopped = self.turns.state.cancel.pop(0)
            self.turns.turn_ended(TurnEnded(turn_id=stopped, outcome="stopped"))

    @rule()
    def nobody_reports(self) -> None:
        """Workflows that are gone say nothing: what was stopped ends by its deadline all the same."""
        while deadline := self.turns.next_deadline():
            self.clock = max(deadline, self.clock)
            self.turns.end_overdue()
        assert not [turn for turn in self.turns.state.turns.values() if turn.status == "stopping"]
        if self.turns.state.closing:
            assert self.turns.state.closed

    @rule()
    def take_over(self) -> None:
        if not self.people.paused and self.turns.why_closed() is None:
            self.people.take_over(TakeOver(operator=OPERATORS[0]))
            self.turns.pause(OPERATORS[0])

    @rule()
    def release(self) -> None:
        if self.people.paused and self.turns.why_closed() is None:
            self.turns.release(Release(operator=OPERATORS[0]))

    @rule(answer=st.booleans())
    def hand_over(self, answer: bool) -> None:
        release = Release(operator=OPERATORS[0], note="settled", answer=answer)
        if self.people.paused and self.turns.why_closed() is None:
            before = set(self.turns.state.turns)
            self.turns.release(release)
            assert (set(self.turns.state.turns) > before) == answer
            self.turns.begin_next()

    @precondition(lambda self: self.log.tip > 20)
    @rule()
    def close(self) -> None:
        self.turns.close(Close())

    @rule()
    def carry_over(self) -> None:
        state = TurnsState.model_validate_json(self.turns.state.model_dump_json())
        assert state == self.turns.state
        self.bind(state)

    @invariant()
    def at_most_one_turn_runs_and_none_that_runs_while_paused(self) -> None:
        roots = [
            turn
            for turn in self.turns.state.turns.values()
            if turn.input.parent_turn_id is None and turn.status != "queued"
        ]
        assert len(roots) <= 1
        assert not (self.people.paused and any(turn.status == "running" for turn in roots))

    @invariant()
    def what_interrupts_goes_first_and_each_in_order_of_arrival(self) -> None:
        state = self.turns.state
        arrived = sorted(
            state.queue, key=lambda turn_id: (not state.turns[turn_id].interrupts, int(turn_id[1:]))
        )
        assert state.queue == arrived

    @invariant()
    def nothing_waits_with_nothing_in_its_way(self) -> None:
        state = self.turns.state
        at_work = any(
            turn.input.parent_turn_id is None and turn.status != "queued" for turn in state.turns.values()
        )
        assert at_work or self.people.paused or state.closing or not state.queue

    @invariant()
    def each_turn_has_exactly_one_terminal_event_once_it_is_over(self) -> None:
        ended = [
            event.turn_id
            for event in self.log.state.events
            if event.type in TERMINAL or event.type == EventType.AGENT_FINISHED
        ]
        assert len(ended) == len(set(ended))
        begun = {
            event.turn_id
            for event in self.log.state.events
            if event.type in (EventType.TURN_QUEUED, EventType.TURN_STARTED, EventType.AGENT_SPAWNED)
        }
        assert begun == set(ended) | set(self.turns.state.turns)

    @invariant()
    def nothing_is_stopped_that_nobody_stopped(self) -> None:
        asked = {event.turn_id for event in self.log.state.events if event.type == EventType.STOP_REQUESTED}
        stopped = {event.turn_id for event in self.log.state.events if event.type == "turn.stopped"}
        withdrawn = {
            event.turn_id for event in self.log.state.events if event.type == EventType.MESSAGE_WITHDRAWN
        }
        assert stopped <= asked | withdrawn

    @invariant()
    def what_is_withdrawn_never_begins(self) -> None:
        events = self.log.state.events
        withdrawn = [event.turn_id for event in events if event.type == EventType.MESSAGE_WITHDRAWN]
        assert len(withdrawn) == len(set(withdrawn))
        begun = {event.turn_id for event in events if event.type == EventType.TURN_STARTED}
        assert begun.isdisjoint(withdrawn)

    @invariant()
    def sub_agents_end_with_their_parent(self) -> None:
        turns = self.turns.state.turns
        for turn in turns.values():
            if turn.input.parent_turn_id is not None and turn.status == "running":
                assert turns[turn.input.parent_turn_id].status == "running"

    @invariant()
    def the_session_is_closed_last(self) -> None:
        kinds = [event.type for event in self.log.state.events]
        assert EventType.SESSION_CLOSED not in kinds or kinds[-1] == EventType.SESSION_CLOSED


class OwnedTurnsMachine(TurnsMachine):
    """The same, where a workflow runs the turns: it is told of them, and may be gone."""

    OWNER = SessionOwner(workflow_id="w", takes_turns=True)

    @rule()
    def tell_again(self) -> None:
        self.turns.state.news.clear()
        self.turns.tell_again()
        told = [news.turn.turn_id for news in self.turns.state.news if isinstance(news, TurnGiven)]
        roots = [
            turn_id
            for turn_id, turn in self.turns.state.turns.items()
            if turn.status == "running" and turn.input.parent_turn_id is None
        ]
        assert told == roots

    @invariant()
    def a_turn_that_runs_is_checked_and_bounded(self) -> None:
        for turn_id, turn in self.turns.state.turns.items():
            is_owned = turn.status == "running" and self.turns.is_for_the_owner(turn_id)
            assert bool(turn.check_by) == is_owned
            assert bool(turn.ends_by) == (is_owned or turn.status == "stopping")


TestLog = LogMachine.TestCase
TestLog.settings = BOUNDS
TestPeople = PeopleMachine.TestCase
TestPeople.settings = BOUNDS
TestTurns = TurnsMachine.TestCase
TestTurns.settings = BOUNDS
TestOwnedTurns = OwnedTurnsMachine.TestCase
TestOwnedTurns.settings = BOUNDS


def test_a_workflow_that_runs_a_turn_is_asked_for_now_and_then_until_the_turn_is_too_long() -> None:
    clock, log = NOW, SessionLog()
    people, purchases = People(PeopleState(), log, now), Purchases(PurchasesState())
    owner, limits = SessionOwner(workflow_id="w", takes_turns=True), SessionLimits(turn_timeout_seconds=1_500)
    identity = Identity("s", "bot", limits, owner)
    questions = Questions(QuestionsState(), "s", (), log, now)
    turns = Turns(TurnsState(), identity, log, people, purchases, questions, lambda: clock)
    turns.send(SendMessage(text="hi", actor=USER))
    assert turns.state.launch == ["t1"]
    told: list[str] = []
    while turns.state.turns:
        deadline = turns.next_deadline()
        assert deadline is not None
        clock = deadline
        turns.end_overdue()
        told += [news.kind for news in turns.state.news]
        turns.state.news.clear()
    assert told == ["turn", "turn", "stop"]
    assert clock == NOW + timedelta(seconds=1_500)
    assert (log.state.events[-1].type, log.state.events[-1].data["code"]) == ("turn.failed", "turn_timeout")


@pytest.mark.parametrize(("in_order", "queue"), [(True, ["t2", "t3"]), (False, ["t3", "t2"])])
def test_runs_of_before_are_replayed_with_the_newest_interrupt_first(
    in_order: bool, queue: list[str]
) -> None:
    log, identity = SessionLog(), Identity("s", "bot", SessionLimits())
    people, purchases = People(PeopleState(), log, now), Purchases(PurchasesState())
    questions = Questions(QuestionsState(), "s", (), log, now)
    turns = Turns(TurnsState(), identity, log, people, purchases, questions, now, lambda: in_order)
    for _ in range(3):
        turns.send(SendMessage(text="hi", actor=USER, on_busy=OnBusy.INTERRUPT))
        turns.state.launch.clear()  # its workflow has been started
    assert turns.state.queue == queue


def test_a_note_to_the_agent_waits_for_the_turn_that_is_being_stopped_and_goes_before_the_rest() -> None:
    machine = TurnsMachine()
    machine.steer()
    machine.work()
    machine.take_over()
    machine.send(OnBusy.QUEUE, USER)
    machine.hand_over(answer=True)
    assert machine.turns.state.queue == ["t3", "t2"]
    machine.each_turn_has_exactly_one_terminal_event_once_it_is_over()
    machine.what_interrupts_goes_first_and_each_in_order_of_arrival()
    machine.work()
    assert machine.turns.state.launch == ["t3"]
