"""The agent that benchmarks measure: each token holds the time at which it was written."""

import asyncio
import itertools
import time

from pydantic import JsonValue

from benchmarks.readers import stamp
from waystation.agent import Agent, Turn
from waystation.agents.demo import Pace, Script

agent = Agent("bench")

START_DELAY_SECONDS = 0.5
"""How long subscribers have to see the turn begin before the first token is timed."""


@agent.turn
async def stream(turn: Turn) -> JsonValue:
    """Streams stamps at a steady rate; the message says how many, as in ``tokens=400 rate=50``.

    With ``echo=1`` it repeats the message instead, word by word; with ``steps=100 at_once=8`` it runs steps
    and returns how long each took.
    """
    script = Script(turn)
    if script.number("steps"):
        return await time_steps(turn, script.number("steps"), script.number("at_once", 1))
    if script.number("echo"):
        for word in turn.text.split():
            await turn.write(word + " ")
        return None
    await asyncio.sleep(START_DELAY_SECONDS)
    pace = Pace(script.number("rate", 50))
    for _ in range(script.number("tokens", 100)):
        await pace.wait()
        await turn.write(stamp())
    return None


async def time_steps(turn: Turn, steps: int, at_once: int) -> JsonValue:
    """Runs steps that do nothing, and returns how long each of them took, and all of them."""
    took_ns: list[JsonValue] = []
    numbers = itertools.count(1)

    async def nothing() -> None:
        """Does nothing: what is measured is the recording."""

    async def run() -> None:
        while (number := next(numbers)) <= steps:
            began_ns = time.monotonic_ns()
            await turn.step(f"step-{number}", nothing)
            took_ns.append(time.monotonic_ns() - began_ns)

    began_ns = time.monotonic_ns()
    await asyncio.gather(*(run() for _ in range(at_once)))
    return {"took_ns": took_ns, "all_ns": time.monotonic_ns() - began_ns}
