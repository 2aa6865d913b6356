"""Text to fill conversations with."""

import random

LETTERS = "etaoinshrdlucmfwypvbgkjqxz"


def words(count: int, seed: int = 7) -> list[str]:
    """Returns words of random letters, which compress no better than real text."""
    source = random.Random(seed)
    weights = range(len(LETTERS), 0, -1)
    return [
        "".join(source.choices(LETTERS, weights=weights, k=source.randint(1, 9))) + " " for _ in range(count)
    ]
