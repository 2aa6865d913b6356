"""Tells a session that a workflow has started whether its namespace has search attributes."""

from temporalio import activity
from temporalio.client import Client

from waystation.temporal.messages import SEARCH_KEY
from waystation.temporal.search_attributes import are_registered


class SearchKeys:
    """The ``search_key`` activity."""

    def __init__(self, client: Client, key: str) -> None:
        self._client, self._key = client, key

    @activity.defn(name=SEARCH_KEY.name)
    async def search_key(self, session_id: str) -> str:
        """Returns the key of a session's digests; an empty one where it must set no attributes."""
        return self._key if await are_registered(self._client) else ""
