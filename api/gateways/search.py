"""Finds sessions by what their search attributes say, those in which something happened last first.

Databases don't sort by search attributes. So the API asks how many lie within a stretch of time, until it has
one with about a page in it, reads that and sorts it. Sessions without attributes come last, the newest first.
"""

import binascii
import json
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from temporalio.client import WorkflowExecution, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from api.errors import Invalid, SearchUnavailable
from api.gateways.calls import Calls, memo_of
from api.gateways.index import SearchIndex, is_one_of, quoted
from waystation.models.listing import ListedStatus, SessionRow, in_odd_milliseconds
from waystation.models.requests import ListedSession
from waystation.temporal.names import LISTED, SESSION_WORKFLOW, TURNS_TAKEN_BY, WAITS_FOR
from waystation.temporal.search_attributes import AGENT, LAST_ACTIVITY, STATUS, TERMS, how_to_register
from waystation.temporal.search_attributes import WAITS_FOR as WAITS_FOR_WHOM
from waystation.temporal.terms import ASSIGNED, OTHERS, Terms, role_term, words_of

MAX_SEARCHED_WORDS: Final = 8
READ_AT_ONCE: Final = 400
"""Sessions that are read to be sorted; of more, first is counted which are needed."""
MAX_READ: Final = 5_000
"""Of one stretch of time that can't be divided: sessions of the same millisecond."""
MAX_COUNTS: Final = 24
FIRST_STRETCH: Final = timedelta(minutes=1)
WIDER: Final = 16
SHORTEST_STRETCH: Final = timedelta(milliseconds=1)
SEARCH_TIMEOUT: Final = timedelta(seconds=10)
_LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Filters:
    """What is wanted; everything that is given must fit."""

    statuses: tuple[ListedStatus, ...] = ()
    agent: str | None = None
    person: str | None = None
    """The id of somebody who has written, taken part, or is asked."""
    assignees: tuple[str, ...] = ()
    """The ids of operators of whom one looks after it."""
    unassigned: bool = False
    """Whether nobody does."""
    asked_roles: tuple[str, ...] = ()
    asked_ids: tuple[str, ...] = ()
    """What waits for an answer of somebody with one of the roles, or of one of the people."""
    text: str = ""
    """Words of titles and of people's names, or beginnings of them, of ids and of agents' names."""
    only_open: bool = False
    session_ids: tuple[str, ...] | None = None
    """Only these; ``None``: of all."""

    @property
    def needs_attributes(self) -> bool:
        """Whether it can't be answered by what Temporal knows of every workflow."""
        return bool(
            set(self.statuses) - {ListedStatus.CLOSED}
            or self.agent or self.person or self.assignees or self.unassigned
            or self.asked_roles or self.asked_ids or self.text.split()
        )  # fmt: skip


class Place(NamedTuple):
    """Where a page ends: at a session of the list's order, or among those without attributes."""

    last_activity: datetime | None = None
    session_id: str = ""
    token: bytes | None = None
    """Of Temporal, among those without attributes; empty where they begin."""


@dataclass(frozen=True)
class Found:
    """A page of a list."""

    sessions: list[ListedSession]
    next_cursor: str | None
    count: int
    """How many there are on all pages."""


@dataclass(frozen=True)
class _Page:
    executions: list[WorkflowExecution] = field(default_factory=list)
    next_place: Place | None = None


