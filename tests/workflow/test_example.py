"""The example on real parts: its process is killed at odd moments, and what people see has no seam."""

import uuid
from pathlib import Path

import pytest
from temporalio.worker import Replayer

import examples.claims
from tests.support import eventually
from tests.workflow.test_sessions import asked, encrypted, events, has, last, texts
from tests.world.claims import running_claims
from tests.world.stack import Stack
from waystation.client import Client

OPINION = "I see: a pipe has burst. That is covered. "


EVERY_MOMENT = ("started", "streaming", "asked", "approving")


@pytest.mark.thorough
@pytest.mark.parametrize("killed", [("streaming",), pytest.param(EVERY_MOMENT, marks=pytest.mark.slow)])
async def test_a_claim_is_settled(
    stack: Stack, client: Client, tmp_path: Path, killed: tuple[str, ...]
) -> None:
    claim = uuid.uuid4().hex
    session = client.attach(f"claim-{claim}")
    env = stack.agent_env("claims")
    with running_claims(tmp_path, claim, env=env) as process:

        def strike(moment: str) -> None:
            if moment in killed:
                process.kill()
                process.start()

        await eventually(lambda: has(session, "session.started"), what="the session is there")
        strike("started")
        await eventually(lambda: has(session, "message.completed"), what="the workflow speaks")
        await session.send("a pipe has burst")
        await eventually(lambda: has(session, "message.delta"), what="text appears as it is made")
        strike("streaming")
        question = await asked(session)
        strike("asked")
        await session.answer(str(question.data["question_id"]), {"amount": 500})
        await eventually(lambda: has(session, "input.requested", 2), what="it asks for approval")
        approval = await asked(session)
        strike("approving")
        async with stack.client("approver") as approver:
            await approver.attach(session.id).answer(
                str(approval.data["question_id"]),
                {"decision": "approve", "arguments": {"amount": 400}},
                digest=str(approval.data["digest"]),
            )
        await last(session, "session.closed")
        assert (await last(session, "turn.completed")).data["result"] == "paid 400"
        assert await texts(session) == ["You are insured. What happened?", "a pipe has burst", OPINION]
        for kind, count in {"tool.called": 2, "tool.returned": 2, "message.superseded": 0}.items():
            assert sum(event.type == kind for event in await events(session)) == count, kind
    async with encrypted(stack) as temporal:
        whole = temporal.get_workflow_handle(f"claims/{claim}")
        assert await whole.result() == "paid 400"
        replayer = Replayer(workflows=[examples.claims.Claim], data_converter=temporal.data_converter)
        await replayer.replay_workflow(await whole.fetch_history())
