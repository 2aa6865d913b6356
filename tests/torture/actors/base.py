"""What actors share: a name, random numbers of their own, requests that are noted, and patience."""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import httpx

from tests.torture.plan import Actor
from tests.torture.proxy import PROXY_HEADER
from tests.torture.world import World
from waystation.client.paths import path

ANSWER_SECONDS: Final = 20.0
"""How long an answer is waited for, beside what the request itself asks to wait."""
PATIENCE_SECONDS: Final = 60.0
"""How long the same is asked again until somebody says yes or no."""
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.2, 2.0
LATER: Final = frozenset({408, 429, 500, 503})
"""Refusals that say nothing for good."""


@dataclass(frozen=True)
class Answer:
    """What came back. ``status`` is missing if nothing did; ``proxied``: the API never heard of it."""

    status: int | None
    body: Any = None
    proxied: bool = False

    @property
    def definite(self) -> bool:
        return self.status is not None and not self.proxied and self.status not in LATER

    @property
    def ok(self) -> bool:
        return self.definite and self.status is not None and self.status < 300


class Acting:
    """Somebody who acts until their time is up."""

    stays: ClassVar[bool] = False
    """Whether the actor goes on after its time, until the session is over."""

    def __init__(self, actor: Actor, world: World, http: httpx.AsyncClient, began: float) -> None:
        self.name, self.actor, self.world, self.http = actor.name, actor, world, http
        self.chance = actor.stream(world.plan.seed)
        self.ends_at = began + actor.begins_seconds + actor.lasts_seconds
        self.calm = asyncio.Event()
        """Set when the last fault is over."""
        self._token: str | None = None
        self._tokens = 0

    @property
    def session(self) -> str:
        assert self.actor.session is not None, f"{self.name} is in a session"
        return self.actor.session

    async def run(self) -> None:
        """Acts, until its time is up."""
        raise NotImplementedError

    # Time

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.ends_at

    async def rest(self, shortest: float, longest: float) -> None:
        """Waits for a while, at most until the actor's time is up."""
        seconds = self.chance.uniform(shortest, longest)
        await asyncio.sleep(max(0.0, min(seconds, self.ends_at - time.monotonic())))

    # Noting and asking

    def note(self, operation: str, **what: Any) -> None:
        if self.actor.session is not None:
            what = {"session": self.actor.session, **what}
        self.world.record.note(self.name, operation, **what)

    def url(self) -> str:
        return self.chance.choice(self.world.urls)

    def of_session(self, *segments: str) -> str:
        return path("sessions", self.session, *segments)

    async def ask(
        self,
        operation: str,
        method: str,
        where: str,
        body: Any = None,
        *,
        key: str,
        id: str | None = None,  # noqa: A002
        seconds: float = ANSWER_SECONDS,
        content: bytes | None = None,
        **headers: str,
    ) -> Answer:
        """Asks once and notes the answer. ``id`` is what is the same when the same is asked again.

        ``content`` is sent as it is, where it may be no JSON.
        """
        sent = json.dumps(body).encode() if content is None and body is not None else content
        began, url = time.monotonic(), self.url()
        answer, error, told = Answer(None), None, {}
        try:
            response = await self.http.request(
                method,
                url + where,
                content=sent,
                headers={
                    "Authorization": f"Bearer {key}",
                    **({} if sent is None else {"Content-Type": "application/json"}),
                    **headers,
                },
                timeout=seconds,
            )
        except httpx.HTTPError as failure:
            error = type(failure).__name__
        else:
            answer = Answer(response.status_code, read_json(response), PROXY_HEADER in response.headers)
            told = {name: response.headers.get(name) for name in ("content-type", "retry-after")}
        self.note(
            operation,
            began=round(began, 3),
            id=id,
            asked=body,
            status=answer.status,
            proxied=answer.proxied,
            error=error,
            told=told if answer.status and answer.status >= 400 else None,
            answer=answer.body if len(str(answer.body)) < 2_000 else None,
        )
        return answer

    async def insist(
        self, operation: str, method: str, where: str, body: Any = None, **options: Any
    ) -> Answer:
        """Asks the same again until there is a definite answer, or patience is at its end."""
        deadline, pause = time.monotonic() + PATIENCE_SECONDS, MIN_PAUSE_SECONDS
        while True:
            answer = await self.ask(operation, method, where, body, **options)
            if answer.definite or time.monotonic() > deadline:
                return answer
            await asyncio.sleep(pause * self.chance.uniform(1, 1.5))
            pause = min(pause * 2, MAX_PAUSE_SECONDS)

    async def token(self, role: str = "client", *, name: str | None = None) -> str:
        """Returns a session token of this actor, made when it is first needed."""
        if self._token is None:
            body = {"role": role, "sessions": [self.session], "subject": self.name, "ttl_seconds": 3_600}
            answer = await self.insist(
                "token", "POST", "/tokens", {**body, "name": name or self.name}, key=self.world.key("service")
            )
            self._token = answer.body["token"] if answer.ok else "none"
        return self._token

    async def arrive(self) -> bool:
        """Waits until the session is there; returns whether it is."""
        while self.goes_on or self.stays:
            answer = await self.ask("arrive", "GET", self.of_session(), key=self.world.key("service"))
            if answer.ok:
                return True
            if self.calm.is_set() and answer.status == 404:
                return False
            await asyncio.sleep(0.3)
        return False


def read_json(response: httpx.Response) -> Any:
    """Returns what the body says, or ``None`` if it is no JSON."""
    try:
        return response.json()
    except ValueError:
        return None
