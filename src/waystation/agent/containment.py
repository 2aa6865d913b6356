"""What a turn's code may raise must end that turn, and nothing else of its process.

asyncio hands ``SystemExit`` and ``KeyboardInterrupt`` of any task to the event loop, which stops: one turn's
``sys.exit()`` would end every turn of the process. So tasks that a turn starts are created by ``new_task``,
which turns both into an ordinary exception.
"""

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context, ContextVar
from types import TracebackType
from typing import Any, TypeVar

from waystation.errors import WaystationError

T = TypeVar("T")

within_a_turn: ContextVar[bool] = ContextVar("within_a_turn", default=False)
"""Set for a turn's code; the tasks that it starts inherit it."""


class TurnExited(WaystationError):
    """A turn's code raised what ends a process: ``sys.exit()``, ``KeyboardInterrupt`` or the like."""


def exited(error: BaseException) -> TurnExited:
    """Returns the ordinary exception that stands for one that would have ended the process."""
    return TurnExited(f"the turn's code raised {error!r}; end a turn by returning or with an Exception")


def new_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, T] | Generator[Any, None, T],
    *,
    name: str | None = None,
    context: Context | None = None,
) -> asyncio.Task[T]:
    """A task factory for ``loop.set_task_factory``."""
    if within_a_turn.get() and isinstance(coroutine, Coroutine):
        coroutine = _Contained(coroutine)
    return asyncio.Task(coroutine, loop=loop, name=name, context=context)


class _Contained(Coroutine[Any, Any, T]):
    """A coroutine that raises ``TurnExited`` where the one within would end the process."""

    def __init__(self, within: Coroutine[Any, Any, T]) -> None:
        self._within = within

    def send(self, value: Any) -> Any:
        try:
            return self._within.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise exited(error) from error

    def throw(
        self,
        kind: type[BaseException] | BaseException,
        value: BaseException | object = None,
        trace: TracebackType | None = None,
    ) -> Any:
        try:
            return self._within.throw(kind if value is None else value)  # type: ignore[call-overload]
        except (SystemExit, KeyboardInterrupt) as error:
            raise exited(error) from error

    def close(self) -> None:
        self._within.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._within.__await__()

    def __getattr__(self, name: str) -> Any:
        # ``cr_frame`` and the like, which debuggers and ``Task.__repr__`` look at.
        return getattr(self._within, name)