class SessionSearch:
    """Lists sessions, with or without filters."""

    def __init__(self, calls: Calls, index: SearchIndex | None) -> None:
        self._calls, self._index = calls, index

    async def find(self, filters: Filters, limit: int, cursor: str | None) -> Found:
        """Returns a page.

        Raises:
            SearchUnavailable: The namespace has no search attributes, and what is wanted needs them.
            Invalid: The cursor isn't one of this list.
        """
        place = read_place(cursor)

        async def call() -> Found:
            terms = self._index.terms if self._index and await self._index.is_there() else ()
            if not terms and filters.needs_attributes:
                raise self._unavailable()
            try:
                return await self._find(filters, terms, limit, place)
            except RPCError as error:
                if error.status in (RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.UNIMPLEMENTED):
                    if place.token:
                        raise wrong_cursor() from error
                    logger.warning("Temporal can't search for sessions: %s", error)
                    raise self._unavailable(str(error)) from error
                raise

        return await self._calls.guarded("", call, within=SEARCH_TIMEOUT, looks=True)

    async def ids(self, filters: Filters, limit: int, *further: str) -> list[str] | None:
        """Returns the ids of sessions that fit, and ``further`` clauses, in no particular order.

        ``None``: the namespace has no search attributes, so nobody can know.
        """

        async def call() -> list[str] | None:
            if not (self._index and await self._index.is_there()):
                return None
            query = " AND ".join((*clauses(filters, self._index.terms), *further))
            found = self._calls.client.list_workflows(
                query, page_size=limit, limit=limit, rpc_timeout=self._calls.timeout
            )
            return [one.id async for one in found]

        return await self._calls.guarded("", call, within=SEARCH_TIMEOUT, looks=True)

    def _unavailable(self, why: str | None = None) -> SearchUnavailable:
        how, _, cloud = how_to_register(self._calls.client.namespace).partition("\n")
        reason = why or "the Temporal namespace has no search attributes for them"
        return SearchUnavailable(
            f"Sessions can't be filtered or searched: {reason}. Register those: {how} ({cloud})"
        )

    async def _find(self, filters: Filters, terms: tuple[Terms, ...], limit: int, place: Place) -> Found:
        wanted = " AND ".join(clauses(filters, terms))
        count = (await self._calls.client.count_workflows(wanted, rpc_timeout=self._calls.timeout)).count
        page = _Page()
        if terms and place.token is None:
            page = await self._marked(f"{wanted} AND {LAST_ACTIVITY.name} IS NOT NULL", limit, place)
        if page.next_place is None:
            unmarked = f"{wanted} AND {LAST_ACTIVITY.name} IS NULL" if terms else wanted
            page = await self._and_unmarked(page.executions, unmarked, limit, place.token or b"")
        following = write_place(page.next_place) if page.next_place else None
        return Found([await listed(one) for one in page.executions], following, count)

    async def _and_unmarked(
        self, before: list[WorkflowExecution], query: str, limit: int, token: bytes
    ) -> _Page:
        """Fills a page with others, in Temporal's own order."""
        client, room = self._calls.client, limit - len(before)
        if room == 0:
            others = (await client.count_workflows(query, rpc_timeout=self._calls.timeout)).count
            return _Page(before, Place(token=b"") if others else None)
        found = client.list_workflows(
            query, page_size=room, next_page_token=token or None, rpc_timeout=self._calls.timeout
        )
        await found.fetch_next_page()
        following = Place(token=found.next_page_token) if found.next_page_token else None
        return _Page([*before, *(found.current_page or ())], following)

    async def _marked(self, query: str, limit: int, place: Place) -> _Page:
        """Returns a page in the order of the last activity."""
        if place.last_activity is not None:
            query += f" AND {LAST_ACTIVITY.name} <= '{place.last_activity.isoformat()}'"
        since = await self._since(query, limit, place.last_activity)
        lower = f" AND {active_since(since)}" if since else ""
        executions = [
            one
            async for one in self._calls.client.list_workflows(
                query + lower, page_size=READ_AT_ONCE, limit=MAX_READ, rpc_timeout=self._calls.timeout
            )
        ]
        executions.sort(key=_place_of, reverse=True)
        if place.last_activity is not None:
            executions = [one for one in executions if _place_of(one)[:2] < place[:2]]
        if len(executions) > limit:
            return _Page(executions[:limit], _place_of(executions[limit - 1]))
        # Some may have moved to the top while they were counted: then the page is a short one.
        return _Page(executions, Place(since) if since else None)

    async def _since(self, query: str, limit: int, before: datetime | None) -> datetime | None:
        """Returns a time since which there are more than a page and not many more; ``None``: read all."""
        until, counts = before or datetime.now(UTC), 0

        async def within(stretch: timedelta) -> int:
            nonlocal counts
            counts += 1
            found = await self._calls.client.count_workflows(
                f"{query} AND {active_since(until - stretch)}", rpc_timeout=self._calls.timeout
            )
            return found.count

        longest = until - _LONG_AGO
        if await within(longest) <= READ_AT_ONCE:
            return None
        if before is not None:
            limit += await within(timedelta(0))  # of the same moment, and shown already perhaps
        too_short, enough = timedelta(0), FIRST_STRETCH
        while (found := await within(enough)) <= limit and enough < longest:
            too_short, enough = enough, min(enough * WIDER, longest)
        while found > READ_AT_ONCE and enough - too_short > SHORTEST_STRETCH and counts < MAX_COUNTS:
            middle = too_short + (enough - too_short) / 2
            if (between := await within(middle)) > limit:
                enough, found = middle, between
            else:
                too_short = middle
        return until - enough


def active_since(time: datetime) -> str:
    """Returns the clause that finds sessions in which something has happened since then."""
    return f"{LAST_ACTIVITY.name} >= '{in_odd_milliseconds(time).isoformat()}'"


