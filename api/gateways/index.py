"""Whether the namespace has Waystation's search attributes, and what is written into them at a start."""

import logging
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError

from waystation.models.events import Role
from waystation.models.listing import ListedStatus, SessionRow, in_odd_milliseconds
from waystation.models.sessions import StartSession
from waystation.temporal.search_attributes import (
    AGENT,
    LAST_ACTIVITY,
    SESSION,
    STATUS,
    TERMS,
    WAITS_FOR,
    are_registered,
)
from waystation.temporal.terms import Terms, role_term

MAX_KEYWORD_CHARACTERS: Final = 200
"""A database keeps at most 255 of a keyword."""
ASKED_WITHIN: Final = timedelta(seconds=1)
ASKED_AGAIN_AFTER_SECONDS: Final = 30.0
"""While they are missing: whoever registers them needs to restart nothing."""

logger = logging.getLogger(__name__)


class SearchIndex:
    """Asks Temporal once whether they are there, and again while they aren't."""

    def __init__(self, client: Client, keys: Sequence[str]) -> None:
        """``keys`` are those of the digests: new sessions take the first, and all are looked for."""
        self._client, self.key = client, keys[0]
        self.terms = tuple(map(Terms, keys))
        self._is_there = False
        self._ask_at_seconds = 0.0

    async def is_there(self) -> bool:
        """Returns whether the namespace has them.

        Raises:
            RPCError: Temporal doesn't answer.
        """
        if not self._is_there and time.monotonic() >= self._ask_at_seconds:
            self._is_there = await are_registered(self._client, within=ASKED_WITHIN)
            self._ask_at_seconds = time.monotonic() + ASKED_AGAIN_AFTER_SECONDS
        return self._is_there

    async def may_be_set(self) -> bool:
        """Returns whether what is started now may set them; not where the store of Temporal's lists is away.

        To start something it isn't needed.
        """
        try:
            return await self.is_there()
        except (RPCError, RuntimeError) as error:
            logger.warning(
                "Started without search attributes, for Temporal doesn't say if it has any: %s", error
            )
            return False

    def of_session(self, start: StartSession) -> TypedSearchAttributes:
        """Returns those of a session that begins."""
        people = [(one.id, one.name) for one in row_of(start).people]
        return TypedSearchAttributes(
            [
                SearchAttributePair(STATUS, str(ListedStatus.IDLE)),
                SearchAttributePair(AGENT, start.agent),
                SearchAttributePair(TERMS, self.terms[0].of_session(start.title, people)),
                SearchAttributePair(LAST_ACTIVITY, in_odd_milliseconds(datetime.now(UTC))),
            ]
        )

    @staticmethod
    def of_money(agent: str, session_id: str | None) -> TypedSearchAttributes:
        """Returns those of a purchase or a paid request that begins."""
        fits = session_id is not None and len(session_id) <= MAX_KEYWORD_CHARACTERS
        session = [SearchAttributePair(SESSION, session_id)] if session_id and fits else []
        return TypedSearchAttributes([SearchAttributePair(AGENT, agent), *session])


def is_one_of(key: SearchAttributeKey[Any], values: Iterable[str]) -> str:
    """Returns the clause of a query that finds what has one of the values.

    >>> is_one_of(AGENT, ["o'hara"])
    'WaystationAgent IN ("o\'hara")'
    """
    return f"{key.name} IN ({', '.join(map(quoted, values))})"


def waits_for_approvers() -> str:
    """Returns the clause that finds purchases and paid requests whose approval is waited for."""
    return is_one_of(WAITS_FOR, [role_term("approver")])


def quoted(text: str) -> str:
    """Returns a text as Temporal's queries have it.

    No database takes U+0000, and Temporal says then that it can't be reached. What stands in its place is in
    none of the names that are searched.
    """
    escaped = text.replace("\0", "\ufffd").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def row_of(start: StartSession) -> SessionRow:
    """Returns what a list shows of a session that begins."""
    by = start.started_by
    people = (by,) if by is not None and by.role in (Role.USER, Role.OPERATOR) else ()
    return SessionRow(people=people, people_count=len(people))
