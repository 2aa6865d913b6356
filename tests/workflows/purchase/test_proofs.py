"""A worker that takes signed decisions only: what counts, and what a forger can reach."""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.common import RetryPolicy
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError
from typer.testing import CliRunner

from tests.support import eventually
from tests.workflows.mandate.test_workflow import wanted
from tests.workflows.purchase.conftest import working
from tests.workflows.purchase.scripted_seller import ScriptedSeller
from tests.workflows.purchase.support import Bought, Buyer
from tests.world.keys import DECISION_KEY, SIGNER, STRICT
from tests.world.sandbox import Processor
from tests.world.temporal import TEMPORAL, TemporalServer
from waystation.cli.main import app
from waystation.models.base import replaced
from waystation.models.decisions import Approve, Decision
from waystation.models.mandates import MandateTerms
from waystation.models.proofs import Proof
from waystation.proofs import Signer, new_signing_key
from workflows.mandate import Mandate, MandateStart, rules
from workflows.purchase import Purchase

FOREIGN = Signer.of(new_signing_key("tests"))


@pytest.fixture(scope="module")
async def strict_queue(encrypted: Client, processor: Processor) -> AsyncIterator[str]:
    async with working(encrypted, processor, STRICT) as queue:
        yield queue


@pytest.fixture
def buyer(encrypted: Client, strict_queue: str, seller: ScriptedSeller) -> Buyer:
    return Buyer(encrypted, strict_queue, seller.origin)


def terms(seller: str, **changes: Any) -> MandateTerms:
    given: dict[str, Any] = {
        "owner": "alice",
        "agent": "shopper",
        "cap": {"amount": 100_000, "currency": "usd"},
        "valid_until": datetime.now(UTC) + timedelta(days=30),
        "sellers": [seller],
        "payment_methods": ["pm_card_visa"],
    }
    return MandateTerms.model_validate({**given, **changes})


async def granted(buyer: Buyer, **changes: Any) -> str:
    mandate_id = f"mandate-{uuid.uuid4()}"
    wanted_terms = terms(buyer.seller, **changes)
    start = MandateStart(terms=wanted_terms, proof=SIGNER.sign("grant", mandate_id, wanted_terms))
    await buyer.client.start_workflow(Mandate.run, start, id=mandate_id, task_queue=buyer.queue)
    return mandate_id


async def awaiting(buyer: Buyer) -> tuple[Bought, str]:
    bought = await buyer.start(await granted(buyer))
    view = await bought.until("awaiting_approval")
    assert view.digest is not None
    return bought, view.digest


async def temporal_cli(server: TemporalServer, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        TEMPORAL,
        "workflow",
        *arguments,
        "--address",
        server.address,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


def waystation(*arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments], env={"WAYSTATION_DECISION_KEYS": json.dumps([DECISION_KEY])})
    assert done.exit_code == 0, done.output
    return done.output.strip()


async def test_a_mandate_and_an_approval_signed_for_temporals_own_command_line(
    buyer: Buyer, temporal_server: TemporalServer, tmp_path: Path
) -> None:
    mandate_id = f"mandate-{uuid.uuid4()}"
    file = tmp_path / "terms.json"
    file.write_text(terms(buyer.seller).model_dump_json())
    start = waystation("sign", "grant", mandate_id, str(file))
    where = ("--type", "Mandate", "--task-queue", buyer.queue, "--workflow-id", mandate_id)
    await temporal_cli(temporal_server, "start", *where, "--input", start)

    bought = await buyer.start(mandate_id)
    digest = (await bought.until("awaiting_approval")).digest
    said = waystation("sign", "approve", bought.id, "--digest", str(digest), "--by", "alice")
    signal = ("signal", "--workflow-id", bought.id, "--name", "approve", "--input", said)
    await temporal_cli(temporal_server, *signal)
    view = await bought.outcome()
    assert (view.status, view.money_moved) == ("completed", True)
    received = [entry for entry in (await bought.trail()).entries if entry.action == "approval.received"]
    assert [(entry.actor, entry.detail["key"]) for entry in received] == [("alice", "tests")]