def clauses(filters: Filters, terms: tuple[Terms, ...]) -> Iterator[str]:
    """Yields the parts of the query."""
    yield f"WorkflowType='{SESSION_WORKFLOW}'"
    # A session that has continued as new is one session, not one per run.
    yield "ExecutionStatus!='ContinuedAsNew'"
    if filters.only_open:
        yield "ExecutionStatus='Running'"
    if filters.session_ids is not None:
        yield f"WorkflowId IN ({', '.join(map(quoted, filters.session_ids))})"
    if filters.statuses:
        yield f"({' OR '.join(_is_so(status) for status in filters.statuses)})"
    if filters.agent:
        yield is_one_of(AGENT, [filters.agent])
    if filters.person:
        yield is_one_of(TERMS, [one.person(filters.person) for one in terms])
    if filters.assignees:
        yield is_one_of(TERMS, [one.assignee(operator) for one in terms for operator in filters.assignees])
    if filters.unassigned:
        # Stores differ in whether what has no attribute differs from a value of it.
        yield f"({TERMS.name} IS NULL OR {TERMS.name} NOT IN ({quoted(ASSIGNED)}))"
    if filters.asked_roles or filters.asked_ids:
        asked = [one.person(person) for one in terms for person in filters.asked_ids]
        yield f"ExecutionStatus='Running' AND {STATUS.name}='{ListedStatus.WAITING}'"
        yield is_one_of(WAITS_FOR_WHOM, [*map(role_term, filters.asked_roles), *asked, OTHERS])
    for word in filters.text.split()[:MAX_SEARCHED_WORDS]:
        yield _has(word, terms)


def _is_so(status: ListedStatus) -> str:
    if status is ListedStatus.CLOSED:
        return "ExecutionStatus!='Running'"
    # What Temporal has ended otherwise couldn't say so.
    return f"(ExecutionStatus='Running' AND {STATUS.name}='{status}')"


def _has(word: str, terms: tuple[Terms, ...]) -> str:
    ways = [f"{key} STARTS_WITH {quoted(word)}" for key in ("WorkflowId", AGENT.name)]
    if parts := words_of(word):
        digests = (is_one_of(TERMS, [one.word(part) for one in terms]) for part in parts)
        ways.append(f"({' AND '.join(digests)})")
    return f"({' OR '.join(ways)})"


# A session in a list


async def listed(execution: WorkflowExecution) -> ListedSession:
    """Returns what Temporal's lists know of a session."""
    memo = await memo_of(execution)
    said = execution.typed_search_attributes
    is_open = execution.status == WorkflowExecutionStatus.RUNNING
    status = said.get(STATUS) if is_open else str(ListedStatus.CLOSED)
    row = _row(memo.get(LISTED))
    return ListedSession(
        session_id=execution.id,
        agent=_text(memo.get("agent")),
        title=_text(memo.get("title")),
        open=is_open,
        started=execution.start_time,
        waits_for=_text(memo.get(WAITS_FOR)) if is_open else None,
        status=ListedStatus(status) if status in set(ListedStatus) else None,
        awaited=row.awaited if status == ListedStatus.WAITING else None,
        people=row.people,
        people_count=row.people_count,
        taken_over_by=row.taken_over_by if status == ListedStatus.PAUSED else None,
        assigned_to=row.assigned_to,
        last_line=row.last_line,
        last_activity=said.get(LAST_ACTIVITY),
        turns_taken_by=_text(memo.get(TURNS_TAKEN_BY)),
    )


def _row(said: object) -> SessionRow:
    try:
        return SessionRow.model_validate(said or {})
    except ValueError:  # of a later release
        return SessionRow()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


# Cursors


def _place_of(execution: WorkflowExecution) -> Place:
    return Place(execution.typed_search_attributes.get(LAST_ACTIVITY) or _LONG_AGO, execution.id)


def write_place(place: Place) -> str:
    """Returns a place as a cursor."""
    said = (
        {"before": place.last_activity.isoformat(), "id": place.session_id}
        if place.last_activity
        else {"token": urlsafe_b64encode(place.token or b"").decode()}
    )
    return urlsafe_b64encode(json.dumps(said).encode()).decode()


def read_place(cursor: str | None) -> Place:
    """Returns the place that a cursor stands for.

    Raises:
        Invalid: It stands for none.
    """
    if not cursor:
        return Place()
    try:
        said = json.loads(urlsafe_b64decode(cursor))
        if "token" in said:
            return Place(token=urlsafe_b64decode(said["token"]))
        before = datetime.fromisoformat(said["before"])
        if before.tzinfo is None:
            raise wrong_cursor()
        return Place(before, str(said["id"]))
    except (ValueError, TypeError, KeyError, binascii.Error, RecursionError) as error:
        raise wrong_cursor() from error


def wrong_cursor() -> Invalid:
    """Returns the refusal of a cursor that isn't ours."""
    return Invalid("The cursor did not come from this API; leave it out to start over.", code="wrong-cursor")
