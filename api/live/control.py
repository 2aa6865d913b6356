"""What clients ask of a running session (send, stop, steer, approve), over HTTP and sockets alike."""

import contextlib
import time
import uuid
from collections.abc import Sequence

from pydantic import JsonValue

from api.auth import Action, Principal, answers_as, decides_in_person, speaker
from api.errors import Conflict, Forbidden, Invalid, Problem, UnknownQuestion
from api.gateways.money import MoneyGateway
from api.gateways.sessions import Gateway
from api.live.bus import LiveBus, tell_news
from api.live.feed import Feed, is_terminal
from api.live.feeds import Feeds
from waystation.answers import AnswerError, check_answer
from waystation.models.decisions import Approve, Decision
from waystation.models.events import TERMINAL_TURN_TYPES, Event, EventType
from waystation.models.live import ALL_SESSIONS, NotStopped, Stirred, Stopped, Stopping, Tick
from waystation.models.purchases import PurchaseView
from waystation.models.questions import (
    Answered,
    AnswerQuestion,
    AnswerRequest,
    QuestionKind,
    QuestionView,
    as_asked,
)
from waystation.models.requests import (
    ControlAnswer,
    MessageRequest,
    SteerRequest,
    StopRequest,
    WithdrawRequest,
)
from waystation.models.sessions import OnBusy, Outcome, SendMessage, Sent, Steer, Stop, Withdraw, Withdrawn
from waystation.temporal.messages import SESSION_STEER, SESSION_STOP

_SETTLING = TERMINAL_TURN_TYPES | {
    EventType.AGENT_FINISHED,
    EventType.STEER_CONSUMED,
    EventType.STEER_EXPIRED,
}


