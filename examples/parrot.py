"""An agent in twenty lines. Run: waystation dev --agent parrot:agent (in this folder)."""

import asyncio

from waystation.agent import Agent, Turn

WORD_PAUSE_SECONDS = 0.2

agent = Agent("parrot")


@agent.turn
async def answer(turn: Turn) -> None:
    """Repeats everything, word by word, and takes steers along the way."""
    async with turn.tool("count", {"text": turn.text}) as call:
        call.result = len(turn.text.split())
    for word in turn.text.split():
        await asyncio.sleep(WORD_PAUSE_SECONDS)
        await turn.write(word + " ")
        for steer in await turn.take_steers():
            await turn.write(f"({steer.text}) ")
