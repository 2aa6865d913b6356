"""An insurance claim as a Temporal workflow of your own, which people watch, talk to, answer and stop.

Run beside a 'waystation dev', in its folder:  python claims.py 17
Then talk to it in the console, or:            waystation session send claim-17 "a pipe has burst"
docs/temporal-code.md explains it.
"""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

from pydantic import BaseModel
from temporalio import activity, workflow
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.worker import Worker

from waystation.workflow import ApprovalRejected, Session, Turn

with workflow.unsafe.imports_passed_through():
    from waystation.activity import WriterRef, Writers
    from waystation.dev.local import DEFAULT_STATE_FOLDER, read_agent_environment
    from waystation.settings import read_settings
    from waystation.temporal.connect import connect

TASK_QUEUE = "claims"
MINUTE = timedelta(minutes=1)
WORD_PAUSE_SECONDS = 0.05


class Damage(BaseModel):
    """What people fill in: a form in the console."""

    amount: int
    what: str = ""


@dataclass
class Opinion:
    """What is to be said, and where."""

    ref: WriterRef
    about: str


class Assessor:
    """Activities that write to the session as they work, over one connection of this process."""

    def __init__(self, writers: Writers) -> None:
        self._writers = writers

    @activity.defn
    async def assess(self, opinion: Opinion) -> str:
        """Streams what it thinks; a language model would stand here."""
        async with self._writers.open(opinion.ref) as out:
            for word in f"I see: {opinion.about}. That is covered.".split():
                await out.write(word + " ")
                await asyncio.sleep(WORD_PAUSE_SECONDS)
        return out.text


@activity.defn
async def read_policy(claim: str) -> dict[str, int]:
    """Reads what is insured."""
    return {"covered": 400}


@activity.defn
async def transfer(amount: int) -> str:
    """Pays. A real one would use an idempotency key."""
    return f"paid {amount}"


@workflow.defn
class Claim:
    """One claim, from its first word to its payment: days, if it must be."""

    @workflow.run
    async def run(self, claim: str) -> str:
        session = await Session.start(
            "claims", session_id=f"claim-{claim}", title=f"Claim {claim}", takes_turns=True
        )
        async with session.tool("read_policy", {"claim": claim}) as call:
            call.result = dict(
                await workflow.execute_activity(read_policy, claim, start_to_close_timeout=MINUTE)
            )
        await session.write_message("You are insured. What happened?")
        async for turn in session.turns():
            async with turn:
                turn.result = await self.settle(turn)
            if turn.result:
                await session.close(reason="settled")
                return str(turn.result)
        return "closed by somebody"

    async def settle(self, turn: Turn) -> str | None:
        """Hears what happened, asks what it cost, and pays what a person approves."""
        await workflow.execute_activity_method(
            Assessor.assess,
            Opinion(turn.ref, turn.text),
            start_to_close_timeout=10 * MINUTE,
            heartbeat_timeout=timedelta(seconds=5),
        )
        damage = await turn.ask("What did it cost?", answer=Damage, expires_in=timedelta(days=3))
        try:
            approval = await turn.approve("transfer", {"amount": damage.amount}, editable=True)
        except ApprovalRejected as rejected:
            await turn.write_message(f"It isn't paid. {rejected.reason or ''}")
            return None
        async with turn.tool("transfer", approval.arguments) as call:
            call.result = await workflow.execute_activity(
                transfer, approval.arguments["amount"], start_to_close_timeout=MINUTE
            )
        return str(call.result)


async def main(*claims: str) -> None:
    """Works on claims until it is interrupted, and begins these."""
    # What 'waystation dev' has left for agents; in production the environment has it.
    os.environ.update(read_agent_environment(DEFAULT_STATE_FOLDER, os.environ))
    async with AsyncExitStack() as resources:
        settings = read_settings()
        client = await connect(settings, resources)
        writers = await resources.enter_async_context(Writers(settings))
        for claim in claims:
            await client.start_workflow(
                Claim.run,
                claim,
                id=f"claims/{claim}",
                task_queue=TASK_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            )
        activities = [read_policy, transfer, Assessor(writers).assess]
        await Worker(client, task_queue=TASK_QUEUE, workflows=[Claim], activities=activities).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
