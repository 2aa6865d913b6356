"""The script of docs/conformance.md, by raw_agent.py. Run it with the kit, in this folder:

waystation conformance agent --no-encryption --command "python raw_script.py"
"""

import asyncio
from typing import Any

from raw_agent import Turn, main
from temporalio.exceptions import ApplicationError


async def answer(turn: Turn) -> Any:
    """Does what the turn's text says."""
    word, *numbers = turn.given["text"].split()
    match word, [int(number) for number in numbers]:
        case "stream", [count, *pause]:
            # Each of these is one code point, and two units of UTF-16.
            parts = (f"\N{TEACUP WITHOUT HANDLE}\N{SLICE OF PIZZA}{number} " for number in range(count))
            await turn.say("1", *parts, pause_seconds=sum(pause) / 1_000)
            return {"parts": count}
        case "fill", [count]:
            for number in range(count):
                await turn.say(str(number), "x" * 100_000)
            return {"messages": count}
        case "wait", []:
            await turn.say("1", "waiting ")
            await asyncio.Event().wait()
        case "tool", []:
            await turn.say("1", "asking ")
            await turn.write("tool.called", call_id="c1", name="lookup", arguments={"q": "tea"})
            await turn.write("tool.returned", call_id="c1", name="lookup", result={"cups": 3})
            await turn.say("2", "done")
            return {"cups": 3}
        case "steer", []:
            await turn.say("1", "waiting ")
            while not turn.steers:
                await turn.wait()
            [(steer_id, text)] = turn.steers.items()
            await turn.write("steer.consumed", steer_id=steer_id)
            await turn.say("2", text)
            return {"steer": text}
        case "ask", []:
            choices = [{"value": "tea"}, {"value": "coffee"}]
            question_id = f"{turn.given['turn_id']}:drink"
            return {"answer": await turn.ask(question_id, kind="choice", prompt="Which?", choices=choices)}
        case "spawn", []:
            await turn.say("1", "asking ")
            child = await turn.spawn(turn.given["agent"], "stream 3", "child")
            while child not in turn.finished:
                await turn.wait()
            return {"child": turn.finished[child]}
        case "fail", []:
            await turn.say("1", "about to fail ")
            raise ValueError("as asked")
        case "retry", []:
            await turn.say("1", f"attempt {turn.given['attempt']} ")
            if turn.given["attempt"] == 1:
                raise ApplicationError("not yet", type="RetryTurn")
            return {"attempt": turn.given["attempt"]}
    raise ValueError(f"the script has no {turn.given['text']!r}")


if __name__ == "__main__":
    asyncio.run(main("conformance", answer))
