"""``AgentSession``: one durable session between agents, people and their devices.

The workflow owns the truth (who may write, what happened in which order) and nothing else:
text streams past it on the live bus, agents' code runs in their own processes, and each turn
is a workflow of its own (turn.py). What a message means is decided by pure machines: the log (event_log.py,
log.py), the turns (course.py, turns.py), the people (people.py) and the purchases (purchases.py). Handlers
only hand messages to them and never wait, so none needs a lock or has to be drained; the one loop in ``run``
does what has to be awaited, with turn_workflows.py where turns are concerned.
"""

import asyncio
import contextlib
import functools
from datetime import timedelta
from types import NoneType

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, TemporalError

with workflow.unsafe.imports_passed_through():
    from pydantic import JsonValue

    from waystation.models.attention import Waiting
    from waystation.models.decisions import Cancel
    from waystation.models.events import MONEY_TYPES, SYSTEM, Event, EventType, Publish
    from waystation.models.questions import Answered, AnswerQuestion, OpenApprovals, QuestionView
    from waystation.models.sessions import (
        MAX_REPLAY_EVENTS,
        AddNote,
        Assign,
        Close,
        LogPosition,
        LogReading,
        Membership,
        Note,
        Outcome,
        Recorded,
        Release,
        ReplayPage,
        SendMessage,
        Sent,
        SessionStatus,
        Snapshot,
        Spawn,
        Spawned,
        Steer,
        Stop,
        SuggestReply,
        TakeOver,
        TurnAttempt,
        TurnEnded,
        TurnWaiting,
        Withdraw,
        Withdrawn,
    )
    from waystation.models.webhooks import news_of_session
    from waystation.temporal import names
    from waystation.temporal.calls import start_activity, tell_workflow
    from waystation.temporal.messages import ASKER_ANSWERED, PURCHASE_TURN_STOPPED, SEARCH_KEY
    from workflows.guards import answering, drop_unless, ending, starting
    from workflows.policies import ONE_ATTEMPT, SEARCH_KEY_TIMEOUT, SHORTEST_RUN
    from workflows.proofs import verdict_on
    from workflows.refusals import refusal, require
    from workflows.session.listing import Listing
    from workflows.session.log import SessionLog
    from workflows.session.marks import mark, marked_at_start
    from workflows.session.owner import Owner
    from workflows.session.people import People
    from workflows.session.purchases import Purchases
    from workflows.session.questions import Questions, Reply
    from workflows.session.refused import Refused
    from workflows.session.state import SessionInput, SessionState
    from workflows.session.suggestions import Suggestions
    from workflows.session.turn_state import Identity
    from workflows.session.turn_workflows import TurnWorkflows
    from workflows.session.turns import Turns
    from workflows.session.waiting import waiting_of
    from workflows.webhooks.news import WebhookOutbox


DEADLINES = "session-deadlines"
"""Runs that began before sessions had deadlines go on without them."""
INTERRUPTS_IN_ORDER = "session-interrupts-in-order"
"""Runs in which the newest interrupt went first are replayed so."""
SHORTEST_RUNS = "session-shortest-runs"
"""Runs that have continued as new within ``SHORTEST_RUN`` are replayed so."""
OPENED_ONCE = "session-opened-once"
"""Runs that have recorded a tool call again while it was open are replayed so: numbers must not shift."""

GRANTS_ARE_PERSONAL = "session-grants-are-personal"
"""Runs in which one person's approval under a rule decided what others are asked are replayed so."""
RULES_BIND_EDITS = "session-rules-bind-edits"
"""Runs in which a person has changed arguments to what a rule denies are replayed so."""
ASKS_FOR_A_KEY = "session-asks-for-a-search-key"
"""Runs that began before sessions had search attributes go on without them."""
LISTS_ASSIGNEES = "session-lists-assignees"
"""Runs whose assignments were told to no list are replayed so."""
LISTS_UNASSIGNED = "session-lists-unassigned"
"""Runs whose lists knew who looks after a session, but not which nobody looks after, are replayed so."""


def _refuse_if(refused: Refused | None) -> None:
    if refused:
        raise refusal(refused.kind, refused.message)


