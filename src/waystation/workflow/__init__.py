"""Sessions, purchases and payments from the code of your own Temporal workflows.

@workflow.defn
class Claim:
    @workflow.run
    async def run(self, claim: str) -> str:
        session = await Session.start("claims", session_id=f"claim-{claim}", takes_turns=True)
        await session.write_message("I look at your claim.")
        async for turn in session.turns():
            async with turn:
                await turn.write_message(f"You said: {turn.text}")
        return "the session is closed"

It can be imported in Temporal's workflow sandbox as it is. Activities write by ``waystation.activity``.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from waystation.workflow.errors import SessionError
    from waystation.workflow.money import buy, pay
    from waystation.workflow.questions import (
        AnswerNotUsable,
        Approval,
        ApprovalRejected,
        QuestionExpired,
        QuestionWithdrawn,
    )
    from waystation.workflow.session import Session, Steering, Turn
    from waystation.workflow.writing import ToolCall

__all__ = [
    "AnswerNotUsable",
    "Approval",
    "ApprovalRejected",
    "QuestionExpired",
    "QuestionWithdrawn",
    "Session",
    "SessionError",
    "Steering",
    "ToolCall",
    "Turn",
    "buy",
    "pay",
]
