"""The agent of docs/conformance.md's script, by this library: ``waystation.agents.conformance:agent``."""

import asyncio

from pydantic import JsonValue

from waystation.agent import Agent, RetryTurn, Turn

agent = Agent("conformance")

FILLING_CHARACTERS = 100_000


@agent.turn
async def answer(turn: Turn) -> JsonValue:
    """Does what the turn's text says."""
    word, *rest = turn.text.split()
    numbers = [int(number) for number in rest]
    match word, numbers:
        case "stream", [count, *pause]:
            return await _stream(turn, count, sum(pause) / 1_000)
        case "fill", [count]:
            for _ in range(count):
                await turn.write("x" * FILLING_CHARACTERS)
                await turn.end_message()
            return {"messages": count}
        case "wait", []:
            await turn.write("waiting ")
            await asyncio.Event().wait()
        case "tool", []:
            await turn.write("asking ")
            async with turn.tool("lookup", {"q": "tea"}) as call:
                call.result = {"cups": 3}
            await turn.write("done")
            return {"cups": 3}
        case "steer", []:
            return await _steer(turn)
        case "ask", []:
            return {"answer": await turn.ask("Which?", choices=["tea", "coffee"], key="drink")}
        case "spawn", []:
            await turn.write("asking ")
            child = await turn.spawn(turn.agent, "stream 3", key="child")
            return {"child": await child.result()}
        case "fail", []:
            await turn.write("about to fail ")
            raise ValueError("as asked")
        case "retry", []:
            await turn.write(f"attempt {turn.attempt} ")
            if turn.attempt == 1:
                raise RetryTurn("not yet")
            return {"attempt": turn.attempt}
    raise ValueError(f"the script has no {turn.text!r}")


async def _stream(turn: Turn, count: int, pause_seconds: float) -> JsonValue:
    for number in range(count):
        # Each of these is one code point, and two units of UTF-16.
        await turn.write(f"\N{TEACUP WITHOUT HANDLE}\N{SLICE OF PIZZA}{number} ")
        await asyncio.sleep(pause_seconds)
    return {"parts": count}


async def _steer(turn: Turn) -> JsonValue:
    await turn.write("waiting ")
    await turn.wait_for_steer()
    [steer] = await turn.take_steers()
    await turn.write(steer.text)
    return {"steer": steer.text}
