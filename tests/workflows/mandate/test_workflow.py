"""The Mandate workflow on a real server: parallel reservations, plain JSON signals, expiry, renewal."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.contract import CommitFor, ReleaseFor, ReserveFor
from activities.mandates import MandateActivities
from activities.proofs import ProofActivities
from tests.support import eventually
from tests.world.keys import TRUSTING
from tests.world.temporal import TEMPORAL
from tests.world.time_skipping import running_time_skipping
from waystation.models.mandates import (
    CommitRequest,
    MandateTerms,
    MandateView,
    ReleaseRequest,
    ReserveAnswer,
    ReserveRequest,
)
from worker import WORKFLOW_RUNNER
from workflows.mandate import Mandate, MandateStart
from workflows.mandate import workflow as mandate_module

SHOP = "https://shop.example"


def terms(**changes: Any) -> MandateTerms:
    given: dict[str, Any] = {
        "owner": "alice",
        "agent": "shopper",
        "cap": {"amount": 10_000, "currency": "usd"},
        "valid_until": datetime.now(UTC) + timedelta(days=30),
        "sellers": [SHOP],
        "payment_methods": ["pm_card_visa"],
    }
    return MandateTerms.model_validate({**given, **changes})


def wanted(key: str, amount: int, *, hold_seconds: int = 600, holder: str | None = None) -> ReserveRequest:
    return ReserveRequest.model_validate(
        {
            "key": key,
            "amount": {"amount": amount, "currency": "usd"},
            "seller": SHOP,
            "agent": "shopper",
            "protocol": "acp",
            "hold_seconds": hold_seconds,
            "holder": holder,
        }
    )


def worker_for(client: Client, queue: str, **options: Any) -> Worker:
    activities = MandateActivities(client)
    return Worker(
        client,
        task_queue=queue,
        workflows=[Mandate],
        activities=[activities.holder_is_running, ProofActivities(TRUSTING).check_proof],
        workflow_runner=WORKFLOW_RUNNER,
        **options,
    )


@pytest.fixture
async def queue(temporal: Client) -> AsyncIterator[str]:
    name = f"mandates-{uuid.uuid4()}"
    # Nothing is cached, so every task replays the history: what isn't deterministic fails here.
    async with worker_for(temporal, name, max_cached_workflows=0):
        yield name


async def start(client: Client, queue: str, **changes: Any) -> WorkflowHandle[Any, MandateView]:
    return await client.start_workflow(
        Mandate.run, MandateStart(terms=terms(**changes)), id=f"mandate-{uuid.uuid4()}", task_queue=queue
    )


def rule_of(failed: WorkflowUpdateFailedError | ApplicationError) -> str:
    cause = failed.cause if isinstance(failed, WorkflowUpdateFailedError) else failed
    assert isinstance(cause, ApplicationError)
    assert cause.type == "MandateRefused"
    return str(cause.details[0])


async def test_parallel_reservations_never_exceed_the_cap(temporal: Client, queue: str) -> None:
    handle = await start(temporal, queue)

    async def attempt(number: int) -> bool:
        try:
            await handle.execute_update(Mandate.reserve, wanted(f"k{number}", 900))
        except WorkflowUpdateFailedError as failed:
            refusals.append(rule_of(failed))
            return False
        return True

    refusals: list[str] = []
    taken = sum(await asyncio.gather(*(attempt(number) for number in range(25))))
    balance = await handle.query(Mandate.balance)
    assert taken == 11
    assert refusals == ["cap_exceeded"] * 14
    assert (balance.reserved.amount, balance.left.amount) == (9_900, 100)


async def test_many_payments_at_once_wait_for_their_turn_at_one_mandate(temporal: Client, queue: str) -> None:
    """Temporal refuses more than ten updates under way in one workflow; no payment may notice."""
    handle = await start(temporal, queue)
    calls = MandateActivities(temporal)
    wishes = (ReserveFor(mandate_id=handle.id, request=wanted(f"k{number}", 10)) for number in range(40))
    answers = await asyncio.gather(*(calls.reserve_from_mandate(wish) for wish in wishes))
    assert {answer.reservation.state for answer in answers} == {"held"}
    standing = await handle.query(Mandate.standing)
    assert (standing.reserved.amount, standing.reservations) == (400, ())


async def test_activities_are_idempotent_and_find_commits_after_the_end(temporal: Client, queue: str) -> None:
    handle = await start(temporal, queue)
    calls = MandateActivities(temporal)
    for _ in range(2):
        answer = await calls.reserve_from_mandate(ReserveFor(mandate_id=handle.id, request=wanted("a", 100)))
        assert isinstance(answer, ReserveAnswer)
    for _ in range(2):
        await calls.commit_to_mandate(CommitFor(mandate_id=handle.id, request=CommitRequest(key="a")))
    await calls.release_to_mandate(ReleaseFor(mandate_id=handle.id, request=ReleaseRequest(key="b")))
    balance = await handle.query(Mandate.balance)
    assert (balance.spent.amount, balance.reserved.amount, balance.payments) == (100, 0, 1)

    with pytest.raises(ApplicationError) as caught:
        await calls.reserve_from_mandate(ReserveFor(mandate_id="nowhere", request=wanted("a", 100)))
    assert rule_of(caught.value) == "mandate_not_found"
    await handle.terminate()
    settled = await calls.commit_to_mandate(CommitFor(mandate_id=handle.id, request=CommitRequest(key="a")))
    assert settled.spent == 100
    assert (
        await calls.release_to_mandate(ReleaseFor(mandate_id=handle.id, request=ReleaseRequest(key="b")))
        is None
    )


async def test_revoke_works_from_the_command_line_and_garbage_does_no_harm(
    temporal: Client, queue: str
) -> None:
    handle = await start(temporal, queue)
    address = temporal.service_client.config.target_host

    async def signal(name: str, value: str) -> None:
        process = await asyncio.create_subprocess_exec(
            TEMPORAL, "workflow", "signal", "--address", address, "-w", handle.id,
            "--name", name, "--input", value, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert await process.wait() == 0

    for garbage in ("null", "5", "[]", '{"nobody": 1}'):
        await signal("revoke", garbage)
    assert (await handle.query(Mandate.balance)).status == "active"
    await signal("revoke", '{"by": "alice", "reason": "changed my mind"}')
    await eventually(lambda: _status_is(handle, "revoked"), what="the mandate is revoked")
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await handle.execute_update(Mandate.reserve, wanted("a", 100))
    assert rule_of(caught.value) == "mandate_revoked"


async def _status_is(handle: WorkflowHandle[Any, MandateView], status: str) -> bool:
    return (await handle.query(Mandate.balance)).status == status


async def test_updates_with_garbage_are_refused_not_retried_for_ever(temporal: Client, queue: str) -> None:
    handle = await start(temporal, queue)
    for name in ("reserve", "commit", "release"):
        for garbage in (None, 5, {"kee": "k"}):
            with pytest.raises(WorkflowUpdateFailedError):
                await handle.execute_update(name, garbage)
    assert (await handle.query(Mandate.balance)).status == "active"


async def test_an_unknown_constraint_is_refused_also_past_the_api(temporal: Client, queue: str) -> None:
    raw = MandateStart(terms=terms()).model_dump(mode="json")
    raw["terms"]["constraints"] = [{"type": "only_on_sundays"}]
    handle = await temporal.start_workflow("Mandate", raw, id=f"mandate-{uuid.uuid4()}", task_queue=queue)
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert "only_on_sundays" in str(caught.value.cause)


async def test_a_long_life_is_renewed_and_nothing_is_forgotten(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mandate_module, "MAX_EVENTS_BEFORE_ROLLOVER", 60)
    name = f"mandates-{uuid.uuid4()}"
    async with worker_for(temporal, name):
        handle = await start(temporal, name)
        first_run = (await handle.describe()).run_id
        for number in range(30):
            await handle.execute_update(Mandate.reserve, wanted(f"k{number}", 10))
            if number % 2:
                await handle.execute_update(Mandate.commit, CommitRequest(key=f"k{number}"))
        balance = await handle.query(Mandate.balance)
        assert (balance.spent.amount, balance.reserved.amount) == (150, 150)
        assert (await handle.describe()).run_id != first_run


@pytest.fixture(scope="session")
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    async with running_time_skipping() as server:
        yield server


async def test_it_expires_and_releases_by_itself(skipping: WorkflowEnvironment) -> None:
    name = f"mandates-{uuid.uuid4()}"
    async with worker_for(skipping.client, name):
        begin = await skipping.get_current_time()
        handle = await start(skipping.client, name, valid_until=begin + timedelta(days=2))
        await handle.execute_update(Mandate.reserve, wanted("spent", 300, hold_seconds=60))
        await handle.execute_update(Mandate.commit, CommitRequest(key="spent"))
        await handle.execute_update(Mandate.reserve, wanted("abandoned", 500, hold_seconds=3_600))
        gone = wanted("holder gone", 700, hold_seconds=3_600, holder="no-such-workflow")
        await handle.execute_update(Mandate.reserve, gone)
        assert (await handle.query(Mandate.balance)).reserved.amount == 1_200
        await skipping.sleep(timedelta(hours=2))
        balance = await handle.query(Mandate.balance)
        assert (balance.spent.amount, balance.reserved.amount) == (300, 0)
        final = await handle.result()
        assert final.status == "expired"
        assert (final.spent.amount, final.reserved.amount) == (300, 0)
        assert await skipping.get_current_time() >= begin + timedelta(days=2)


async def test_a_hold_outlives_its_time_while_its_holder_is_at_work(skipping: WorkflowEnvironment) -> None:
    name = f"mandates-{uuid.uuid4()}"
    async with worker_for(skipping.client, name):
        begin = await skipping.get_current_time()
        holder = await start(skipping.client, name, valid_until=begin + timedelta(days=1))
        handle = await start(skipping.client, name, valid_until=begin + timedelta(hours=1))
        request = wanted("in flight", 400, hold_seconds=60, holder=holder.id)
        await handle.execute_update(Mandate.reserve, request)
        await skipping.sleep(timedelta(hours=5))
        balance = await handle.query(Mandate.balance)
        assert balance.status == "expired"
        assert balance.reserved.amount == 400
        await handle.execute_update(Mandate.commit, CommitRequest(key="in flight"))
        final = await handle.result()
        assert (final.spent.amount, final.reserved.amount) == (400, 0)
