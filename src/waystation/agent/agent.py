"""An agent: a name, and the function that runs its turns."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from pydantic import JsonValue, TypeAdapter, ValidationError

from waystation.agent.runner import serve
from waystation.agent.suggestions import NoSuggestions, SuggestionRequest
from waystation.agent.turn import Turn
from waystation.errors import StartError
from waystation.models.events import Identifier
from waystation.models.ingest import MAX_STARTER_CHARACTERS, MAX_STARTERS, Starters

SuggestionFunction = Callable[[SuggestionRequest], Awaitable[str]]
TurnFunction = Callable[[Turn], Awaitable[JsonValue | None]]
_NAME: TypeAdapter[str] = TypeAdapter(Identifier)
_STARTERS: TypeAdapter[tuple[str, ...]] = TypeAdapter(Starters)


class Agent:
    """An agent: its name, and the function that runs its turns.

    >>> agent = Agent("echo")
    >>> @agent.turn
    ... async def answer(turn: Turn) -> None:
    ...     await turn.write(f"You said: {turn.text}")
    """

    def __init__(self, name: str, *, starters: Sequence[str] = ()) -> None:
        """Names the agent; sessions are started with this name.

        ``starters`` are what people may begin with, at most 6 texts of 200 characters: pages offer them where
        nothing was said yet.

        Raises:
            StartError: No session could name it so, or no page could offer that.
        """
        try:
            self.name = _NAME.validate_python(name)
        except ValidationError:
            raise StartError(
                f"{name!r} can't name an agent: a name is 1 to 128 letters, digits and '._:@/|+-', "
                "and begins with a letter or digit."
            ) from None
        try:
            self.starters = _STARTERS.validate_python(tuple(starters))
        except ValidationError:
            raise StartError(
                f"The starters of the agent {name!r} must be at most {MAX_STARTERS} texts of 1 to "
                f"{MAX_STARTER_CHARACTERS} characters."
            ) from None
        self._function: TurnFunction | None = None
        self._suggests: SuggestionFunction | None = None

    def turn(self, function: TurnFunction) -> TurnFunction:
        """Decorates the coroutine function that runs a turn; what it returns is the turn's result."""
        self._function = function
        return function

    def suggestion(self, function: SuggestionFunction) -> SuggestionFunction:
        """Decorates the coroutine function that drafts a reply for an operator who has taken over.

        It returns the text, writes nothing into the session, and should change nothing elsewhere.

        >>> agent = Agent("echo")
        >>> @agent.suggestion
        ... async def suggest(asked: SuggestionRequest) -> str:
        ...     return "Your refund is on its way."
        """
        self._suggests = function
        return function

    async def suggest(self, asked: SuggestionRequest) -> str:
        """Returns a draft.

        Raises:
            NoSuggestions: The agent suggests no replies.
        """
        if self._suggests is None:
            raise NoSuggestions(f"The agent '{self.name}' suggests no replies.")
        return await self._suggests(asked)

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
