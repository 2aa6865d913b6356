"""What senders ask of the agent ``asker``, and what it says of each step: known to agent and oracle. Pure.

A script is a list of steps, as in ``scripts``; each has its number, by which its questions, calls and texts
are told apart.
"""

import json
import random
from typing import Final

from pydantic import JsonValue

from tests.torture.scripts import Step, words

NOBODY: Final = "nobody"
"""The answer of a question that has expired."""
TOOLS: Final = ("order", "delete", "pay")
RULES: Final = (None, None, "allow", "deny", "ask", "ask_once")
"""What a session's rule says of one of the tools; of most there is none."""
STEPS: Final = (
    ("say", 14), ("ask", 26), ("approve", 8), ("guarded", 10), ("survey", 7), ("both", 6), ("step", 22),
    ("helper", 6), ("unanswerable", 5), ("slow", 4),
)  # fmt: skip
ENDS: Final = (("nothing", 60), ("return", 12), ("retry", 12), ("raise", 4), ("exit", 2))


def interview(chance: random.Random, *, depth: int = 0) -> str:
    """Returns a turn's script."""
    kinds = [step for step in STEPS if depth == 0 or step[0] != "helper"]
    chosen = chance.choices(
        [kind for kind, _ in kinds], [weight for _, weight in kinds], k=chance.randint(1, 5)
    )
    ((end, _),) = chance.choices(ENDS, [weight for _, weight in ENDS])
    steps = [_step(chance, kind, number, depth) for number, kind in enumerate(chosen, 1)]
    return json.dumps([*steps, ["end", end]])


def _step(chance: random.Random, kind: str, number: int, depth: int) -> Step:
    match kind:
        case "say":
            texts = [words(chance, 20) for _ in range(chance.randint(1, 6))]
            return [kind, number, texts, chance.choice([0, 20, 60])]
        case "ask":
            how = chance.choice(["text", "number", "choice", "form"])
            return [kind, number, how, chance.random() < 0.5, chance.choice([None, None, None, 2, 6])]
        case "approve":
            return [kind, number, chance.choice(TOOLS), chance.random() < 0.5]
        case "guarded":
            return [kind, number, chance.choice(TOOLS)]
        case "step":
            return [kind, number, chance.choice([0, 20, 300, 1_500]), chance.random() < 0.4]
        case "helper":
            return [kind, number, interview(chance, depth=depth + 1)]
        case "unanswerable":
            return [kind, number, chance.choice(["expires", "gives up"])]
        case "slow":
            return [kind, chance.choice([50, 300])]
        case _:
            return [kind, number]


def rules(chance: random.Random) -> list[dict[str, JsonValue]]:
    """Returns the rules of a session."""
    drawn = [(tool, chance.choice(RULES)) for tool in TOOLS]
    return [{"tool": tool, "policy": policy} for tool, policy in drawn if policy]


# What it says


def says_answer(number: int, value: JsonValue) -> str:
    return f"[{number}: {json.dumps(value, sort_keys=True)}]"


def says_decision(number: int, arguments: JsonValue, reason: str | None = None) -> str:
    if arguments is None:
        return f"[{number} rejected: {reason}]"
    return f"[{number} approved: {json.dumps(arguments, sort_keys=True)}]"


def says_step(number: int, value: JsonValue) -> str:
    return f"[{number} step {value}]"


def says_helper(number: int) -> str:
    return f"[{number} helper]"


def says_given_up(number: int) -> str:
    return f"[{number} {NOBODY}]"


def survey_name(number: int) -> str:
    return f"survey-{number}"


def step_title(number: int) -> str:
    return f"Step {number}"
