"""The agents that processes connected to this API say they run."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pydantic import TypeAdapter, ValidationError

from api.auth import Principal
from waystation.models.events import Identifier

MAX_AGENTS_PER_CONNECTION = 50

_NAME: TypeAdapter[str] = TypeAdapter(Identifier)


class ConnectedAgents:
    """Counts the connections that name an agent; what they name beyond their rights doesn't count."""

    def __init__(self) -> None:
        self._connections: Counter[str] = Counter()

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the agents that at least one connection names."""
        return tuple(self._connections)

    @contextmanager
    def counted(self, principal: Principal, given: Iterable[str]) -> Iterator[None]:
        """Counts what a connection names while the block runs."""
        names = {name for name in list(given)[:MAX_AGENTS_PER_CONNECTION] if _is_name(name)}
        names = {name for name in names if principal.speaks_for(name)}
        self._connections.update(names)
        try:
            yield
        finally:
            self._connections.subtract(names)
            for name in names:
                if not self._connections[name]:
                    del self._connections[name]


def _is_name(text: str) -> bool:
    try:
        _NAME.validate_python(text)
    except ValidationError:
        return False
    return True
