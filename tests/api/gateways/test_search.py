"""Finding sessions among many: filters, words, order, pages, count; what is said where it can't be done."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes

import api.gateways.search as search
from api.errors import Invalid, SearchUnavailable
from api.gateways.index import SearchIndex
from api.gateways.search import Filters, Place, read_place, write_place
from api.gateways.sessions import Gateway
from tests.support import EXAMPLES_FACTOR, eventually
from tests.world.temporal import running_temporal
from waystation.models.events import Actor, Role
from waystation.models.listing import Awaited, LastLine, ListedStatus, SessionRow, in_odd_milliseconds
from waystation.temporal import search_attributes as attributes
from waystation.temporal.names import LISTED, SESSION_WORKFLOW
from waystation.temporal.search_attributes import keys_of
from waystation.temporal.terms import Terms, role_term

NOW = in_odd_milliseconds(datetime.now(UTC))
NEW_KEY, OLD_KEY = "cd" * 32, *keys_of(())
NEW, OLD = Terms(NEW_KEY), Terms(OLD_KEY)
GRACE = Actor(id="grace", role=Role.USER, name="Grace Hopper")
ADA = Actor(id="ada", role=Role.USER, name="Ada")
AT_ONCE = 200
MANY = min(1_000 * EXAMPLES_FACTOR, 10_000)
"""Sessions of the largest list; ten thousand take minutes to start."""


class Shelf:
    """Sessions as lists know them: no worker runs them, for only Temporal's lists are asked."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.gateway = Gateway(client, 20.0, index=SearchIndex(client, [NEW_KEY, OLD_KEY]))

    async def put(
        self,
        session_id: str,
        *,
        agent: str = "demo",
        status: str = "idle",
        title: str | None = None,
        people: tuple[Actor, ...] = (),
        asks: tuple[str, ...] = (),
        ago: timedelta = timedelta(0),
        terms: Terms = NEW,
        marked: bool = True,
    ) -> None:
        pairs: list[SearchAttributePair[Any]] = [
            SearchAttributePair(attributes.STATUS, status),
            SearchAttributePair(attributes.AGENT, agent),
            SearchAttributePair(
                attributes.TERMS, terms.of_session(title, [(one.id, one.name) for one in people])
            ),
            SearchAttributePair(attributes.LAST_ACTIVITY, NOW - ago),
        ]
        if asks:
            pairs.append(SearchAttributePair(attributes.WAITS_FOR, list(asks)))
        row = SessionRow(
            people=people,
            people_count=len(people),
            awaited=Awaited(roles=("operator",), people=(GRACE,)),
            last_line=LastLine(text="Hello.", actor=ADA),
        )
        await self.client.start_workflow(
            SESSION_WORKFLOW,
            id=session_id,
            task_queue="nobody-works-here",
            memo={"agent": agent, "title": title, LISTED: row.model_dump(mode="json")},
            search_attributes=TypedSearchAttributes(pairs) if marked else None,
        )

    async def are_listed(self, number: int) -> None:
        async def all_are_there() -> bool:
            return (await self.client.count_workflows("")).count >= number

        await eventually(all_are_there, what=f"{number} sessions are listed")

    async def ids(self, limit: int = 100, **filters: Any) -> list[str]:
        found = await self.gateway.search.find(Filters(**filters), limit, None)
        assert found.count == len(found.sessions), filters
        return [one.session_id for one in found.sessions]


@pytest.fixture(scope="module")
async def shelf(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shelf]:
    async with running_temporal(tmp_path_factory.mktemp("search")) as server:
        shelf = Shelf(await Client.connect(server.address))
        minutes = [timedelta(minutes=number) for number in range(10)]
        await shelf.put("order-17", title="Refund for Zoë's mug", people=(ADA,), ago=minutes[5])
        await shelf.put(
            "waits", status="waiting", asks=(role_term("operator"), NEW.person("grace")), ago=minutes[3]
        )
        await shelf.put("approval", status="waiting", asks=(role_term("approver"),), ago=minutes[2])
        await shelf.put("crowd", status="waiting", asks=("others",), ago=minutes[9])
        await shelf.put("runs", agent="shopper", status="running", title="Refund", people=(GRACE,))
        await shelf.put("broke", status="failed", ago=minutes[1])
        await shelf.put("older", title="Refunded", people=(ADA,), terms=OLD, ago=minutes[4])
        await shelf.put("ended", status="running", ago=minutes[6])
        await shelf.client.get_workflow_handle("ended").terminate()
        await shelf.put("unmarked-1", marked=False)
        await shelf.put("unmarked-2", marked=False)
        await shelf.are_listed(10)

        async def has_ended() -> bool:
            return (await shelf.client.count_workflows("ExecutionStatus!='Running'")).count == 1

        await eventually(has_ended, what="one has ended")
        yield shelf


