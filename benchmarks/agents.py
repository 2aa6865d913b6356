"""The agent that benchmarks measure: each token holds the time at which it was written."""

import asyncio

from benchmarks.readers import stamp
from waystation.agent import Agent, Turn
from waystation.agents.demo import Pace, Script

agent = Agent("bench")

START_DELAY_SECONDS = 0.5
"""How long subscribers have to see the turn begin before the first token is timed."""


@agent.turn
async def stream(turn: Turn) -> None:
    """Streams stamps at a steady rate; the message says how many, as in ``tokens=400 rate=50``.

    With ``echo=1`` it repeats the message instead, word by word.
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
