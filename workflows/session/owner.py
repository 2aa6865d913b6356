"""The workflow that a session belongs to: it is told of turns, stops and steers, and of the session's end.

A turn that it runs has no workflow of its own, for it is durable where it runs. It has one attempt, and ends
when the owner reports it (``turn_ended``), when the owner is found to be gone, or when it is overdue.
"""

from collections.abc import Callable

from temporalio import workflow
from temporalio.exceptions import TemporalError

with workflow.unsafe.imports_passed_through():
    from waystation.models.owners import News, SessionNews, StopWanted, TurnGiven
    from waystation.models.sessions import SessionOwner, TurnEnded
    from waystation.temporal.calls import tell_workflow
    from waystation.temporal.messages import OWNER_NEWS
    from workflows.session.turn_state import TurnsState


class Owner:
    """Tells the owner, and reports what it can't be told any more."""

    def __init__(
        self,
        session_id: str,
        turns: TurnsState,
        owner: SessionOwner | None,
        report: Callable[[TurnEnded], None],
    ) -> None:
        """``report`` takes the end of a turn that the owner can't report itself."""
        self._id, self._turns, self._owner, self._report = session_id, turns, owner, report

    async def give(self, turn_id: str) -> None:
        """Gives it a turn that has begun."""
        if turn := self._turns.turns.get(turn_id):
            await self.tell(TurnGiven(turn=turn.input))

    async def stop(self, turn_id: str) -> None:
        """Has it stop a turn; one that is gone has stopped."""
        turn = self._turns.turns.get(turn_id)
        if turn and not await self._told(StopWanted(turn_id=turn_id, reason=turn.stop_reason)):
            self._report(TurnEnded(turn_id=turn_id, outcome="stopped"))

    async def tell(self, news: News) -> None:
        """Tells it something; a turn that it should run and can't be told of is lost."""
        if not isinstance(news, TurnGiven):
            await self._told(news)
            return
        turn_id = news.turn.turn_id
        turn = self._turns.turns.get(turn_id)
        if turn and turn.status == "running" and not await self._told(news):
            gone = "The workflow that runs this session's turns has ended."
            self._report(TurnEnded(turn_id=turn_id, outcome="failed", code="turn_lost", detail=gone))

    async def _told(self, news: News) -> bool:
        """Returns whether it could be told."""
        if self._owner is None:
            return False
        told = SessionNews(session_id=self._id, news=news)
        try:
            await tell_workflow(self._owner.workflow_id, OWNER_NEWS, told)
        except TemporalError:
            workflow.logger.info(
                "The workflow %s, which owns the session, has ended", self._owner.workflow_id
            )
            return False
        return True