async def test_what_happened_last_comes_first_and_what_says_nothing_comes_last(shelf: Shelf) -> None:
    assert await shelf.ids() == [
        "runs", "broke", "approval", "waits", "older", "order-17", "ended", "crowd",
        "unmarked-2", "unmarked-1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"statuses": (ListedStatus.WAITING,)}, ["approval", "waits", "crowd"]),
        ({"statuses": (ListedStatus.RUNNING,)}, ["runs"]),
        ({"statuses": (ListedStatus.CLOSED,)}, ["ended"]),
        ({"statuses": (ListedStatus.FAILED, ListedStatus.RUNNING)}, ["runs", "broke"]),
        ({"agent": "shopper"}, ["runs"]),
        ({"agent": "shop"}, []),
        ({"person": "ada"}, ["older", "order-17"]),
        ({"person": "Ada"}, []),
        ({"asked_roles": ("operator",)}, ["waits", "crowd"]),
        ({"asked_ids": ("grace",)}, ["waits", "crowd"]),
        ({"asked_roles": ("approver",), "asked_ids": ("linus",)}, ["approval", "crowd"]),
        ({"text": "refund"}, ["runs", "older", "order-17"]),
        ({"text": "REF  zoe"}, ["order-17"]),
        ({"text": "hopper"}, ["runs"]),
        ({"text": "fund"}, []),
        ({"text": "order-1"}, ["order-17"]),
        ({"text": "shop refund"}, ["runs"]),
        ({"text": "un"}, ["unmarked-2", "unmarked-1"]),
        ({"text": "refund", "only_open": True, "person": "grace"}, ["runs"]),
        ({"text": "\"'\\ %"}, []),
        ({"text": "\0"}, []),
        ({"text": "order\0"}, []),
        ({"text": "refund\0zoe"}, ["order-17"]),
        ({"agent": "a\"b'c"}, []),
        ({"session_ids": ("older", "runs", "none")}, ["runs", "older"]),
        ({"session_ids": ("older",), "text": "zoe"}, []),
    ],
    ids=str,
)
async def test_filters(shelf: Shelf, filters: dict[str, Any], found: list[str]) -> None:
    assert await shelf.ids(**filters) == found


async def test_what_a_list_shows(shelf: Shelf) -> None:
    found = await shelf.gateway.search.find(Filters(), 100, None)
    by_id = {one.session_id: one for one in found.sessions}
    waits, runs, unmarked = by_id["waits"], by_id["runs"], by_id["unmarked-1"]
    assert waits.awaited is not None
    assert waits.awaited.people == (GRACE,)
    assert waits.last_line == LastLine(text="Hello.", actor=ADA)
    assert waits.last_activity == NOW - timedelta(minutes=3)
    assert runs.awaited is None, "of an earlier moment"
    assert runs.people == (GRACE,)
    assert (by_id["ended"].status, by_id["ended"].open) == ("closed", False)
    assert (unmarked.status, unmarked.last_activity, unmarked.open) == (None, None, True)


@pytest.mark.parametrize("limit", [1, 3, 8, 100])
async def test_pages_hold_everything_once(shelf: Shelf, limit: int) -> None:
    whole, paged, cursor = await shelf.ids(), [], None
    while True:
        found = await shelf.gateway.search.find(Filters(), limit, cursor)
        assert found.count == len(whole)
        paged += [one.session_id for one in found.sessions]
        if (cursor := found.next_cursor) is None:
            break
    assert paged == whole


@pytest.mark.parametrize("cursor", ["x", "e30=", "WzFd", "MQ==", "eyJiZWZvcmUiOiAiMjAyNi0wMS0wMSJ9", "{}"])
async def test_a_cursor_that_is_none(shelf: Shelf, cursor: str) -> None:
    with pytest.raises(Invalid) as refused:
        await shelf.gateway.search.find(Filters(), 10, cursor)
    assert refused.value.code == "wrong-cursor"


