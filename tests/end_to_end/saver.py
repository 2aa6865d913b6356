"""An agent that pays from two allowances on equal terms, one within the other, and dies in between."""

import os
import signal

from pydantic import JsonValue

from waystation.agent import Agent, Turn
from waystation.models.money import Money

agent = Agent("saver")


@agent.turn
async def run(turn: Turn) -> JsonValue:
    """Fetches in the inner block, where the first attempt is killed, then in the outer one."""
    seller, mandate = str(turn.data["seller"]), str(turn.data["mandate"])
    budget, most = Money(amount=100, currency="usd"), Money(amount=50, currency="usd")
    async with turn.allowance(seller, budget=budget, max_price=most, mandate_id=mandate) as outer:
        async with turn.allowance(seller, budget=budget, max_price=most, mandate_id=mandate) as inner:
            await turn.fetch(f"{seller}/v1/reports/{turn.id}-in", max_price=most, mandate_id=mandate)
            if turn.attempt == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        await turn.fetch(f"{seller}/v1/reports/{turn.id}-out", max_price=most, mandate_id=mandate)
    return [outer, inner]
