"""Why an attempt of a turn has failed, in the session's words."""

import pytest
from temporalio.exceptions import ActivityError, ApplicationError

from waystation.models.sessions import TurnInput
from waystation.temporal.storage import PayloadsUnavailableError
from workflows.session import turn
from workflows.session.turn import TurnPlan, _explain

PLAN = TurnPlan(turn=TurnInput(session_id="s", turn_id="t1", attempt=1, agent="demo", text="Go on."))


def failed(message: str, *, kind: str | None = None, cause: BaseException | None = None) -> ActivityError:
    told = ApplicationError(message, type=kind)
    told.__cause__ = cause
    error = ActivityError(
        "Activity task failed", scheduled_event_id=1, started_event_id=2, identity="agent",
        activity_type="run_turn", activity_id="1", retry_state=None,
    )  # fmt: skip
    error.__cause__ = told
    return error


UNAVAILABLE = PayloadsUnavailableError.__name__


@pytest.mark.parametrize(
    "error",
    [
        failed("A payload can't be stored: OSError", kind=UNAVAILABLE),
        failed("Failed decoding arguments", cause=ApplicationError("…", type=UNAVAILABLE)),
        failed("Failed building exception result: A payload can't be stored: OSError"),
    ],
)
def test_a_payload_storage_that_is_away_does_not_fail_a_turn(
    error: ActivityError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn.workflow, "patched", lambda name: name == "payloads-come-back")
    explained = _explain(error, PLAN)
    assert (explained.code, explained.retry, explained.counts) == ("payloads_unavailable", True, True)


def test_what_the_agents_code_raises_fails_it() -> None:
    explained = _explain(failed("no such order", kind="AgentFailed"), PLAN)
    assert (explained.code, explained.retry) == ("agent_error", False)