@given(st.datetimes(timezones=st.just(UTC)), st.text(max_size=100))
def test_a_place_is_read_as_it_was_written(time: datetime, session_id: str) -> None:
    assert read_place(write_place(Place(time, session_id))) == Place(time, session_id)


async def test_many_of_one_moment_and_some_far_apart(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "READ_AT_ONCE", 10)
    agos = [timedelta(days=400)] * 25 + [timedelta(seconds=n * n) for n in range(30)]
    await asyncio.gather(*(shelf.put(f"many-{n:02}", agent="many", ago=ago) for n, ago in enumerate(agos)))
    await shelf.are_listed(65)
    wanted = sorted(range(55), key=lambda n: (NOW - agos[n], f"many-{n:02}"), reverse=True)
    found, cursor = [], None
    while True:
        page = await shelf.gateway.search.find(Filters(agent="many"), 7, cursor)
        found += [one.session_id for one in page.sessions]
        if (cursor := page.next_cursor) is None:
            break
    assert found == [f"many-{n:02}" for n in wanted]


async def test_a_namespace_without_attributes_lists_and_says_why_it_can_not_search(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with running_temporal(tmp_path_factory.mktemp("without"), search_attributes=False) as server:
        shelf = Shelf(await Client.connect(server.address))
        await shelf.put("first", marked=False)
        await shelf.put("second", marked=False)
        await shelf.are_listed(2)
        assert await shelf.ids() == ["second", "first"]
        assert await shelf.ids(statuses=(ListedStatus.CLOSED,)) == []
        page = await shelf.gateway.search.find(Filters(), 1, None)
        following = await shelf.gateway.search.find(Filters(), 1, page.next_cursor)
        assert [one.session_id for one in following.sessions] == ["first"]
        for filters in (Filters(text="x"), Filters(statuses=(ListedStatus.IDLE,)), Filters(agent="demo")):
            with pytest.raises(SearchUnavailable) as refused:
                await shelf.gateway.search.find(filters, 10, None)
            assert "temporal operator search-attribute create --namespace default" in refused.value.detail
            assert refused.value.status == 501


@pytest.mark.slow
@pytest.mark.timeout(1_200)
async def test_many_sessions_stay_quick(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with running_temporal(tmp_path_factory.mktemp("large"), durable=True) as server:
        shelf = Shelf(await Client.connect(server.address))
        for start in range(0, MANY, AT_ONCE):
            await asyncio.gather(
                *(
                    shelf.put(
                        f"s-{n:05}",
                        agent=f"agent-{n % 7}",
                        status="waiting" if n % 500 == 0 else "idle",
                        asks=(role_term("operator"),) if n % 500 == 0 else (),
                        title=f"Order {n}",
                        people=(ADA,) if n % 3 else (GRACE,),
                        ago=timedelta(seconds=n * 30),
                    )
                    for n in range(start, min(start + AT_ONCE, MANY))
                )
            )
        await shelf.are_listed(MANY)
        slowest: dict[str, float] = {}
        for filters, count in (
            (Filters(), MANY),
            (Filters(asked_roles=("operator",)), sum(n % 500 == 0 for n in range(MANY))),
            (Filters(agent="agent-3"), sum(n % 7 == 3 for n in range(MANY))),
            (Filters(person="grace"), sum(n % 3 == 0 for n in range(MANY))),
            (Filters(text=f"order {MANY // 2 + 211}"), 1),
            (
                Filters(statuses=(ListedStatus.IDLE,), text="ada"),
                sum(n % 500 > 0 and n % 3 > 0 for n in range(MANY)),
            ),
        ):
            cursor = None
            for number in range(3):
                began = time.monotonic()
                page = await shelf.gateway.search.find(filters, 50, cursor)
                slowest[f"{filters} {number}"] = time.monotonic() - began
                assert page.count == count, filters
                assert page.sessions == sorted(
                    page.sessions, key=lambda one: (one.last_activity, one.session_id), reverse=True
                )
                if (cursor := page.next_cursor) is None:
                    break
        assert max(slowest.values()) < 2.0, slowest
