"""What senders ask of agents: a message's text is a list of steps, as JSON, which the agents carry out. Pure.

So everything an agent does comes from the stream of the sender who asked for it.
"""

import json
import random
from typing import Any, Final

Step = list[Any]

LETTERS: Final = (
    "abcdefghijklmnopqrstuvwxyz äöü ñ 漢字 \u202e\u200d \U0001f9d9\U0001f469 e\u0301 "
    '<b> & \n \r \x0b \u2028 " \\ '
)
STEPS: Final = (
    ("write", 30), ("message", 8), ("tool", 12), ("broken_tool", 3), ("emit", 6), ("flush", 5),
    ("parallel", 5), ("steers", 6), ("spawn", 5), ("slow", 6), ("timeout", 3), ("late", 2),
)  # fmt: skip
ENDS: Final = (
    ("nothing", 50), ("return", 12), ("raise", 4), ("exit", 2), ("interrupt", 2), ("retry", 4),
    ("odd_result", 3), ("hang", 2), ("block", 2),
)  # fmt: skip
"""How a turn ends, and how often."""


def script(chance: random.Random, *, depth: int = 0) -> str:
    """Returns a turn's script."""
    kinds = [step for step in STEPS if depth == 0 or step[0] != "spawn"]
    chosen = chance.choices(
        [kind for kind, _ in kinds], [weight for _, weight in kinds], k=chance.randint(1, 7)
    )
    steps = [_step(chance, kind, depth) for kind in chosen]
    ((end, _),) = chance.choices(ENDS, [weight for _, weight in ENDS])
    return json.dumps([*steps, ["end", end]])


def words(chance: random.Random, most: int = 40) -> str:
    """Returns some text of any characters."""
    return "".join(chance.choice(LETTERS) for _ in range(chance.randint(1, most)))


def _step(chance: random.Random, kind: str, depth: int) -> Step:
    match kind:
        case "write":
            return [
                kind,
                [words(chance) for _ in range(chance.randint(1, 12))],
                chance.choice([0, 5, 30, 80]),
            ]
        case "message":
            return [kind, chance.choice(["reasoning", "note"]), [words(chance) for _ in range(3)]]
        case "tool":
            return [kind, f"tool-{chance.randint(1, 5)}", words(chance), chance.choice([0, 20, 200])]
        case "emit":
            return [kind, "progress", {"percent": chance.randint(0, 100)}]
        case "parallel":
            return [kind, [[words(chance) for _ in range(3)] for _ in range(3)]]
        case "steers" | "slow":
            return [kind, chance.choice([50, 200, 1_000])]
        case "spawn":
            return [kind, chance.choice(["wild", "raw"]), script(chance, depth=depth + 1)]
        case _:
            return [kind]


def steps_of(text: str) -> list[Step]:
    """Returns the steps of a message; what is no script is answered with its own words."""
    try:
        steps = json.loads(text)
    except ValueError:
        steps = None
    if isinstance(steps, list) and all(isinstance(step, list) and step for step in steps):
        return steps
    return [["write", [f"You said: {text[:200]}"], 0], ["end", "nothing"]]
