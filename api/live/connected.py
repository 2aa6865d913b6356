"""The agents that connected processes say they run, and what those offer people to begin with.

API processes tell each other what is offered. It is lost with the connections, and told again with new ones.
"""

import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from pydantic import TypeAdapter, ValidationError

from api.auth import Principal
from api.live.bus import LiveBus
from waystation.models.events import Identifier
from waystation.models.ingest import MAX_AGENTS_PER_CONNECTION, MAX_STARTERS
from waystation.models.live import ALL_SESSIONS, LiveMessage, Offers, Tick, WhatIsOffered

MAX_OTHER_PROCESSES = 100

_NAME: TypeAdapter[str] = TypeAdapter(Identifier)
Offer = Mapping[str, tuple[str, ...]]
"""Starters, by the names of agents."""


class ConnectedAgents:
    """Counts the connections that name an agent; what they say beyond their rights doesn't count."""

    def __init__(self, bus: LiveBus) -> None:
        self._connections: Counter[str] = Counter()
        self._bus, self._process = bus, f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._here: dict[object, Offer] = {}
        """By connection, the latest last."""
        self._elsewhere: dict[str, Offer] = {}
        bus.subscribe(ALL_SESSIONS, self._hear)
        bus.publish(ALL_SESSIONS, WhatIsOffered(self._process))

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the agents that at least one connection names."""
        return tuple(self._connections)

    def starters(self, agent: str) -> tuple[str, ...]:
        """Returns what the agent offers to begin with; where its processes differ, what was said last."""
        offers = [*self._elsewhere.values(), *self._here.values()]
        return next((offer[agent] for offer in reversed(offers) if agent in offer), ())[:MAX_STARTERS]

    @contextmanager
    def counted(self, principal: Principal, given: Iterable[str]) -> Iterator[object]:
        """Counts what a connection names while the block runs; yields what stands for the connection."""
        names = {name for name in list(given)[:MAX_AGENTS_PER_CONNECTION] if _is_name(name)}
        names = {name for name in names if principal.speaks_for(name)}
        self._connections.update(names)
        connection = object()
        try:
            yield connection
        finally:
            self._connections.subtract(names)
            for name in names:
                if not self._connections[name]:
                    del self._connections[name]
            if self._here.pop(connection, None):
                self._tell()

    def offer(self, connection: object, principal: Principal, starters: Offer) -> None:
        """Notes what the agents of a connection offer."""
        self._here.pop(connection, None)
        self._here[connection] = {
            name: texts for name, texts in starters.items() if principal.speaks_for(name)
        }
        self._tell()

    def _tell(self) -> None:
        starters = {name: texts for offer in self._here.values() for name, texts in offer.items()}
        self._bus.publish(ALL_SESSIONS, Offers(self._process, starters))

    def _hear(self, message: LiveMessage) -> None:
        match message:
            case Offers(process=process, starters=starters) if process != self._process:
                self._elsewhere.pop(process, None)
                if starters:
                    self._elsewhere[process] = starters
                while len(self._elsewhere) > MAX_OTHER_PROCESSES:
                    del self._elsewhere[next(iter(self._elsewhere))]
            case WhatIsOffered(process=process) if process != self._process:
                self._tell()
            case Tick():  # the bus was lost, and is back
                self._tell()
                self._bus.publish(ALL_SESSIONS, WhatIsOffered(self._process))


def _is_name(text: str) -> bool:
    try:
        _NAME.validate_python(text)
    except ValidationError:
        return False
    return True
