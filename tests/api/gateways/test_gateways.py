"""Calls to Temporal end in time, whatever it does."""

import asyncio
import re
import time
import uuid
from datetime import timedelta

import pytest
from temporalio import workflow
from temporalio.client import Client as TemporalClient
from temporalio.client import (
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import QueryRejectCondition
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from api.errors import Problem, TooMany, Unavailable, UnknownSession, refusal
from api.gateways import sessions
from api.gateways.calls import Calls, ask_unless_ended, execute_update
from api.gateways.money import MoneyGateway
from api.gateways.sessions import WORDING as SESSION_WORDING
from api.gateways.sessions import Gateway
from tests.support import ROOT, eventually
from tests.world.listener import listening
from waystation.models.events import Actor, Role
from waystation.models.sessions import SendMessage
from waystation.temporal import names
from waystation.temporal.calls import MAX_UPDATE_ATTEMPTS, until_taken
from waystation.temporal.connect import open_client
from waystation.temporal.storage import PayloadsUnavailableError

TIMEOUT_SECONDS = 1.0
WAITING = 40
PATIENT_SECONDS = 20.0
"""For an answer that comes, however busy the machine is."""


async def ask(gateway: Gateway) -> str:
    try:
        await gateway.snapshot("s")
    except Problem as problem:
        return problem.code
    return "answered"


async def test_those_who_wait_for_one_session_wait_no_longer_together() -> None:
    """Their queries go one after another; each one's time is counted from when it was asked."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    # A Temporal that takes connections and never answers.
    async with listening(swallow) as there:
        gateway = Gateway(await open_client(f"127.0.0.1:{there.port}", lazy=True), TIMEOUT_SECONDS)
        begin = time.monotonic()
        codes = await asyncio.gather(*(ask(gateway) for _ in range(WAITING)))
    assert set(codes) == {"temporal-unavailable"}
    assert time.monotonic() - begin < WAITING / 2 * TIMEOUT_SECONDS, "twice that if one waited for another"


async def test_a_process_that_was_started_while_temporal_was_away_says_so() -> None:
    gateway = Gateway(await open_client("127.0.0.1:1", lazy=True), TIMEOUT_SECONDS)
    assert await ask(gateway) == "temporal-unavailable"


async def test_money_says_so_as_sessions_do() -> None:
    client = await open_client("127.0.0.1:1", lazy=True)
    money = MoneyGateway(client, TIMEOUT_SECONDS)
    for look in (money.mandate, money.purchase, money.payment, money.allowance):
        with pytest.raises(Unavailable) as unavailable:
            await look("m-1")
        assert unavailable.value.code == "temporal-unavailable"


@workflow.defn
class Stumbling:
    """Its task fails the first ``stumbles`` times that an update comes with it."""

    attempts = 0

    @workflow.init
    def __init__(self, stumbles: int) -> None:
        self.stumbles = stumbles

    @workflow.run
    async def run(self, stumbles: int) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.update
    async def poke(self) -> int:
        Stumbling.attempts += 1
        if Stumbling.attempts <= self.stumbles:
            raise RuntimeError("fails the task, not the update")
        return Stumbling.attempts


@workflow.defn(name="AgentSession")
class Unanswering:
    """A session whose worker can't answer at the moment: its payloads are out of reach, for example."""

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.query
    def snapshot(self) -> None:
        raise OSError("the payload store is away")


async def test_what_cannot_be_said_now_is_503_and_what_does_not_exist_is_404(
    temporal: TemporalClient,
) -> None:
    queue = f"test-{uuid.uuid4().hex}"
    gateway = Gateway(temporal, PATIENT_SECONDS)
    async with Worker(
        temporal,
        task_queue=queue,
        workflows=[Unanswering, Stumbling],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        handle: WorkflowHandle[Unanswering, None] = await temporal.start_workflow(
            Unanswering.run, id=queue, task_queue=queue
        )
        with pytest.raises(Unavailable):
            await gateway.snapshot(queue)
        await handle.terminate()
        other: WorkflowHandle[Stumbling, None] = await temporal.start_workflow(
            Stumbling.run, 0, id=f"{queue}-other", task_queue=queue
        )
        with pytest.raises(UnknownSession):  # a workflow of another kind: it has no such query
            await gateway.replay(other.id, 0, 10)
        await other.terminate()
    with pytest.raises(UnknownSession):
        await gateway.snapshot("nobody-has-started-this")


@pytest.mark.parametrize("status", [status for status in WorkflowExecutionStatus if status.name != "RUNNING"])
async def test_a_run_that_continued_as_new_while_it_was_asked_is_no_end(
    status: WorkflowExecutionStatus,
) -> None:
    asked: list[QueryRejectCondition] = []

    async def query(reject: QueryRejectCondition) -> str:
        asked.append(reject)
        if len(asked) < 3 and reject != QueryRejectCondition.NONE:
            raise WorkflowQueryRejectedError(status)
        return "answer"

    goes_on = status == WorkflowExecutionStatus.CONTINUED_AS_NEW
    assert await ask_unless_ended(query) == ("answer", not goes_on)


@pytest.mark.parametrize(
    ("error", "repeated"),
    [
        (WorkflowUpdateFailedError(ApplicationError("words", type="UnprocessedUpdate")), True),
        (RPCError("The limit on the total number of …", RPCStatusCode.FAILED_PRECONDITION, b""), True),
        (RPCError("workflow task failure", RPCStatusCode.FAILED_PRECONDITION, b""), True),
        (RPCError("workflow update was aborted by closing workflow", RPCStatusCode.NOT_FOUND, b""), True),
        (WorkflowUpdateFailedError(ApplicationError("full", type=names.QUEUE_FULL)), False),
        (RPCError("no such workflow", RPCStatusCode.NOT_FOUND, b""), False),
    ],
)
async def test_an_update_is_repeated_only_if_nothing_can_have_come_of_it(
    error: Exception, repeated: bool
) -> None:
    attempts = 0

    async def execute() -> int:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise error
        return attempts

    if repeated:
        assert await until_taken(execute) == 2
    else:
        with pytest.raises(type(error)):
            await until_taken(execute)


_TEMPORALS_WORDS = "words of Temporal's own"


@pytest.mark.parametrize("code", [code for code in RPCStatusCode if code.name != "OK"])
async def test_no_word_of_temporals_own_reaches_a_client(code: RPCStatusCode) -> None:
    calls = Calls(None, TIMEOUT_SECONDS, names.SESSION_WORKFLOW, SESSION_WORDING)  # type: ignore[arg-type]

    async def fail() -> None:
        raise RPCError(_TEMPORALS_WORDS, code, b"")

    with pytest.raises(Problem) as told:
        await calls.guarded("s", fail)
    assert _TEMPORALS_WORDS not in told.value.detail
    assert told.value.headers().get("Retry-After") or told.value.status in (404, 422)


async def test_a_session_that_continues_as_new_is_not_unknown() -> None:
    calls = Calls(None, TIMEOUT_SECONDS, names.SESSION_WORKFLOW, SESSION_WORDING)  # type: ignore[arg-type]

    async def fail() -> None:
        raise RPCError("workflow update was aborted by closing workflow", RPCStatusCode.NOT_FOUND, b"")

    with pytest.raises(Unavailable):
        await calls.guarded("s", fail)


async def test_a_payload_storage_out_of_reach_is_no_bug_and_can_be_tried_again() -> None:
    calls = Calls(None, TIMEOUT_SECONDS, names.SESSION_WORKFLOW, SESSION_WORDING)  # type: ignore[arg-type]

    async def fail() -> None:
        raise PayloadsUnavailableError("A payload can't be stored: OSError")

    with pytest.raises(Unavailable) as told:
        await calls.guarded("s", fail)
    assert told.value.code == "unavailable"


@pytest.mark.parametrize("kind", ["UnprocessedUpdate", "AcceptedUpdateCompletedWorkflow", "", None])
async def test_a_failure_that_is_no_refusal_of_a_workflow_can_be_tried_again(kind: str | None) -> None:
    calls = Calls(None, TIMEOUT_SECONDS, names.SESSION_WORKFLOW, SESSION_WORDING)  # type: ignore[arg-type]

    async def fail() -> None:
        raise WorkflowUpdateFailedError(ApplicationError(_TEMPORALS_WORDS, type=kind))

    with pytest.raises(Unavailable) as told:
        await calls.guarded("s", fail)
    assert (told.value.code, _TEMPORALS_WORDS in told.value.detail) == ("busy", False)
    assert told.value.extra == {"carried_out": "no" if kind == "UnprocessedUpdate" else "unknown"}


FAILURES: list[tuple[Exception, str]] = [
    (TimeoutError(), "unknown"),
    (WorkflowUpdateRPCTimeoutOrCancelledError(), "unknown"),
    (RPCError("limit", RPCStatusCode.FAILED_PRECONDITION, b""), "no"),
    (RPCError("full", RPCStatusCode.RESOURCE_EXHAUSTED, b""), "unknown"),
    (RPCError("late", RPCStatusCode.DEADLINE_EXCEEDED, b""), "unknown"),
    (RPCError("gone", RPCStatusCode.UNAVAILABLE, b""), "unknown"),
    (RuntimeError("Failed client connect"), "no"),
]


@pytest.mark.parametrize(("error", "carried_out"), FAILURES, ids=lambda one: getattr(one, "args", one))
@pytest.mark.parametrize("looks", [False, True])
async def test_each_answer_that_is_missing_says_what_may_have_been_done(
    error: Exception, carried_out: str, looks: bool
) -> None:
    calls = Calls(None, TIMEOUT_SECONDS, names.SESSION_WORKFLOW, SESSION_WORDING)  # type: ignore[arg-type]

    async def fail() -> None:
        raise error

    with pytest.raises(Unavailable) as told:
        await calls.guarded("s", fail, looks=looks)
    assert told.value.body()["carried_out"] == ("no" if looks else carried_out)
    assert ("may have been carried out" in told.value.detail) == (not looks and carried_out == "unknown")


def test_every_refusal_of_a_session_or_a_decision_has_a_code() -> None:
    """A kind that the API doesn't know would be told as if it were Temporal's own."""
    said = re.compile(r"\b(?:Refused|refusal)\(\s*(?:names\.)?([A-Z_]+)\b")
    rooms = (ROOT / "workflows" / "session", ROOT / "workflows" / "purchase", ROOT / "workflows")
    files = {file for room in rooms for file in room.glob("*.py")}
    files.remove(ROOT / "workflows" / "session" / "steps.py")  # which agents' processes call, and not the API
    found = {name for file in files for name in said.findall(file.read_text())}
    assert {"QUEUE_FULL", "STALE_DIGEST", "INVALID_ARGUMENT", "UNEXPECTED"} <= found
    for name in found:
        assert refusal(ApplicationError("…", type=getattr(names, name))), name


async def poke(temporal: TemporalClient, stumbles: int, within: float = PATIENT_SECONDS) -> int:
    Stumbling.attempts = 0
    queue = f"test-{uuid.uuid4().hex}"
    async with Worker(
        temporal, task_queue=queue, workflows=[Stumbling], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        handle: WorkflowHandle[Stumbling, None] = await temporal.start_workflow(
            Stumbling.run, stumbles, id=queue, task_queue=queue
        )
        try:
            answer: int = await execute_update(handle, Stumbling.poke, (), timedelta(seconds=within))
            return answer
        finally:
            await handle.terminate()


async def test_an_update_that_temporal_has_dropped_with_a_failed_task_is_repeated(
    temporal: TemporalClient,
) -> None:
    assert await poke(temporal, stumbles=1) == 2


async def test_an_update_that_is_dropped_every_time_fails(temporal: TemporalClient) -> None:
    with pytest.raises((RPCError, WorkflowUpdateRPCTimeoutOrCancelledError)):
        await poke(temporal, stumbles=1_000, within=3 * TIMEOUT_SECONDS)
    assert 1 < Stumbling.attempts <= MAX_UPDATE_ATTEMPTS


async def test_a_session_whose_queue_is_full_is_not_asked_by_everybody_who_presses_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each refusal costs the session a task: with enough clients it would do nothing else."""
    asked: list[str] = []

    async def refuse(handle: WorkflowHandle[object, object], *_: object, **__: object) -> None:
        asked.append(handle.id)
        raise TooMany("100 turns are waiting already; try again later.", code="queue-full")

    async def full_for(seconds: float) -> Gateway:
        monkeypatch.setattr(sessions, "FULL_FOR_SECONDS", seconds)
        gateway = Gateway(await open_client("127.0.0.1:1", lazy=True), TIMEOUT_SECONDS)
        monkeypatch.setattr(gateway._calls, "update", refuse)
        return gateway

    message = SendMessage(text="hi", actor=Actor(id="ada", role=Role.USER))

    async def send(gateway: Gateway, session_id: str) -> None:
        with pytest.raises(TooMany, match="try again later") as told:
            await gateway.send(session_id, message)
        assert told.value.code == "queue-full"

    gateway = await full_for(600)
    for _ in range(20):
        await send(gateway, "full")
    await send(gateway, "another")
    assert asked == ["full", "another"]
    gateway = await full_for(0.01)
    for _ in range(2):
        await send(gateway, "again")
        await eventually(lambda: not gateway._full)
    assert asked == ["full", "another", "again", "again"]
