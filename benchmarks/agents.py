"""The agent that benchmarks measure: each token says when it was written."""

import asyncio

from benchmarks.readers import stamp
from waystation.agent import Agent, Turn
from waystation.agents.demo import Pace, Script

agent = Agent("bench")

START_DELAY_SECONDS = 0.5
"""Lets the screens see the turn begin before the first token is timed."""


@agent.turn
async def stream(turn: Turn) -> None:
    """``tokens=400 rate=50``: streams stamps at a steady rate.

    ``echo=1`` says the message again instead, word by word.
    """
    script = Script(turn)
    if script.number("echo"):
        for word in turn.text.split():
            await turn.write(word + " ")
        return
    await asyncio.sleep(START_DELAY_SECONDS)
    pace = Pace(script.number("rate", 50))
    for _ in range(script.number("tokens", 100)):
        await pace.wait()
        await turn.write(stamp())