async def test_a_forged_approval_is_written_down_and_changes_nothing(buyer: Buyer) -> None:
    bought, digest = await awaiting(buyer)
    other, other_digest = await awaiting(buyer)
    plain = Approve(digest=digest, approver="alice")
    signed_elsewhere = SIGNER.sign("approve", other.id, plain)
    forged: dict[str, Proof | None] = {
        "unsigned": None,
        "by a key of the same name": FOREIGN.sign("approve", bought.id, plain),
        "of another workflow": signed_elsewhere,
        "of another digest": SIGNER.sign("approve", bought.id, replaced(plain, digest="sha256:" + "0" * 64)),
        "of another person": SIGNER.sign("approve", bought.id, replaced(plain, approver="bob")),
        "expired": SIGNER.sign("approve", bought.id, plain, now=1_700_000_000),
    }
    assert other_digest
    for proof in forged.values():
        await bought.handle.signal(Purchase.approve, replaced(plain, proof=proof))
        decision = Decision(approve=replaced(plain, proof=proof))
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await bought.handle.execute_update(Purchase.decide, decision)
        assert isinstance(refused.value.cause, ApplicationError)
        assert refused.value.cause.type == "NotProven"
    assert (await bought.view()).status == "awaiting_approval"

    async def all_written_down() -> bool:
        entries = [e for e in (await bought.trail()).entries if e.action == "approval.refused"]
        assert {entry.actor for entry in entries} <= {"unproven"}
        assert {entry.detail["claimed_by"] for entry in entries} <= {"alice"}
        return len(entries) == 2 * len(forged)

    await eventually(all_written_down, what="every claim is in the trail")
    proof = SIGNER.sign("approve", bought.id, plain)
    await bought.handle.signal(Purchase.approve, replaced(plain, proof=proof))
    assert (await bought.outcome()).status == "completed"


@pytest.mark.parametrize(
    "claim", ["nothing", "another mandate's proof", "other terms", "a ledger", "retries"]
)
async def test_a_mandate_that_nobody_granted_ends_and_reserves_nothing(buyer: Buyer, claim: str) -> None:
    mandate_id = f"mandate-{uuid.uuid4()}"
    asked = terms(buyer.seller, approval_threshold=100_000)
    start, options = MandateStart(terms=asked), dict[str, Any]()
    match claim:
        case "another mandate's proof":
            start = MandateStart(terms=asked, proof=SIGNER.sign("grant", "mandate-other", asked))
        case "other terms":
            small = replaced(asked, approval_threshold=0)
            start = MandateStart(terms=asked, proof=SIGNER.sign("grant", mandate_id, small))
        case "a ledger":
            ledger = rules.MandateLedger(mandate_id=mandate_id, terms=asked)
            start = MandateStart(terms=asked, ledger=ledger)
        case "retries":  # a second run would look like one that this workflow renewed
            ledger = rules.MandateLedger(mandate_id=mandate_id, terms=asked)
            start = MandateStart(terms=asked, ledger=ledger)
            options = {"retry_policy": RetryPolicy(maximum_attempts=3)}
    handle = await buyer.client.start_workflow(
        Mandate.run, start, id=mandate_id, task_queue=buyer.queue, **options
    )
    view = await handle.result()
    assert view.status == "revoked"
    assert view.revoked_because is not None
    assert view.revoked_because.startswith("the grant is not proven")
    bought = await buyer.start(mandate_id)
    refused = await bought.outcome()
    assert (refused.status, refused.money_moved) == ("refused", False)


async def test_a_reservation_waits_for_the_proof_of_the_grant(buyer: Buyer) -> None:
    handle = buyer.client.get_workflow_handle_for(Mandate.run, await granted(buyer))
    request = replaced(wanted("k", 900), seller=buyer.seller)
    answer = await handle.execute_update(Mandate.reserve, request)
    assert answer.reservation.state == "held"


async def test_an_agents_process_finds_no_token_in_a_history(
    buyer: Buyer, encrypted: Client, processor: Processor
) -> None:
    """The payload keys are all that an agent has."""
    bought, digest = await awaiting(buyer)
    said = Approve(digest=digest, approver="alice")
    said = replaced(said, proof=SIGNER.sign("approve", bought.id, said))
    await bought.handle.signal(Purchase.approve, said)
    assert (await bought.outcome()).status == "completed"
    history = json.loads((await bought.handle.fetch_history()).to_json())
    clear = await _decrypted(history, encrypted.data_converter)
    assert digest in clear, "the search finds what is there"
    assert "sealed:tests:" in clear
    assert "spt_" not in clear


async def _decrypted(value: object, converter: DataConverter) -> str:
    """Everything in a history, with every payload decrypted."""
    if isinstance(value, dict):
        if isinstance(data := value.get("data"), str) and "metadata" in value:
            from google.protobuf.json_format import ParseDict
            from temporalio.api.common.v1 import Payload

            assert converter.payload_codec is not None
            opened = await converter.payload_codec.decode([ParseDict(value, Payload())])
            return data + "".join(payload.data.decode(errors="replace") for payload in opened)
        return "".join([await _decrypted(item, converter) for item in value.values()])
    if isinstance(value, list):
        return "".join([await _decrypted(item, converter) for item in value])
    try:
        return str(value) + base64.b64decode(str(value), validate=True).decode(errors="replace")
    except ValueError:
        return str(value)
