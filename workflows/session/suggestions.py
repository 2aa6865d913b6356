"""Replies that the agent suggests to the operator who speaks in its place: asked for, and recorded for staff.

No turn: the agent's process is given the question and returns a text. It is never sent by itself.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutType
from temporalio.exceptions import TimeoutError as ActivityTimeoutError

with workflow.unsafe.imports_passed_through():
    from pydantic import JsonValue

    from waystation.models.events import SYSTEM, Actor, EventType
    from waystation.models.sessions import SessionLimits, SuggestionInput, SuggestReply
    from waystation.temporal.calls import (
        UnreadableResultError,
        read_result,
        start_activity,
        start_foreign_activity,
    )
    from waystation.temporal.messages import ANNOUNCE, SUGGEST_REPLY
    from waystation.temporal.names import ACTIVITY_UNKNOWN, NO_SUGGESTIONS, agent_task_queue
    from workflows.policies import ANNOUNCE_TIMEOUT, ONE_ATTEMPT, SUGGESTION_START_TIMEOUT, SUGGESTION_TIMEOUT
    from workflows.session.course import agent_actor
    from workflows.session.log import SessionLog

MAX_DETAIL_CHARACTERS = 2_000


class Suggestions:
    """Asks the agent for one reply at a time."""

    def __init__(
        self,
        session_id: str,
        agent: str,
        limits: SessionLimits,
        log: SessionLog,
        is_closing: Callable[[], bool],
    ) -> None:
        self._id, self._agent, self._limits = session_id, agent, limits
        self._log, self._is_closing = log, is_closing
        self._asked = 0
        self._asking: asyncio.Task[None] | None = None

    @property
    def under_way(self) -> bool:
        """Whether the agent is being asked; the next run would know nothing of it."""
        return self._asking is not None

    def ask(self, wanted: SuggestReply) -> int:
        """Asks for a reply, and returns where that is recorded."""
        if self._asking is None:
            data: dict[str, JsonValue] = {"text": wanted.text} if wanted.text else {}
            self._asked = self._append(EventType.SUGGESTION_REQUESTED, wanted.operator, data)
            self._asking = asyncio.create_task(self._ask(wanted))
        return self._asked

    def cancel(self) -> None:
        """Ends it: nobody will read what comes of it."""
        if self._asking:
            self._asking.cancel()

    async def _ask(self, wanted: SuggestReply) -> None:
        told: dict[str, JsonValue] = {"requested": self._asked}
        kind, actor = EventType.SUGGESTION_FAILED, SYSTEM
        try:
            told["text"] = await self._suggested(wanted)
            kind, actor = EventType.SUGGESTION_MADE, agent_actor(self._agent)
        except ActivityError as error:
            told["code"], told["detail"] = _explained(error, self._agent)
        except UnreadableResultError as error:
            told["code"], told["detail"] = "agent_error", f"What was returned is no suggestion: {error}"
        finally:
            self._asking = None
        if self._is_closing():
            return
        if detail := told.get("detail"):
            told["detail"] = str(detail)[:MAX_DETAIL_CHARACTERS]
        self._append(kind, actor, told)
        try:
            await start_activity(
                ANNOUNCE, self._id, schedule_to_close_timeout=ANNOUNCE_TIMEOUT, retry_policy=ONE_ATTEMPT
            )
        except ActivityError:
            workflow.logger.info("Nobody was told of news in %s; the API's poll will find it", self._id)

    async def _suggested(self, wanted: SuggestReply) -> str:
        raw = await start_foreign_activity(
            SUGGEST_REPLY,
            SuggestionInput(
                session_id=self._id, agent=self._agent, operator=wanted.operator, text=wanted.text
            ),
            task_queue=agent_task_queue(self._agent),
            schedule_to_start_timeout=SUGGESTION_START_TIMEOUT,
            start_to_close_timeout=SUGGESTION_TIMEOUT,
            heartbeat_timeout=timedelta(seconds=self._limits.agent_heartbeat_timeout_seconds),
            retry_policy=ONE_ATTEMPT,
        )
        return read_result(SUGGEST_REPLY, raw).text

    def _append(self, kind: EventType, actor: Actor, data: dict[str, JsonValue]) -> int:
        return self._log.append(kind, actor, workflow.now(), data=data, visibility="staff").seq


def _explained(error: ActivityError, agent: str) -> tuple[str, str]:
    """Returns why there is no suggestion, as a code and a sentence."""
    cause = error.cause
    if isinstance(cause, ActivityTimeoutError):
        if cause.type == TimeoutType.SCHEDULE_TO_START:
            return "agent_unavailable", f"No process runs the agent '{agent}', or all of them are busy."
        if cause.type == TimeoutType.HEARTBEAT:
            return "agent_lost", f"The process that ran the agent '{agent}' went silent."
        return "suggestion_timeout", "The suggestion took too long."
    if isinstance(cause, ApplicationError):
        if cause.type in (NO_SUGGESTIONS, ACTIVITY_UNKNOWN):
            return "no_suggestions", f"The agent '{agent}' suggests no replies."
        return "agent_error", cause.message or ""
    return "agent_error", str(cause or error)
