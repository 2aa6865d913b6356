"""The workflows of a session's turns, one for each: started, watched, canceled, missed when they are gone."""

import asyncio
import contextlib
from collections.abc import Callable

from temporalio import workflow
from temporalio.exceptions import TemporalError, WorkflowAlreadyStartedError
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from waystation.models.sessions import SessionLimits, TurnEnded, TurnResume
    from waystation.temporal import names
    from waystation.temporal.calls import tell_workflow
    from waystation.temporal.messages import TURN_CHECK, TURN_RESUME
    from workflows.policies import CHECK_TURNS_EVERY
    from workflows.session.state import SessionState
    from workflows.session.turn import AgentTurn, TurnPlan

TURNS_ADOPTED = "session-turns-adopted"
"""Runs that have failed a turn because its workflow ran already are replayed so."""


class TurnWorkflows:
    """Starts and cancels what ``launch`` and ``cancel`` of the turns ask for, and reports what is lost."""

    def __init__(
        self,
        session_id: str,
        state: SessionState,
        limits: SessionLimits,
        report: Callable[[TurnEnded], None],
        is_the_owners: Callable[[str], bool],
    ) -> None:
        """``report`` takes the end of a turn that its workflow can't report itself."""
        self._id, self._state, self._limits, self._report = session_id, state, limits, report
        self._is_the_owners = is_the_owners
        self._watching: set[asyncio.Task[None]] = set()

    async def launch(self, turn_id: str) -> None:
        """Starts a turn's workflow, unless the turn has been stopped before."""
        turn = self._state.turns.turns.get(turn_id)
        if turn is None:
            return
        plan = TurnPlan(
            turn=turn.input,
            limits=self._limits,
            agent_is_known=turn.input.agent in self._state.turns.agents_seen,
        )
        try:
            started = await workflow.start_child_workflow(
                AgentTurn.run,
                plan,
                id=names.turn_workflow_id(self._id, turn_id),
                parent_close_policy=ParentClosePolicy.ABANDON,
            )
        except WorkflowAlreadyStartedError as error:
            if workflow.patched(TURNS_ADOPTED):
                # Somebody has reset the session to before this, and the turn goes on (docs/operations.md).
                await self._check(turn_id)
            else:
                self._fail_to_start(turn_id, error)
            return
        except Exception as error:  # the session goes on, whatever kept the turn from starting
            self._fail_to_start(turn_id, error)
            return
        watching = asyncio.create_task(self._watch(turn_id, started))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)

    def _fail_to_start(self, turn_id: str, error: Exception) -> None:
        self._report(TurnEnded(turn_id=turn_id, outcome="failed", code="turn_not_started", detail=str(error)))

    async def cancel(self, turn_id: str) -> None:
        """Cancels a turn's workflow, which then reports the turn's end."""
        try:
            await workflow.get_external_workflow_handle(names.turn_workflow_id(self._id, turn_id)).cancel()
        except TemporalError:
            # It has ended by itself in the meantime; its report is on the way or was lost with it.
            self._report(TurnEnded(turn_id=turn_id, outcome="stopped"))

    async def resume(self, turn_id: str) -> None:
        """Tells a turn's workflow that the turn may go on."""
        turn = self._state.turns.turns.get(turn_id)
        if turn is None:
            return
        try:
            await tell_workflow(
                names.turn_workflow_id(self._id, turn_id), TURN_RESUME, TurnResume(attempt=turn.input.attempt)
            )
        except TemporalError:
            self._lose(turn_id)

    async def check_inherited(self) -> None:
        """Ends turns of earlier runs whose workflows are gone: of those, Temporal tells this run nothing."""
        turns = self._state.turns.turns.items()
        # A turn that the session's owner runs has no workflow, but times of its own.
        inherited = [
            turn_id for turn_id, turn in turns if turn.status != "queued" and not self._is_the_owners(turn_id)
        ]
        due = self._state.next_check
        if inherited and due and due > workflow.now():
            return
        self._state.next_check = workflow.now() + CHECK_TURNS_EVERY
        if due is None:  # nothing was inherited, or by a run that knew of no checks
            return
        for turn_id in inherited:
            await self._check(turn_id)

    async def _check(self, turn_id: str) -> None:
        """Ends a turn whose workflow is gone."""
        try:
            await tell_workflow(names.turn_workflow_id(self._id, turn_id), TURN_CHECK, None)
        except TemporalError:
            self._lose(turn_id)

    def _lose(self, turn_id: str) -> None:
        """Ends a turn whose workflow was ended from outside; does nothing if it has reported its end."""
        self._report(
            TurnEnded(
                turn_id=turn_id, outcome="failed", code="turn_lost", detail="The turn's workflow has ended."
            )
        )

    async def _watch(self, turn_id: str, turn: workflow.ChildWorkflowHandle[AgentTurn, None]) -> None:
        with contextlib.suppress(TemporalError):
            await turn
        self._lose(turn_id)
