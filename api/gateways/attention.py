"""Looks for what waits for people: where anything may, and what it is.

Temporal's lists only say where to look, and may be a moment behind. What waits the workflow itself says.
"""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

from api.auth import Action, Principal, answers_as, decides_in_person
from api.errors import Problem
from api.gateways.lists import MAX_LISTED
from api.gateways.money import MoneyGateway
from api.gateways.search import Filters, active_since
from api.gateways.sessions import Gateway
from waystation.models.attention import AttentionItem, AttentionKind, Waiting
from waystation.models.listing import ListedStatus
from waystation.models.money import Money
from waystation.models.payments import PaidRequestView
from waystation.models.purchases import PurchaseView
from waystation.models.questions import Audience, QuestionKind
from waystation.temporal.messages import PAID_REQUEST
from waystation.temporal.names import (
    PURCHASE_WORKFLOW,
    SESSION_WORKFLOW,
    WAITS_FOR,
    WAITS_FOR_ANSWER,
    WAITS_FOR_APPROVAL,
)

MAX_WAITING_SESSIONS: Final = 200
MAX_FAILED_SESSIONS: Final = 50
MAX_ASSIGNED_SESSIONS: Final = 200
"""All operators' together who are looking."""
MAX_OPERATORS: Final = 100
FAILED_WITHIN: Final = timedelta(days=1)
"""A failure of longer ago is nobody's news."""
_AWAITING: Final = "awaiting_approval"


class Place(NamedTuple):
    """Where something may wait."""

    kind: Literal["session", "purchase", "payment"]
    id: str


@dataclass(frozen=True)
class Entry:
    """Something that waits, with whom it waits for."""

    item: AttentionItem
    audience: Audience | None = None
    """Who may answer, of a question and a tool."""
    approvers: tuple[str, ...] = ()
    """Who alone may approve, of a purchase and a paid request; empty: whoever has the role."""
    person: str | None = None
    """The operator to whom a session is handed over."""

    def waits_for(self, caller: Principal) -> bool:
        """Whether the caller may see it, and is somebody for whom it waits."""
        item, may = self.item, caller.may
        if caller.sessions is not None and item.session_id not in caller.sessions:
            return False
        match item.kind:
            case AttentionKind.QUESTION | AttentionKind.TOOL:
                assert self.audience is not None, "a question has an audience"
                return (
                    Action.ANSWER in may
                    and caller.subject != item.agent
                    and self.audience.has(caller.actor, answers_as(caller, caller.actor))
                )
            case AttentionKind.PURCHASE | AttentionKind.PAYMENT:
                decides = not self.approvers or caller.subject in self.approvers
                return Action.APPROVE in may and caller.subject != item.agent and decides
            case AttentionKind.HANDOVER:
                return Action.TAKE_OVER in may and caller.subject == self.person
            case AttentionKind.FAILURE:
                return Action.TAKE_OVER in may


def is_told(caller: Principal) -> bool:
    """Whether anything waits for such a caller in person: not for agents, and not for a service."""
    return caller.role != "agent" and decides_in_person(caller)


@dataclass(frozen=True)
class Found:
    """What waits in one place, and where else to look."""

    entries: tuple[Entry, ...] = ()
    further: tuple[Place, ...] = ()
    least: bool = False
    """Whether more waits there than is told one by one."""


@dataclass(frozen=True)
class Candidates:
    """Where to look."""

    places: tuple[Place, ...]
    more: bool = False
    """Whether there are too many to look everywhere."""


