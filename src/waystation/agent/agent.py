"""An agent: a name, and the function that runs its turns."""

import asyncio
from collections.abc import Awaitable, Callable

from pydantic import JsonValue

from waystation.agent.runner import serve
from waystation.agent.turn import Turn

TurnFunction = Callable[[Turn], Awaitable[JsonValue | None]]


class Agent:
    """An agent: its name, and the function that runs its turns.

    >>> agent = Agent("echo")
    >>> @agent.turn
    ... async def answer(turn: Turn) -> None:
    ...     await turn.write(f"You said: {turn.text}")
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._function: TurnFunction | None = None

    def turn(self, function: TurnFunction) -> TurnFunction:
        """Decorates the coroutine function that runs a turn; what it returns is the turn's result."""
        self._function = function
        return function

    async def __call__(self, turn: Turn) -> JsonValue | None:
        if self._function is None:
            raise RuntimeError(
                f"The agent '{self.name}' has no turn function; decorate one with @agent.turn."
            )
        return await self._function(turn)

    def run(self) -> None:
        """Runs this agent until the process is told to stop.

        >>> agent.run()  # doctest: +SKIP
        """
        asyncio.run(serve(self))