@workflow.defn(name=names.SESSION_WORKFLOW)
class AgentSession:
    """The workflow of a session; its workflow id is the session's id."""

    @workflow.init
    @starting
    def __init__(self, start: SessionInput) -> None:
        self._start = start.model_copy(update={"state": None})
        self._id = workflow.info().workflow_id
        self._state = start.state or SessionState(created=workflow.now())
        self._log = SessionLog(self._state.log, lambda: workflow.patched(OPENED_ONCE))
        self._webhooks = WebhookOutbox()
        self._log.observers.append(self._tell_webhooks)
        self._people = People(self._state.people, self._log, workflow.now)
        self._purchases = Purchases(self._state.purchases)
        self._questions = Questions(
            self._state.questions,
            self._id,
            start.approval_rules,
            self._log,
            workflow.now,
            lambda: workflow.patched(GRANTS_ARE_PERSONAL),
        )
        self._ripe = False
        self._turns = Turns(
            self._state.turns,
            Identity(self._id, start.agent, start.limits, start.owner),
            self._log,
            self._people,
            self._purchases,
            self._questions,
            workflow.now,
            lambda: workflow.patched(INTERRUPTS_IN_ORDER),
        )
        self._workflows = TurnWorkflows(
            self._id, self._state, start.limits, self.turn_ended, self._turns.is_for_the_owner
        )
        self._owner = Owner(self._id, self._state.turns, start.owner, self.turn_ended)
        self._listing = Listing(
            self._state.listing,
            start.title,
            self._log,
            self._turns,
            self._state.people,
            self._purchases,
            self._questions,
        )
        self._suggestions = Suggestions(
            self._id, start.agent, start.limits, self._log, lambda: self._state.turns.closing is not None
        )
        self._listing.use_key(start.search_key or self._state.listing.key)
        if start.state is None:
            self._state.listing.marked = marked_at_start()
            self._log.append(
                EventType.SESSION_STARTED,
                start.started_by or SYSTEM,
                workflow.now(),
                data={"agent": start.agent, **({"title": start.title} if start.title else {})},
            )

    @workflow.run
    @ending
    async def run(self, start: SessionInput) -> None:
        telling = self._webhooks.start()
        asking = asyncio.ensure_future(self._ask_for_a_key()) if self._lacks_a_key() else None
        await self._workflows.check_inherited()
        while not self._state.turns.closed or self._has_work():
            try:
                await self._wait_for_work()
                self._mark()
                await self._work()
            except asyncio.CancelledError:
                # Temporal's own, gentle way to end a workflow: the turns are stopped, and everybody is told.
                self.close(Close(reason="The workflow was canceled."))
            except Exception:
                if self._state.turns.closing:
                    raise
                workflow.logger.exception("The session can't go on; it is closed")
                self.close(Close(reason="An error that nobody expected ended the session."))
            if self._ripe and self._should_continue_as_new():
                self._state.runs += 1
                self._continue_as_new()
        if asking:
            asking.cancel()
        self._suggestions.cancel()
        self._mark_listing({})
        await workflow.wait_condition(lambda: self._webhooks.empty and workflow.all_handlers_finished())
        telling.cancel()

    def _continue_as_new(self) -> None:
        following = self._start.model_copy(update={"state": self._state})
        if self._listing.enabled:
            workflow.continue_as_new(
                following, memo=workflow.memo(), search_attributes=workflow.info().typed_search_attributes
            )
        # The next run's memo is the one with which the first was started: it marks anew.
        self._state.questions.marked = None
        workflow.continue_as_new(following)

    # The loop: what has to be awaited

    def _has_work(self) -> bool:
        turns, state = self._state.turns, self._state
        told = state.purchases.orphans or state.questions.replies or turns.news
        return bool(turns.launch or turns.cancel or turns.resume or told)

    async def _wait_for_work(self) -> None:
        """Waits until there is something to do, and ends what is overdue."""
        deadline, asked = self._turns.next_deadline(), self._questions.next_deadline()
        if deadline and not workflow.patched(DEADLINES):
            deadline = None
        deadline = min(filter(None, (deadline, asked)), default=None)
        left = max(deadline - workflow.now(), timedelta(0)) if deadline else None
        try:
            await workflow.wait_condition(
                lambda: (
                    self._may_proceed()
                    or self._questions.next_deadline() != asked
                    or self._questions.waits_for() != self._state.questions.marked
                    or self._listing.due() is not None
                ),
                timeout=left,
            )
        except TimeoutError:
            self._turns.end_overdue()
            self._questions.expire()
        if self._should_continue_as_new():
            await self._ripen()

    def _mark(self) -> None:
        """Says what the session does and what of people it waits for: so it is found among all others."""
        memo: dict[str, object] = {}
        if (now := self._questions.waits_for()) != self._state.questions.marked:
            self._state.questions.marked = now
            memo[names.WAITS_FOR] = now
        self._mark_listing(memo)

    def _mark_listing(self, memo: dict[str, object]) -> None:
        if due := self._listing.due():
            if self._listing.is_row_due():
                memo[names.LISTED] = self._listing.row().model_dump(mode="json", exclude_none=True)
            mark(due, self._state.listing.marked, self._start.agent)
            self._state.listing.marked = due
        if memo:
            workflow.upsert_memo(memo)

    def _lacks_a_key(self) -> bool:
        """Whether the session was started by a workflow, which can't see what the namespace has."""
        return (
            self._start.owner is not None and not self._listing.enabled and workflow.patched(ASKS_FOR_A_KEY)
        )

    async def _ask_for_a_key(self) -> None:
        with contextlib.suppress(ActivityError):
            key = await start_activity(
                SEARCH_KEY,
                self._id,
                schedule_to_close_timeout=SEARCH_KEY_TIMEOUT,
                retry_policy=ONE_ATTEMPT,
            )
            self._state.listing.key = key or None
            self._listing.use_key(self._state.listing.key)

    async def _ripen(self) -> None:
        """Waits until the run is old enough to continue as new, or has something to do before."""
        left = workflow.info().workflow_start_time + SHORTEST_RUN - workflow.now()
        if left > timedelta(0) and workflow.patched(SHORTEST_RUNS):
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self._has_work() or self._state.turns.closed or self._listing.due() is not None,
                    timeout=left,
                )
                return
        self._ripe = True

    def _may_proceed(self) -> bool:
        return self._has_work() or self._state.turns.closed or self._should_continue_as_new()

    def _should_continue_as_new(self) -> bool:
        info, limit = workflow.info(), self._start.limits.events_per_run
        due = info.is_continue_as_new_suggested() or 0 < limit <= info.get_current_history_length()
        quiet = not self._has_work() and self._webhooks.empty and workflow.all_handlers_finished()
        quiet = quiet and not self._suggestions.under_way
        return due and not self._state.turns.closed and quiet

    async def _work(self) -> None:
        turns = self._state.turns
        while turns.launch:
            turn_id = turns.launch.pop(0)
            mine = not self._turns.is_for_the_owner(turn_id)
            await (self._workflows.launch(turn_id) if mine else self._owner.give(turn_id))
        while turns.cancel:
            turn_id = turns.cancel.pop(0)
            mine = not self._turns.is_for_the_owner(turn_id)
            await (self._workflows.cancel(turn_id) if mine else self._owner.stop(turn_id))
        while turns.resume:
            await self._workflows.resume(turns.resume.pop(0))
        while turns.news:
            await self._owner.tell(turns.news.pop(0))
        while self._state.questions.replies:
            await self._tell_asker(self._state.questions.replies.pop(0))
        while self._state.purchases.orphans:
            await self._tell_orphan(self._state.purchases.orphans.pop(0))

    async def _tell_orphan(self, purchase_id: str) -> None:
        """A purchase whose turn was stopped ends, unless somebody has approved it; it decides that itself."""
        wish = Cancel(by="session", reason="the turn was stopped")
        try:
            await tell_workflow(purchase_id, PURCHASE_TURN_STOPPED, wish)
        except TemporalError:
            workflow.logger.info("The purchase %s has ended already", purchase_id)

    def _tell_webhooks(self, event: Event) -> None:
        self._webhooks.put(news_of_session(self._id, self._start.agent, event))

    async def _tell_asker(self, reply: Reply) -> None:
        try:
            await tell_workflow(reply.workflow_id, ASKER_ANSWERED, reply.outcome)
        except TemporalError:
            workflow.logger.info("The workflow that asked %s has ended", reply.outcome.question_id)

    # Agents write

    @workflow.signal
    @drop_unless(Publish)
    def publish(self, publish: Publish) -> None:
        """Takes in a batch that agents have written."""
        if self._state.turns.closed:
            return
        now, full = workflow.now(), self._turns.full
        for write in publish.writes:
            consume_steer = functools.partial(self._turns.consume_steer, write.actor)
            self._log.accept(write, now, consume_steer, self._questions.take, full=full)
        if self._turns.full:
            self._turns.stop_all(None, "session_full")

    @workflow.signal
    @drop_unless(Note)
    def note(self, note: Note) -> None:
        """Records what another workflow (a purchase) reports."""
        if self._purchases.knows(note):
            return
        closing = self._state.turns.closing is not None
        self._purchases.follow(note, closing=closing)
        if closing:
            return
        self._purchases.remember(note)
        for event in note.events:
            if event.type in MONEY_TYPES:
                kept: dict[str, JsonValue] = {
                    key: value for key, value in event.data.items() if value is not None
                }
                self._log.append(event.type, SYSTEM, workflow.now(), data=kept)

    # People send

    @workflow.update
    @answering
    def send(self, message: SendMessage) -> Sent:
        """Takes a message and starts, queues, steers or refuses a turn for it."""
        return self._turns.send(message)

    @send.validator
    def _validate_send(self, message: SendMessage) -> None:
        require(message, SendMessage)
        _refuse_if(self._turns.why_not_send(message))

    @workflow.update
    @answering
    def withdraw(self, withdraw: Withdraw) -> Withdrawn:
        """Takes back a message that waits for its turn."""
        return self._turns.withdraw(withdraw)

    @withdraw.validator
    def _validate_withdraw(self, withdraw: Withdraw) -> None:
        require(withdraw, Withdraw)
        _refuse_if(self._turns.why_not_withdraw(withdraw))

    # Turns

    @workflow.signal
    @drop_unless(TurnAttempt)
    def turn_attempt(self, attempt: TurnAttempt) -> None:
        """The turn's workflow is about to try again: the earlier attempt may write no more."""
        self._turns.turn_attempt(attempt)

    @workflow.signal
    @drop_unless(TurnWaiting)
    def turn_waiting(self, waiting: TurnWaiting) -> None:
        """The turn's workflow reports that its attempt has ended to wait for people."""
        self._turns.turn_waiting(waiting)

    @workflow.signal
    @drop_unless(TurnEnded)
    def turn_ended(self, ended: TurnEnded) -> None:
        """The turn's workflow reports its end; only the first report counts."""
        self._turns.turn_ended(ended)

    @workflow.signal
    @drop_unless(Stop, optional=True)
    def stop(self, stop: Stop | None = None) -> None:
        """Stops a turn, running or queued; without ``turn_id`` whatever runs."""
        self._turns.stop(stop or Stop())

    @workflow.signal
    @drop_unless(Steer)
    def steer(self, steer: Steer) -> None:
        """Offers a message to the running turn; with none running it is sent as an ordinary one."""
        self._turns.steer(steer)

    @workflow.signal
    @drop_unless(NoneType, optional=True)
    def tell_again(self) -> None:
        """Tells the session's owner of the turn that it runs, once more."""
        self._turns.tell_again()

    @workflow.update
    @answering
    def spawn(self, spawn: Spawn) -> Spawned:
        """Starts a sub-agent for a running turn; it writes to this session directly."""
        return self._turns.spawn(spawn)

    @spawn.validator
    def _validate_spawn(self, spawn: Spawn) -> None:
        require(spawn, Spawn)
        _refuse_if(self._turns.why_not_spawn(spawn))

    # Questions

    @workflow.update
    @answering
    async def answer_question(self, answer: AnswerQuestion) -> Answered:
        """Takes an answer; the first valid one counts."""
        return await self._take_answer(answer)

    @answer_question.validator
    def _validate_answer_question(self, answer: AnswerQuestion) -> None:
        require(answer, AnswerQuestion)
        _refuse_if(self._questions.why_not_answer(answer) or self._questions.why_not_edit(answer))

    @workflow.signal
    @drop_unless(AnswerQuestion)
    async def answer(self, answer: AnswerQuestion) -> None:
        """Takes an answer from Temporal's command line, say; one that doesn't count is logged."""
        try:
            await self._take_answer(answer)
        except ApplicationError as refused:
            workflow.logger.warning("An answer to %s does not count: %s", answer.question_id, refused.message)

    async def _take_answer(self, answer: AnswerQuestion) -> Answered:
        if self._questions.is_approval(answer.question_id):
            verdict = await verdict_on("answer", answer, answer.proof)
            if not verdict.valid:
                raise refusal(names.NOT_PROVEN, f"This decision does not count: {verdict.why}.")
        # From here on nothing waits: what is checked is what is answered.
        _refuse_if(self._questions.why_not_answer(answer))
        if (forbidden := self._questions.why_not_edit(answer)) and workflow.patched(RULES_BIND_EDITS):
            _refuse_if(forbidden)
        return self._questions.answer(answer)

    # People

    @workflow.update
    @answering
    def join(self, membership: Membership) -> Recorded:
        """Adds a participant; joining twice is harmless."""
        return Recorded(seq=self._people.join(membership.participant))

    @join.validator
    def _validate_join(self, membership: Membership) -> None:
        require(membership, Membership)
        _refuse_if(self._turns.why_closed())
        _refuse_if(self._people.why_not_join(membership.participant, full=self._turns.why_full()))

    @workflow.update
    @answering
    def leave(self, membership: Membership) -> Recorded:
        """Removes a participant; an operator who leaves releases the session."""
        left = self._people.leave(membership.participant, closed=self._state.turns.closed)
        if left.released:
            self._turns.begin_next()
        return Recorded(seq=left.seq)

    @leave.validator
    def _validate_leave(self, membership: Membership) -> None:
        require(membership, Membership)

    @workflow.update
    @answering
    def take_over(self, take_over: TakeOver) -> Recorded:
        """Pauses the agent: the running turn is stopped, new ones wait, the operator speaks."""
        operator = take_over.operator
        if self._people.holds(operator):
            return Recorded(seq=self._log.tip)
        started = self._people.take_over(take_over)
        self._turns.pause(operator)
        return Recorded(seq=started)

    @take_over.validator
    def _validate_take_over(self, take_over: TakeOver) -> None:
        require(take_over, TakeOver)
        _refuse_if(self._turns.why_closed())
        _refuse_if(self._people.why_not_take_over(take_over))

    @workflow.update
    @answering
    def release(self, release: Release) -> Recorded:
        """Hands the session back to the agent, which continues with what was said."""
        return Recorded(seq=self._turns.release(release))

    @release.validator
    def _validate_release(self, release: Release) -> None:
        require(release, Release)
        _refuse_if(self._turns.why_closed())
        _refuse_if(self._people.why_not_speak(release.operator))
        _refuse_if(self._turns.why_not_release(release))

    @workflow.update
    @answering
    def add_note(self, note: AddNote) -> Recorded:
        """Records a note that staff alone see."""
        return Recorded(seq=self._people.add_note(note))

    @add_note.validator
    def _validate_add_note(self, note: AddNote) -> None:
        require(note, AddNote)
        _refuse_if(self._turns.why_closed())
        _refuse_if(self._people.why_not_staff(note.author))
        _refuse_if(self._turns.why_full())

    @workflow.update
    @answering
    def assign(self, assign: Assign) -> Recorded:
        """Records which operator looks after the session; staff alone see it."""
        if workflow.patched(LISTS_ASSIGNEES):
            self._listing.assign(assign.operator, says_so=workflow.patched(LISTS_UNASSIGNED))
        return Recorded(seq=self._people.assign(assign))

    @assign.validator
    def _validate_assign(self, assign: Assign) -> None:
        require(assign, Assign)
        _refuse_if(self._turns.why_closed())
        for actor in filter(None, (assign.by, assign.operator)):
            _refuse_if(self._people.why_not_staff(actor))

    @workflow.update
    @answering
    def suggest_reply(self, wanted: SuggestReply) -> Recorded:
        """Asks the agent for a draft, which staff alone see; one at a time."""
        return Recorded(seq=self._suggestions.ask(wanted))

    @suggest_reply.validator
    def _validate_suggest_reply(self, wanted: SuggestReply) -> None:
        require(wanted, SuggestReply)
        _refuse_if(self._turns.why_closed())
        _refuse_if(self._people.why_not_staff(wanted.operator))
        _refuse_if(self._people.why_not_speak(wanted.operator))
        _refuse_if(self._turns.why_full())

    @workflow.signal
    @drop_unless(Close, optional=True)
    def close(self, close: Close | None = None) -> None:
        """Ends the session: turns are stopped, nothing more is taken, ``session.closed`` comes last."""
        self._turns.close(close or Close())

    # Reading

    @workflow.query
    def replay(self, after: int = 0, limit: int = MAX_REPLAY_EVENTS) -> ReplayPage:
        """Returns events after a cursor, oldest first, one bounded page at a time."""
        return self._log.replay(after, max(1, min(limit, MAX_REPLAY_EVENTS)), closed=self._state.turns.closed)

    @workflow.query
    def read(self, position: LogPosition) -> LogReading:
        """Returns the page after a cursor, and what has become of what some writers wrote, in one answer."""
        return LogReading(
            page=self.replay(position.after, position.limit),
            receipts={writer: self._log.receipt(writer) for writer in position.writers},
            forgotten=self._log.state.forgotten,
        )

    @workflow.query
    def snapshot(self) -> Snapshot:
        """Returns what the session is doing now."""
        turns, people = self._state.turns, self._state.people
        return Snapshot(
            session_id=self._id,
            agent=self._start.agent,
            status=self._status(),
            tip=self._log.tip,
            title=self._start.title,
            metadata=self._start.metadata,
            created=self._state.created,
            running=tuple(turn.view() for turn in turns.turns.values() if turn.status != "queued"),
            queued=tuple(turns.turns[turn_id].view() for turn_id in turns.queue),
            participants=tuple(people.participants.values()),
            taken_over_by=people.taken_over_by,
            assigned_to=people.assigned_to,
            usage=self._log.usage.state.session,
            open_messages=self._log.open_messages(),
            questions=self._questions.views(),
            runs=self._state.runs,
            refused=self._log.state.refused,
        )

    @workflow.query
    def outcome(self, request_id: str) -> Outcome | None:
        """Returns what became of a stop or steer; None if it is unknown."""
        return self._state.turns.outcomes.get(request_id)

    @workflow.query
    def question(self, question_id: str) -> QuestionView | None:
        """Returns a question with its outcome; None if it is unknown."""
        return self._questions.view(question_id)

    @workflow.query
    def approvals(self) -> OpenApprovals:
        """Returns the approvals of tools that wait, newest first."""
        return self._questions.approvals()

    @workflow.query
    def open_questions(self) -> OpenApprovals:
        """Returns all that is asked and waits, approvals of tools among it, newest first."""
        return self._questions.listed()

    @workflow.query
    def waiting(self) -> Waiting:
        """Returns what here may wait for a person."""
        said = Waiting(session_id=self._id, agent=self._start.agent, title=self._start.title)
        return waiting_of(
            said, self._log, self._listing, self._state.people, self._purchases, self._questions
        )

    def _status(self) -> SessionStatus:
        if self._state.turns.closing:
            return SessionStatus.CLOSED
        if self._people.paused:
            return SessionStatus.PAUSED
        if self._turns.waiting:
            return SessionStatus.WAITING
        return SessionStatus.RUNNING if self._turns.busy else SessionStatus.IDLE