class AttentionGateway:
    """Asks Temporal's lists, and workflows."""

    def __init__(self, sessions: Gateway, money: MoneyGateway) -> None:
        self._sessions, self._money = sessions, money

    async def candidates(self, operators: Collection[str]) -> Candidates:
        """Returns where anything may wait for anybody, as far as Temporal's lists know.

        Of sessions that only somebody looks after, those of ``operators``.

        Raises:
            Problem: They can't be asked.
        """
        found = await asyncio.gather(self._waiting_sessions(operators), self._waiting_money())
        return Candidates(
            tuple(place for one in found for place in one.places), more=any(one.more for one in found)
        )

    async def _waiting_sessions(self, operators: Collection[str]) -> Candidates:
        recently = active_since(datetime.now(UTC) - FAILED_WITHIN)
        assignees = tuple(sorted(operators))[:MAX_OPERATORS]
        wanted: list[tuple[Filters, int, tuple[str, ...]]] = [
            (Filters(statuses=(ListedStatus.WAITING, ListedStatus.PAUSED)), MAX_WAITING_SESSIONS, ()),
            (Filters(statuses=(ListedStatus.FAILED,)), MAX_FAILED_SESSIONS, (recently,)),
        ]
        if assignees:
            wanted.append((Filters(assignees=assignees, only_open=True), MAX_ASSIGNED_SESSIONS, ()))
        search, ids, more = self._sessions.search, dict[str, None](), len(operators) > MAX_OPERATORS
        for filters, limit, further in wanted:
            found = await search.ids(filters, limit + 1, *further)
            if found is None:
                return await self._by_memo()
            ids |= dict.fromkeys(found[:limit])
            more = more or len(found) > limit
        return Candidates(tuple(Place("session", one) for one in ids), more)

    async def _by_memo(self) -> Candidates:
        """Where the namespace has no search attributes: failures and hand-overs aren't found then."""
        lists = self._sessions.lists
        found = [
            await lists.listed(SESSION_WORKFLOW, MAX_LISTED, {WAITS_FOR: what})
            for what in (WAITS_FOR_ANSWER, WAITS_FOR_APPROVAL)
        ]
        return Candidates(
            tuple(Place("session", one) for ids in found for one in ids),
            more=any(len(ids) == MAX_LISTED for ids in found),
        )

    async def _waiting_money(self) -> Candidates:
        lists, wanted = self._money.lists, {WAITS_FOR: WAITS_FOR_APPROVAL}
        purchases = await lists.listed(PURCHASE_WORKFLOW, MAX_LISTED, wanted)
        payments = await lists.listed(PAID_REQUEST.name, MAX_LISTED, wanted)
        places = [Place("purchase", one) for one in purchases] + [Place("payment", one) for one in payments]
        return Candidates(tuple(places), more=MAX_LISTED in (len(purchases), len(payments)))

    async def look(self, place: Place) -> Found:
        """Returns what waits there now; nothing where there is nothing.

        Raises:
            Problem: It can't be asked.
        """
        try:
            match place.kind:
                case "session":
                    return _in_session(await self._sessions.waiting(place.id))
                case "purchase":
                    return Found(tuple(_in_purchase(await self._money.purchase(place.id))))
                case "payment":
                    return Found(tuple(_in_payment(await self._money.payment(place.id))))
        except Problem as problem:
            if problem.status == 404:  # a token may name sessions that don't exist yet
                return Found()
            raise


def _in_session(said: Waiting) -> Found:
    name = f"“{said.title}”" if said.title else f"A session with {said.agent}"
    entries = [
        Entry(
            AttentionItem(
                kind=AttentionKind.TOOL if one.kind is QuestionKind.APPROVAL else AttentionKind.QUESTION,
                id=one.question_id,
                session_id=said.session_id,
                agent=one.agent,
                line=one.line,
                since=one.since,
                deadline=one.deadline,
            ),
            audience=one.audience,
        )
        for one in said.asked
    ]

    def of_session(kind: AttentionKind, line: str, since: datetime | None) -> AttentionItem:
        assert since is not None, "what is so has begun"
        return AttentionItem(
            kind=kind,
            id=said.session_id,
            session_id=said.session_id,
            agent=said.agent,
            line=line,
            since=since,
        )

    holder, assigned = said.taken_over_by, said.assigned_to
    if holder is not None:
        item = of_session(AttentionKind.HANDOVER, f"{name} is taken over by you", said.taken_over_at)
        entries.append(Entry(item, person=holder.id))
    if assigned is not None and (holder is None or holder.id != assigned.id):
        item = of_session(AttentionKind.HANDOVER, f"{name} is assigned to you", said.assigned_at)
        entries.append(Entry(item, person=assigned.id))
    if said.failed is not None and said.failed.since >= datetime.now(UTC) - FAILED_WITHIN:
        code = f" ({said.failed.code})" if said.failed.code else ""
        item = of_session(AttentionKind.FAILURE, f"{name} has failed{code}", said.failed.since)
        entries.append(Entry(item))
    return Found(
        tuple(entries),
        further=(*_places("purchase", said.purchases), *_places("payment", said.payments)),
        least=said.asked_count > len(said.asked),
    )


def _places(kind: Literal["purchase", "payment"], ids: Iterable[str]) -> Iterable[Place]:
    return (Place(kind, one) for one in ids)


def _in_purchase(view: PurchaseView) -> Iterable[Entry]:
    if view.status != _AWAITING or view.cart is None:
        return
    total = view.cart.total
    yield Entry(
        AttentionItem(
            kind=AttentionKind.PURCHASE,
            id=view.purchase_id,
            session_id=view.request.session_id,
            agent=view.request.agent.id,
            line=f"A purchase at {view.cart.seller}",
            amount=None if total is None else Money(amount=total, currency=view.cart.currency),
            since=view.updated_at,
            deadline=view.approval_deadline,
        ),
        approvers=view.approvers,
    )


def _in_payment(view: PaidRequestView) -> Iterable[Entry]:
    if view.status != _AWAITING or view.offer is None:
        return
    yield Entry(
        AttentionItem(
            kind=AttentionKind.PAYMENT,
            id=view.payment_id,
            session_id=view.session_id,
            agent=view.agent,
            line=f"A paid request to {view.offer.realm}",
            amount=view.offer.price,
            since=view.updated_at,
            deadline=view.approval_deadline,
        ),
        approvers=view.approvers,
    )
