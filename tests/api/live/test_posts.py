"""A POST of events ends within its time, whatever it waits for."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from api.auth import Principal
from api.errors import CarriedOut, Unavailable
from api.live.bus import MemoryBus
from api.live.channels import Channels
from api.live.feeds import Feeds
from api.routes import ingest
from api.routes.ingest import PostedEvents, post_events
from tests.api.live.test_ingest import SlowSession
from waystation.models.events import Item, Publish
from waystation.settings import Settings


class DeafSession(SlowSession):
    """A session to which Temporal brings nothing."""

    async def publish(self, session_id: str, publish: Publish) -> None:
        raise Unavailable("Temporal can't be reached.", CarriedOut.UNKNOWN)


@pytest.mark.parametrize("what", ["the session", "room", "the answer"])
async def test_a_post_ends_within_its_time(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "POST_TIMEOUT_SECONDS", 0.1)
    if what == "room":
        monkeypatch.setattr("api.live.batcher.MAX_BUFFERED_BYTES", 1)
    session, bus = DeafSession(), MemoryBus()
    if what != "the session":
        session.may_answer.set()
    gateway: Any = session
    feeds = Feeds(gateway, bus, Settings())
    parts: Any = SimpleNamespace(gateway=gateway, channels=Channels(feeds, bus, gateway, Settings()))
    caller = Principal(subject="a", role="agent", agents=frozenset({"*"}))
    body = PostedEvents(writer="w", items=(Item(n=1, type="data.x"),))

    async def post() -> None:
        with pytest.raises(Unavailable, match="may have been carried out"):
            await asyncio.wait_for(post_events("s", body, caller, parts), 5)

    await post()
    if what != "the session":
        async with parts.channels.use("s"):  # which another agent writes to
            for _ in range(3):
                await post()
    assert not feeds._users
    await feeds.stop()