class Control:
    """Checks what the caller may do, does it, tells the feeds, and waits for what becomes of it."""

    def __init__(self, feeds: Feeds, bus: LiveBus, gateway: Gateway, money: MoneyGateway) -> None:
        self._feeds, self._bus, self._gateway, self._money = feeds, bus, gateway, money

    async def send(self, session_id: str, body: MessageRequest, caller: Principal) -> Sent:
        """Sends a message; ``on_busy`` says what happens to it while a turn is running."""
        caller.require(Action.SEND, session_id)
        sent = await self._gateway.send(
            session_id,
            SendMessage(
                text=body.text,
                actor=speaker(caller, body.actor),
                on_busy=OnBusy(body.on_busy),
                message_id=body.message_id,
                data=body.data,
            ),
        )
        self._bus.publish(session_id, Tick())
        return sent

    async def withdraw(self, session_id: str, body: WithdrawRequest, caller: Principal) -> Withdrawn:
        """Takes back a message that waits for its turn; whoever may send may, as with a stop."""
        caller.require(Action.SEND, session_id)
        withdraw = Withdraw(message_id=body.message_id, actor=speaker(caller, body.actor))
        withdrawn = await self._gateway.withdraw(session_id, withdraw)
        self._bus.publish(session_id, Tick())
        return withdrawn

    async def stop(self, session_id: str, body: StopRequest, caller: Principal) -> ControlAnswer:
        """Stops a turn, and returns the outcome and the seq at which it is recorded.

        Viewers see nothing more from the moment of the request, even if a busy Temporal takes it later.
        """
        caller.require(Action.SEND, session_id)
        request_id = body.request_id or f"stop-{uuid.uuid4().hex}"
        stop = Stop(turn_id=body.turn_id, request_id=request_id, actor=caller.actor, reason=body.reason)
        seen: list[Event] = []
        async with self._feeds.use(session_id) as feed:
            feed.watch(seen.append)
            try:
                self._bus.publish(session_id, Stopping(request_id))
                try:
                    await self._gateway.signal(session_id, SESSION_STOP, stop)
                except Problem:
                    self._bus.publish(session_id, NotStopped(request_id))
                    raise
                self._bus.publish(session_id, Stopped(request_id))
                outcome = await self._settled(feed, seen, request_id, body.wait_seconds, stopping=True)
            finally:
                feed.unwatch(seen.append)
        return ControlAnswer(request_id=request_id, **outcome.model_dump())

    async def steer(self, session_id: str, body: SteerRequest, caller: Principal) -> ControlAnswer:
        """Offers a message to the running turn, and returns whether it was consumed or queued."""
        caller.require(Action.SEND, session_id)
        request_id = body.request_id or f"steer-{uuid.uuid4().hex}"
        steer = Steer(text=body.text, request_id=request_id, actor=caller.actor)
        seen: list[Event] = []
        async with self._feeds.use(session_id) as feed:
            feed.watch(seen.append)
            try:
                await self._gateway.signal(session_id, SESSION_STEER, steer)
                self._bus.publish(session_id, Tick())
                outcome = await self._settled(feed, seen, request_id, body.wait_seconds, stopping=False)
            finally:
                feed.unwatch(seen.append)
        return ControlAnswer(request_id=request_id, **outcome.model_dump())

    async def approve(self, purchase_id: str, digest: str, caller: Principal) -> PurchaseView:
        """Approves exactly the cart with this digest; a stale one is refused with the fresh cart."""
        caller.require(Action.APPROVE)
        await self._money.check_visible(purchase_id, caller)
        wanted = Approve(digest=digest, approver=caller.subject)
        decided = await self._money.decide(purchase_id, Decision(approve=wanted))
        self._bus.publish(ALL_SESSIONS, Stirred(purchase_id, settles=True))
        return decided

    async def answer(
        self, session_id: str, question_id: str, body: AnswerRequest, caller: Principal
    ) -> Answered:
        """Answers a question of an agent; the first valid answer counts, and a later one is told of it."""
        caller.require(Action.ANSWER, session_id)
        view = await self._gateway.question(session_id, question_id)
        if view is None:
            raise UnknownQuestion(f"There is no question '{question_id}' here.")
        decides = view.kind is QuestionKind.APPROVAL
        if decides and not decides_in_person(caller):
            raise Forbidden("A service can't decide for a person; use a token of the person's own.")
        actor = speaker(caller, body.actor)
        answer = AnswerQuestion(
            question_id=question_id,
            value=body.value,
            actor=actor,
            answers_as=answers_as(caller, actor),
            digest=body.digest,
        )
        try:
            answered = await self._gateway.answer(session_id, answer, vouched=decides)
        except Conflict as conflict:
            if conflict.code == "question-settled":
                await self._name_the_first(conflict, session_id, question_id)
            raise
        except Invalid as invalid:
            if invalid.code == "invalid-answer":
                _name_the_fields(invalid, view, body.value)
            raise
        tell_news(self._bus, session_id, settles=True)
        return answered

    async def _name_the_first(self, conflict: Conflict, session_id: str, question_id: str) -> None:
        with contextlib.suppress(Problem):
            view = await self._gateway.question(session_id, question_id)
            if view is not None and view.outcome is not None:
                conflict.extra["settled"] = view.outcome.model_dump(mode="json", exclude_none=True)

    async def _settled(
        self, feed: Feed, seen: list[Event], request_id: str, wait_seconds: float, *, stopping: bool
    ) -> Outcome:
        """Waits until it is known what became of a request, or for the time to run out."""
        deadline = time.monotonic() + wait_seconds
        # First let the log be read: the agent waits for that. The caller can wait a little longer.
        await feed.caught_up(wait_seconds)
        outcome = await self._gateway.outcome(feed.session_id, request_id) or Outcome(outcome="pending")
        while outcome.outcome == "pending" and (left := deadline - time.monotonic()) > 0:
            if not any(event.type in _SETTLING for event in seen):
                await feed.next_change(left)
                continue
            # The log tells a stop's outcome; only the session knows what became of a steer that expired.
            stopped = _stopped_by(seen, outcome.turn_id) if stopping else None
            outcome = stopped or await self._gateway.outcome(feed.session_id, request_id) or outcome
            seen.clear()
        return outcome


def _name_the_fields(invalid: Invalid, question: QuestionView, value: JsonValue) -> None:
    """Adds ``errors``, as every refusal of input has them: programs read these, and not the sentence."""
    try:
        check_answer(as_asked(question.asked), value)
    except AnswerError as error:
        invalid.extra["errors"] = [{"at": place, "problem": fault} for place, fault in error.errors]


def _stopped_by(events: Sequence[Event], turn_id: str | None) -> Outcome | None:
    """Returns what became of a stop, judging by the event that ended the turn."""
    for event in events:
        if event.turn_id == turn_id and is_terminal(event):
            stopped = event.type == EventType.TURN_STOPPED or event.data.get("outcome") == "stopped"
            return Outcome(
                outcome="stopped" if stopped else "already_finished", seq=event.seq, turn_id=turn_id
            )
    return None
