"""Says to the workflows of people with push subscriptions what waits for them, while no page is open too.

What waits for whom is what ``GET /attention`` says. Each API process says it, once for each change; the
workflow of a person knows what their browsers were told. An API process that begins says how things stand, so
nothing is lost while there is none: it is told late.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from typing import Final

from api.auth import Principal
from api.errors import Conflict, Problem
from api.gateways.push import PushGateway
from api.gateways.visible import NotFound
from api.live.attention import AttentionBoard
from waystation.models.attention import AttentionItem
from waystation.models.push import MAX_PUSH_PEOPLE, PushPerson, PushTarget, PushView
from waystation.settings import Settings

LISTED_WITHIN_SECONDS: Final = 60.0
"""Temporal's lists know somebody new within this time."""
TOLD_AT_ONCE: Final = 16
ROUND_PAUSE_SECONDS: Final = 1.0
"""Nobody's workflow is told more often, however much changes."""

logger = logging.getLogger(__name__)

Items = tuple[AttentionItem, ...]


class PushDesk:
    """Knows who is to be told. Without a public key it does nothing."""

    def __init__(self, board: AttentionBoard, people: PushGateway, settings: Settings) -> None:
        self._board, self._gateway, self._settings = board, people, settings
        self._keys = {(key.id, key.role) for key in settings.api_keys}
        self._people: dict[PushPerson, float] = {}
        """With when each was last listed, or has come."""
        self._said: dict[PushPerson, Items] = {}
        """What the workflow of each was told last by this process."""
        self._woken = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def public_key(self) -> str | None:
        """With which browsers subscribe; ``None``: nothing is pushed here."""
        return self._settings.vapid_public_key

    def start(self) -> None:
        """Begins, where there is a key."""
        if self.public_key is not None:
            self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends it."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    # People

    async def view(self, caller: Principal) -> PushView:
        """Returns the caller's browsers and what they were told."""
        try:
            view = await self._gateway.view(person_of(caller))
        except NotFound:
            view = PushView(public_key=None)
        return self._with_key(view)

    async def subscribe(self, caller: Principal, target: PushTarget) -> PushView:
        """Tells a browser of the caller's too.

        Raises:
            Problem: Nothing is pushed here, or there are too many.
        """
        person = person_of(caller)
        if self.public_key is None:
            raise Conflict(
                "Nothing is pushed here: this deployment has no WAYSTATION_VAPID_PUBLIC_KEY.", code="push-off"
            )
        if person not in self._people and len(self._people) >= MAX_PUSH_PEOPLE:
            raise Conflict(
                f"{MAX_PUSH_PEOPLE} people have subscriptions already.", code="too-many-subscriptions"
            )
        view = await self._gateway.subscribe(person, target)
        self._people[person] = time.monotonic()
        self._said.pop(person, None)
        self._woken.set()
        return self._with_key(view)

    async def unsubscribe(self, caller: Principal, subscription_id: str) -> PushView:
        """Tells a browser of the caller's nothing more."""
        try:
            view = await self._gateway.unsubscribe(person_of(caller), subscription_id)
        except NotFound:
            view = PushView(public_key=None)
        return self._with_key(view)

    def _with_key(self, view: PushView) -> PushView:
        return view.model_copy(update={"public_key": self.public_key})

    # Telling

    async def _run(self) -> None:
        listed = -self._settings.idle_poll_seconds
        while True:
            self._woken.clear()
            try:
                if time.monotonic() - listed >= self._settings.idle_poll_seconds:
                    listed = time.monotonic()
                    await self._list()
                await self._watch()
                await self._tell()
            except Problem as problem:
                logger.info("Could not see whom to push what (%s); trying again", problem.code)
            except Exception:
                logger.exception("Seeing whom to push what failed; trying again")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.idle_poll_seconds):
                    await self._woken.wait()
            await asyncio.sleep(ROUND_PAUSE_SECONDS)

    async def _list(self) -> None:
        now = time.monotonic()
        listed = await self._gateway.people()
        self._people |= dict.fromkeys(listed, now)
        for person, seen in list(self._people.items()):
            if seen < now - LISTED_WITHIN_SECONDS:
                self._forget(person)

    def _forget(self, person: PushPerson) -> None:
        self._people.pop(person, None)
        self._said.pop(person, None)

    async def _watch(self) -> None:
        if self._people:
            operators = frozenset(one.subject for one in self._people if one.role == "operator")
            await self._board.watch(operators, self._woken.set)
        else:
            self._board.unwatch()

    async def _tell(self) -> None:
        changed = [
            (person, items)
            for person in self._people
            if (items := self._waiting_for(person)) != self._said.get(person, ())
        ]
        slots = asyncio.Semaphore(TOLD_AT_ONCE)

        async def one(person: PushPerson, items: Items) -> None:
            async with slots:
                await self._tell_one(person, items)

        await asyncio.gather(*(one(person, items) for person, items in changed))

    async def _tell_one(self, person: PushPerson, items: Items) -> None:
        try:
            await self._gateway.tell(person, items)
        except NotFound:  # the last browser is gone
            self._forget(person)
        except Problem as problem:
            logger.info("Could not say what waits for %s (%s); trying again", person.subject, problem.code)
        else:
            self._said[person] = items

    def _waiting_for(self, person: PushPerson) -> Items:
        caller = principal_of(person, self._keys)
        return () if caller is None else self._board.told(caller).items


def person_of(caller: Principal) -> PushPerson:
    """Returns whom a credential stands for, with its rights."""
    return PushPerson(
        subject=caller.subject,
        role=caller.role,
        sessions=None if caller.sessions is None else tuple(sorted(caller.sessions)),
        by_key=caller.expires_at is None,
    )


def principal_of(person: PushPerson, keys: Iterable[tuple[str, str]]) -> Principal | None:
    """Returns the rights of a person; ``None`` once their API key is out of the settings."""
    if person.by_key and (person.subject, person.role) not in keys:
        return None
    sessions = None if person.sessions is None else frozenset(person.sessions)
    return Principal.model_validate({"subject": person.subject, "role": person.role, "sessions": sessions})
