"""A place where one agent is tested: the played API, Temporal, and the report."""

from collections.abc import Callable
from typing import Any, Final, Protocol
from uuid import uuid4

from waystation.conformance.inspection import inspect
from waystation.conformance.played_api import Play, PlayedApi, until
from waystation.conformance.report import Report
from waystation.conformance.temporal_side import Ended, Run, TemporalSide

PATIENCE_SECONDS: Final = 10.0
"""What doesn't happen within this time doesn't happen: each step of the script takes milliseconds."""
START_SECONDS: Final = 25.0
STOP_GRACE_SECONDS: Final = 2.0
"""What a session gives a stopped turn, by default."""
HEARTBEAT_SECONDS: Final = 5.0


class Subject(Protocol):
    """The implementation under test: a process, or what stands for it."""

    async def terminate(self, within: float) -> bool | None:
        """Asks it to end, as SIGTERM does; returns whether it has, or ``None`` if it can't be asked."""
        ...


class Turn:
    """An attempt of a turn, from both of its sides."""

    def __init__(self, bench: "Bench", play: Play, given: dict[str, Any], run: Run) -> None:
        self._bench, self.play, self.given, self.run = bench, play, given, run

    async def opened(self, at_stake: str) -> None:
        """Waits until the agent opens the writer; ``at_stake`` is broken where it has the turn and doesn't.

        Raises:
            Unmet: It didn't open the writer.
        """
        report, api, play = self._bench.report, self._bench.api, self.play
        if await until(lambda: play.of("open") or self.run.over, START_SECONDS) and play.of("open"):
            report.check("T-01", True, f"took a turn of {self.given['agent']}")
            return
        if not api.connections:
            was_there = any(one.status == 101 and one.path == "/ingest" for one in api.handshakes)
            seen = f"no connection to /ingest after {len(api.handshakes)} handshakes"
            report.demand("A-04" if was_there else "A-01", False, seen)
        ended = await self.run.ended(0.5)
        taken = ended.kind in ("failed", "completed") if ended else await self.run.started()
        seen = f"no writer was opened; {ended or 'the turn waits'}"
        report.demand(at_stake if taken else "T-01", False, seen)

    async def wait(
        self, number: str, holds: Callable[[], Any], what: str, within: float = PATIENCE_SECONDS
    ) -> None:
        """Waits for something that a requirement demands.

        Raises:
            Unmet: It didn't happen in time.
        """
        if not await until(holds, within):
            self._bench.report.demand(number, False, f"not within {within:g} s: {what}")

    async def ended(self, number: str, within: float = PATIENCE_SECONDS) -> Ended:
        """Waits for the end of the activity.

        Raises:
            Unmet: It hasn't ended in time.
        """
        ended = await self.run.ended(within)
        if ended is None:
            self._bench.report.demand(number, False, f"the activity has not ended within {within:g} s")
        assert ended is not None, "else the demand was not met"
        return ended


class Bench:
    """Begins turns, and looks at every one of them in the end."""

    def __init__(
        self, api: PlayedApi, temporal: TemporalSide, report: Report, agent: str, subject: Subject, key: str
    ) -> None:
        self.api, self.temporal, self.report = api, temporal, report
        self.agent, self.subject, self.key = agent, subject, key
        self._turns: list[Turn] = []

    async def begin(
        self,
        text: str,
        *,
        after: "Turn | None" = None,
        at_stake: str = "A-10",
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        prepare: Callable[[Play], None] = lambda _: None,
        **more: Any,
    ) -> Turn:
        """Begins a turn in a session of its own, or the next attempt of ``after``; waits for its ``open``."""
        given: dict[str, Any] = {
            "session_id": f"conformance-{uuid4().hex[:12]}", "turn_id": "t1", "attempt": 1,
            "agent": self.agent, "text": text, "message_id": "m1", "data": {},
            "parent_turn_id": None, "depth": 0, "after": 3,
        }  # fmt: skip
        if after is not None:
            given = {**after.given, "attempt": after.given["attempt"] + 1}
        play = self.api.play(given["session_id"])
        prepare(play)
        run = await self.temporal.begin({**given, **more}, heartbeat_seconds)
        turn = Turn(self, play, given, run)
        self._turns.append(turn)
        await turn.opened(at_stake)
        return turn

    async def clear(self) -> None:
        """Looks at what the scenario's turns have sent, and ends those that still run."""
        told_apart = self.report.status("A-12") != "failed"
        for turn in self._turns:
            if told_apart:
                inspect(self.report, turn.play, turn.given)
            if not turn.run.over:
                await turn.play.tell({"op": "fenced", "code": "turn-over"})
            await turn.run.drop()
        inspect_ids(self.report, self._turns)
        self.api.refusals.clear()
        self._turns.clear()


def inspect_ids(report: Report, turns: list[Turn]) -> None:
    """Compares the messages of attempts in one session."""
    used: dict[str, tuple[str, int]] = {}
    for turn in turns:
        ids = {str(item.get("message_id")) for item in turn.play.items("message.delta")}
        attempt = (turn.play.session_id, turn.given["attempt"])
        clashes = [
            one
            for one in ids
            if used.get(one, attempt)[0] == attempt[0] and used.get(one, attempt) != attempt
        ]
        if ids:
            report.check("A-24", not clashes, f"{len(ids)} messages, ids of earlier ones: {clashes}")
        used.update(dict.fromkeys(ids, attempt))
