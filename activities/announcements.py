"""Tells sessions what happens to payments, and the API processes that a session has news.

The latter is only a hint: an API process that misses it finds the news with its next poll.
"""

from collections.abc import Awaitable, Callable

import httpx
from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.contract import AnnouncementCalls, PurchaseNote, Told
from activities.heartbeats import heartbeating
from waystation.models.live import ALL_SESSIONS, Stirred, Tick, encode
from waystation.models.sessions import Note
from waystation.settings import Settings
from waystation.temporal.calls import tell
from waystation.temporal.messages import ANNOUNCE, SESSION_NOTE

Announce = Callable[[str], Awaitable[None]]
CHANNEL_PREFIX = "waystation:session:"
HTTP_TIMEOUT_SECONDS = 1.0


class Announcements:
    """The ``announce`` activity, over Redis if there is one, else over HTTP to the only API process."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce

    @activity.defn(name=ANNOUNCE.name)
    async def announce(self, session_id: str) -> None:
        """Hints that the session has news. Failures are logged and forgotten."""
        try:
            await self._announce(session_id)
        except Exception as error:
            activity.logger.info("Could not announce news in %s: %s", session_id, type(error).__name__)


class PurchaseAnnouncements(AnnouncementCalls):
    """Tells a session what happens to a purchase. Best effort: the purchase itself keeps the truth.

    With ``news``, whoever watches the session is told immediately, and not by the next poll.
    """

    def __init__(self, client: Client, news: Announcements | None = None) -> None:
        self._client, self._news = client, news

    @activity.defn
    @heartbeating
    async def announce_purchase(self, call: PurchaseNote) -> Told:
        """Signals ``note`` to the session's workflow."""
        try:
            note = Note.model_validate(call.note.model_dump())
            await tell(self._client.get_workflow_handle(call.session_id), SESSION_NOTE, note)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return "closed" if "already completed" in str(error) else "unknown"
            raise
        if self._news:
            await self._news.announce(call.session_id)
        return "told"


def over_http(settings: Settings, client: httpx.AsyncClient) -> Announce:
    """Returns a function that announces to the API at ``settings.url``."""
    key = settings.api_key.get_secret_value() if settings.api_key else ""

    async def announce(session_id: str) -> None:
        response = await client.post(
            f"{settings.url}/sessions/{session_id}/news",
            headers={"Authorization": f"Bearer {key}"},
            timeout=HTTP_TIMEOUT_SECONDS,
        )
        response.raise_for_status()

    return announce


def over_redis(url: str) -> tuple[Announce, Callable[[], Awaitable[None]]]:
    """Returns a function that announces on the live bus, and one that closes its connection."""
    from redis.asyncio import Redis

    redis = Redis.from_url(
        url, socket_timeout=HTTP_TIMEOUT_SECONDS, socket_connect_timeout=HTTP_TIMEOUT_SECONDS
    )

    async def announce(session_id: str) -> None:
        both = redis.pipeline(transaction=False)  # one round trip: a turn waits for it
        both.publish(CHANNEL_PREFIX + session_id, encode(Tick()))
        both.publish(CHANNEL_PREFIX + ALL_SESSIONS, encode(Stirred(session_id)))
        await both.execute()

    return announce, redis.aclose
