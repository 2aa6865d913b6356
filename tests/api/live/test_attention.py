"""The board of what waits: asked once for everybody, told to each only what concerns them."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from api.auth import Principal
from api.errors import CarriedOut, Problem, TooMany, Unavailable
from api.gateways.attention import AttentionGateway, Candidates, Entry, Found, Place
from api.live.attention import AttentionBoard, AttentionStream, attention
from api.live.bus import MemoryBus
from tests.support import eventually
from waystation.models.attention import MAX_ITEMS, Attention, AttentionItem, AttentionKind
from waystation.models.live import ALL_SESSIONS, Stirred, Tick
from waystation.models.money import Money
from waystation.models.paid_http import Offer, Rail
from waystation.models.payments import PaidRequestView
from waystation.models.questions import Audience
from waystation.settings import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OPERATOR = Principal(subject="olga", role="operator")
APPROVER = Principal(subject="grace", role="approver")


def entry(kind: AttentionKind, session_id: str = "s", minutes: int = 0, **more: object) -> Entry:
    item = AttentionItem(
        kind=kind,
        id=f"{kind}-{session_id}",
        session_id=session_id,
        agent="bot",
        line=str(kind),
        since=NOW + timedelta(minutes=minutes),
    )
    asks = kind in (AttentionKind.QUESTION, AttentionKind.TOOL)
    return Entry(item, **({"audience": Audience(roles=("user", "operator"))} if asks else {}) | more)  # type: ignore[arg-type]


class Looks(AttentionGateway):
    """What Temporal would say."""

    def __init__(self, **waiting: list[Entry]) -> None:
        self.waiting = waiting
        self.asked: list[str] = []
        self.lists = 0
        self.away = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def candidates(self, operators: Collection[str]) -> Candidates:
        self.lists += 1
        self.operators = operators
        self._check()
        return Candidates(tuple(Place("session", one) for one in self.waiting))

    async def look(self, place: Place) -> Found:
        self.asked.append(place.id)
        found = Found(tuple(self.waiting.get(place.id, ())))
        await self.may_answer.wait()
        self._check()
        return found

    def _check(self) -> None:
        if self.away:
            raise Unavailable("Temporal did not answer in time.", CarriedOut.NOTHING_TO)


class World:
    """A board, its bus, and what it asks."""

    def __init__(self, looks: Looks, **settings: float) -> None:
        self.looks, self.bus = looks, MemoryBus()
        settings = {"idle_poll_seconds": 60, **settings}
        self.board = AttentionBoard(looks, self.bus, Settings.model_validate(settings))

    def stir(self, session_id: str, *, settles: bool = False) -> None:
        self.bus.publish(ALL_SESSIONS, Stirred(session_id, settles))


@asynccontextmanager
async def world(looks: Looks, **settings: float) -> AsyncIterator[World]:
    made = World(looks, **settings)
    try:
        yield made
    finally:
        await made.board.stop()


async def first(stream: AttentionStream) -> str:
    """Returns what a stream brings next."""
    async for frames in stream.frames():
        return frames[-1].sse.decode()
    raise AssertionError("the stream has ended")


def said(block: str) -> Attention:
    return Attention.model_validate_json(block.split("data: ")[1])


async def test_a_hundred_pages_ask_no_more_than_one() -> None:
    """100 pages of 50 people, 20 sessions: 20 looks at first, and one for each piece of news."""
    looks = Looks(**{f"s{number}": [entry(AttentionKind.QUESTION, f"s{number}")] for number in range(20)})
    async with world(looks) as made, AsyncExitStack() as pages:
        callers = [Principal(subject=f"p{number}", role="operator") for number in range(50)]
        streams = await asyncio.gather(
            *(pages.enter_async_context(made.board.stream(one, None)) for one in callers + callers)
        )
        for stream in streams:
            assert said(await first(stream)).count == 20
        assert len(looks.asked) == 20
        assert looks.lists <= 2, "the first, and one for all operators who came meanwhile"
        assert looks.operators == {one.subject for one in callers}
        looks.lists = 0
        for number in range(10):
            looks.waiting[f"s{number}"] = []
            made.stir(f"s{number}", settles=True)
        counts = [said(await first(stream)).count for stream in streams]
        while min(counts) > 10:  # told in one piece, or in several
            counts = [said(await first(stream)).count for stream in streams]
        assert (looks.lists, len(looks.asked)) == (0, 30)


async def test_a_page_that_comes_back_is_sent_only_what_has_changed() -> None:
    looks = Looks(s=[entry(AttentionKind.QUESTION)])
    async with world(looks) as made:
        async with made.board.stream(OPERATOR, None) as stream:
            block = await first(stream)
        identity = block.split("\n")[0].removeprefix("id: ")
        async with made.board.stream(OPERATOR, identity) as stream:
            coming = asyncio.create_task(first(stream))
            looks.waiting["t"] = [entry(AttentionKind.FAILURE, "t", minutes=1)]
            made.stir("t")
            told = said(await asyncio.wait_for(coming, 10))
            assert [item.kind for item in told.items] == ["failure", "question"], "newest first"
            assert told.counts == {"failure": 1, "question": 1}
        assert looks.asked == ["s", "t"], "what is known is not asked for again"


async def test_only_news_of_what_is_known_is_looked_at_if_it_can_only_settle_something() -> None:
    looks = Looks(s=[entry(AttentionKind.QUESTION)])
    async with world(looks) as made, made.board.stream(OPERATOR, None) as stream:
        await first(stream)
        made.stir("other", settles=True)
        looks.waiting["s"] = []
        made.stir("s", settles=True)
        assert said(await first(stream)).count == 0
        assert looks.asked == ["s", "s"]


async def test_news_during_a_look_is_looked_at_again() -> None:
    looks = Looks(s=[])
    async with world(looks) as made, made.board.stream(OPERATOR, None) as stream:
        await first(stream)
        looks.may_answer.clear()
        made.stir("s")
        await eventually(lambda: len(looks.asked) == 2)
        looks.waiting["s"] = [entry(AttentionKind.TOOL)]
        made.stir("s")
        made.stir("s")
        looks.may_answer.set()
        assert said(await first(stream)).count == 1
        assert len(looks.asked) == 3


async def test_what_expires_is_gone_though_nobody_tells_of_it() -> None:
    """Also where the workflow is late by a moment."""
    deadline = datetime.now(UTC) + timedelta(seconds=0.2)
    expires = entry(AttentionKind.QUESTION)
    expires = replace(expires, item=expires.item.model_copy(update={"deadline": deadline}))
    looks = Looks(s=[expires], t=[entry(AttentionKind.QUESTION, "t", minutes=1)])
    async with world(looks) as made, made.board.stream(OPERATOR, None) as stream:
        assert said(await first(stream)).count == 2
        await eventually(lambda: looks.asked.count("s") >= 2, what="it was looked at after the deadline")
        looks.waiting["s"] = []
        assert said(await asyncio.wait_for(first(stream), 10)).count == 1
        assert (looks.asked.count("t"), looks.lists) == (1, 1)
        assert not made.board._expiring


async def test_what_the_bus_has_lost_is_found_by_the_next_list() -> None:
    looks = Looks()
    async with world(looks, idle_poll_seconds=0.05) as made, made.board.stream(OPERATOR, None) as stream:
        await first(stream)
        looks.waiting["s"] = [entry(AttentionKind.QUESTION)]
        assert said(await first(stream)).count == 1
        del looks.waiting["s"]
        assert said(await first(stream)).count == 0


async def test_after_an_outage_of_the_bus_all_is_looked_at() -> None:
    looks = Looks(s=[entry(AttentionKind.QUESTION)])
    async with world(looks) as made, made.board.stream(OPERATOR, None) as stream:
        await first(stream)
        looks.waiting["s"] = []
        made.bus.publish(ALL_SESSIONS, Tick())
        assert said(await first(stream)).count == 0


async def test_a_token_for_some_sessions_asks_those_alone() -> None:
    looks = Looks(a=[entry(AttentionKind.QUESTION, "a")], b=[entry(AttentionKind.QUESTION, "b")])
    customer = Principal(subject="ada", role="client", sessions=frozenset({"a", "none"}))
    async with world(looks) as made, made.board.stream(customer, None) as stream:
        assert [item.session_id for item in said(await first(stream)).items] == ["a"]
        assert (looks.lists, sorted(looks.asked)) == (0, ["a", "none"])
        made.stir("b")
        looks.waiting["none"] = [entry(AttentionKind.QUESTION, "none")]
        made.stir("none")
        assert said(await first(stream)).count == 2
        assert "b" not in looks.asked


def test_the_newest_are_told_and_all_are_counted() -> None:
    entries = [entry(AttentionKind.QUESTION, f"s{number}", number) for number in range(MAX_ITEMS + 1)]
    told = attention(entries, more=False)
    assert (told.count, told.counts) == (MAX_ITEMS + 1, {AttentionKind.QUESTION: MAX_ITEMS + 1})
    assert [item.session_id for item in told.items] == [f"s{number}" for number in range(MAX_ITEMS, 0, -1)]


async def test_who_can_not_be_told_is_refused_and_who_was_told_keeps_that() -> None:
    looks = Looks(s=[entry(AttentionKind.QUESTION)])
    customer = Principal(subject="ada", role="client", sessions=frozenset({"s"}))
    looks.away = True
    async with world(looks) as made:
        for caller in (OPERATOR, customer):
            with pytest.raises(Problem, match="in time"):
                await made.board.now(caller)
        looks.away = False
        assert (await made.board.now(OPERATOR)).count == 1
        looks.away = True
        made.stir("s")
        await eventually(lambda: looks.asked[-1] == "s")
        known = await made.board.now(OPERATOR)
        assert (known.count, known.more) == (1, True), "it says that not all could be looked at"


async def test_what_can_not_be_read_is_tried_again_less_and_less_often() -> None:
    looks = Looks(s=[entry(AttentionKind.QUESTION)])
    customer = Principal(subject="ada", role="client", sessions=frozenset({"s"}))
    async with world(looks, busy_poll_seconds=0.01) as made, made.board.stream(customer, None) as stream:
        await first(stream)
        looks.away, looks.asked, begun = True, [], time.monotonic()
        made.stir("s")
        await eventually(lambda: len(looks.asked) >= 6)
        assert time.monotonic() - begun >= 0.01 + 0.02 + 0.04 + 0.08
        looks.away = False
        looks.waiting["s"] = []
        assert said(await first(stream)).count == 0


async def test_a_person_has_so_many_pages_at_most() -> None:
    async with (
        world(Looks(), max_subscribers_per_session=1) as made,
        made.board.stream(OPERATOR, None),
        made.board.stream(APPROVER, None),
    ):
        with pytest.raises(TooMany):
            async with made.board.stream(OPERATOR, None):
                pass


class OnePayment:
    """A money gateway with one paid request."""

    def __init__(self, view: PaidRequestView) -> None:
        self.view = view

    async def payment(self, payment_id: str) -> PaidRequestView:
        return self.view


async def test_a_paid_request_is_told_with_its_price_and_until_when_while_it_waits() -> None:
    offer = Offer(
        rail=Rail.MPP_STRIPE, challenge_id="c", realm="weather", price=Money(amount=25, currency="usd"),
        payee="profile_1", expires_at=None, wire="-",
    )  # fmt: skip
    view = PaidRequestView(
        payment_id="payment-1", status="awaiting_approval", final=False, url="https://api.example",
        method="GET", offer=offer, approvers=("grace",), approval_deadline=NOW + timedelta(hours=1),
        updated_at=NOW, agent="bot", session_id="s",
    )  # fmt: skip
    gateway = AttentionGateway(object(), OnePayment(view))  # type: ignore[arg-type]
    [told] = (await gateway.look(Place("payment", "payment-1"))).entries
    assert told.waits_for(APPROVER)
    assert told.item.model_dump(exclude={"kind", "id"}) == {
        "session_id": "s",
        "agent": "bot",
        "line": "A paid request to weather",
        "amount": {"amount": 25, "currency": "usd"},
        "since": NOW,
        "deadline": NOW + timedelta(hours=1),
    }
    paid = view.model_copy(update={"status": "completed"})
    assert (await AttentionGateway(object(), OnePayment(paid)).look(Place("payment", "p"))).entries == ()  # type: ignore[arg-type]


def may(role: str, subject: str = "x", sessions: set[str] | None = None) -> Principal:
    return Principal.model_validate({"subject": subject, "role": role, "sessions": sessions})


ASKED = entry(AttentionKind.QUESTION)
OF_OPERATORS = entry(AttentionKind.TOOL, audience=Audience(roles=("operator",)))
OF_ADA = entry(AttentionKind.QUESTION, audience=Audience(ids=("ada",)))
OF_ANYBODY = entry(AttentionKind.PURCHASE)
OF_GRACE = entry(AttentionKind.PAYMENT, approvers=("grace",))
OLGAS = entry(AttentionKind.HANDOVER, person="olga")
FAILED = entry(AttentionKind.FAILURE)


@pytest.mark.parametrize(
    ("caller", "told"),
    [
        (may("client", "ada", {"s"}), [ASKED, OF_ADA]),
        (may("client", "bob", {"s"}), [ASKED]),
        (may("client", "ada", {"other"}), []),
        (may("client", "bot", {"s"}), []),
        (may("operator"), [ASKED, OF_OPERATORS, FAILED]),
        (may("operator", "olga"), [ASKED, OF_OPERATORS, OLGAS, FAILED]),
        (may("operator", "olga", {"other"}), []),
        (may("client", "olga", {"s"}), [ASKED]),
        (may("approver", "grace"), [OF_ANYBODY, OF_GRACE]),
        (may("approver", "grace", {"other"}), []),
        (may("approver", "alan"), [OF_ANYBODY]),
        (may("approver", "bot"), []),
        (may("approver", "ada"), [OF_ADA, OF_ANYBODY]),
    ],
)
def test_each_is_told_what_they_may_see_and_decide(caller: Principal, told: list[Entry]) -> None:
    everything = [ASKED, OF_OPERATORS, OF_ADA, OF_ANYBODY, OF_GRACE, OLGAS, FAILED]
    assert [one for one in everything if one.waits_for(caller)] == told
