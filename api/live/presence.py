"""Who is connected to a session now, across all API processes. Not stored: each process tells its part."""

import asyncio
import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable

from api.live.delivery import Frame
from waystation.models.events import Actor
from waystation.models.live import Here, LiveMessage, WhoIsHere
from waystation.models.requests import PresentPerson

PRESENCE_INTERVAL_SECONDS = 10.0
PRESENCE_EXPIRY_SECONDS = 25.0
PRESENCE_PAUSE_SECONDS = 0.1
"""Changes in who is connected are told at most this often: everyone is told of everyone."""

_PROCESS = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"

Person = tuple[str, str]
"""An actor's id and role."""


def _person(actor: Actor) -> Person:
    return actor.id, str(actor.role)


class Presence:
    """The people at one session. ``publish`` tells other processes, ``show`` those who watch here."""

    def __init__(self, publish: Callable[[LiveMessage], None], show: Callable[[Frame], None]) -> None:
        self._publish, self._show = publish, show
        self._here: dict[str, Actor] = {}
        self._mine: Counter[Person] = Counter()
        self._elsewhere: dict[str, tuple[float, tuple[PresentPerson, ...]]] = {}
        self._telling: asyncio.TimerHandle | None = None

    def arrive(self, connection_id: str, actor: Actor) -> None:
        """Counts one more connection of somebody."""
        self._here[connection_id] = actor
        self._mine[_person(actor)] += 1
        self._tell_soon()

    def depart(self, connection_id: str) -> None:
        """Counts one connection fewer."""
        if actor := self._here.pop(connection_id, None):
            person = _person(actor)
            assert self._mine[person] > 0, "nobody leaves who hasn't come"
            self._mine[person] -= 1
            if not self._mine[person]:
                del self._mine[person]
            self._tell_soon()

    def stop(self) -> None:
        """Tells nothing more."""
        if self._telling:
            self._telling.cancel()

    def _tell_soon(self) -> None:
        # Everyone is told of everyone, so people who come or go together are told of in one message.
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(PRESENCE_PAUSE_SECONDS, self.tell)

    def people(self) -> tuple[PresentPerson, ...]:
        """Returns each person once, with the number of connections."""
        now = time.monotonic()
        counted = Counter[Person]()
        names: dict[Person, str | None] = {}
        recent = [told for at, told in self._elsewhere.values() if now - at < PRESENCE_EXPIRY_SECONDS]
        for people in (self._told(), *recent):
            for one in people:
                counted[one.id, one.role] += one.connections
                names.setdefault((one.id, one.role), one.name)
        return tuple(
            PresentPerson(id=person[0], role=person[1], name=names[person], connections=connections)
            for person, connections in sorted(counted.items(), key=lambda entry: (entry[0][1], entry[0][0]))
        )

    def _told(self) -> tuple[PresentPerson, ...]:
        """What this process tells of its own connections."""
        names = {_person(actor): actor.name for actor in reversed(self._here.values())}
        return tuple(
            PresentPerson(id=person[0], role=person[1], name=names.get(person), connections=connections)
            for person, connections in self._mine.items()
        )

    def ask(self) -> None:
        """Asks the other processes who is connected to them."""
        self._publish(WhoIsHere(_PROCESS))

    def tell(self) -> None:
        """Tells who is connected to this process."""
        self.stop()
        self._telling = None
        self._publish(Here(_PROCESS, self._told()))

    def hear(self, message: Here | WhoIsHere) -> None:
        """Takes in what a process has told, this one too."""
        if isinstance(message, WhoIsHere):
            if message.process != _PROCESS and self._here:
                self.tell()
            return
        before = self._elsewhere.get(message.process, (0.0, ()))[1]
        if message.process != _PROCESS:
            self._elsewhere[message.process] = (time.monotonic(), message.people)
        if message.process == _PROCESS or before != message.people:
            self._show(self.frame())

    def frame(self) -> Frame:
        """Returns who is here, for those who watch."""
        people = [person.model_dump(exclude_none=True) for person in self.people()]
        return Frame(None, json.dumps({"type": "presence", "data": {"people": people}}))

    @property
    def anyone_here(self) -> bool:
        """Whether anyone is connected to this process."""
        return bool(self._here)

    @property
    def settled(self) -> bool:
        """Whether there is somebody, and everyone has been told of it."""
        return self.anyone_here and self._telling is None
