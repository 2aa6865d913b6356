"""What waits for a person's approval: tools, carts and paid requests in one list."""

import asyncio
from collections.abc import Collection, Sequence
from typing import NamedTuple

from api.auth import Action, Principal, answers_as, decides_in_person
from api.errors import UnknownSession
from api.gateways.lists import MAX_LISTED
from api.gateways.money import MoneyGateway
from api.gateways.sessions import Gateway
from api.gateways.visible import sees
from waystation.models.approvals import ApprovalKind, ApprovalList, WaitingApproval
from waystation.models.payments import PaidRequestView
from waystation.models.purchases import PurchaseView
from waystation.models.questions import OpenApprovals, QuestionView, as_asked
from waystation.temporal.messages import PAID_REQUEST
from waystation.temporal.names import (
    PURCHASE_WORKFLOW,
    SESSION_WORKFLOW,
    WAITS_FOR,
    WAITS_FOR_APPROVAL,
)

_AWAITING = "awaiting_approval"


class _Found(NamedTuple):
    approvals: list[WaitingApproval]
    further: int = 0
    """How many wait beside these, where it is known."""
    more: bool = False


class Approvals:
    """Finds them, as far as Temporal's lists know them yet."""

    def __init__(self, sessions: Gateway, money: MoneyGateway) -> None:
        self._sessions, self._money = sessions, money

    async def find(
        self, caller: Principal, kinds: Collection[ApprovalKind], session_id: str | None, limit: int
    ) -> ApprovalList:
        """Returns what waits and the caller may see, newest first."""
        ways = {
            ApprovalKind.TOOL: self._tools,
            ApprovalKind.PURCHASE: self._purchases,
            ApprovalKind.PAYMENT: self._payments,
        }
        found = await asyncio.gather(*(ways[kind](caller, session_id) for kind in sorted(kinds)))
        approvals = [one for some in found for one in some.approvals]
        approvals.sort(key=lambda one: one.since, reverse=True)
        return ApprovalList(
            approvals=tuple(approvals[:limit]),
            count=len(approvals) + sum(some.further for some in found),
            more=any(some.more for some in found),
        )

    async def _tools(self, caller: Principal, session_id: str | None) -> _Found:
        if session_id is not None:
            ids: Sequence[str] = [session_id]
        elif caller.sessions is not None:
            ids = sorted(caller.sessions)
        else:
            wanted = {WAITS_FOR: WAITS_FOR_APPROVAL}
            ids = await self._sessions.lists.listed(SESSION_WORKFLOW, MAX_LISTED, wanted)
        answers = await self._sessions.lists.readable(self._tools_of(one) for one in ids)
        views = [view for answer in answers for view in answer.questions]
        more = caller.sessions is None and len(ids) == MAX_LISTED
        if caller.role == "agent":
            return _Found([_tool(view, caller) for view in views if caller.speaks_for(view.agent)], more=more)
        unsent = sum(answer.count - len(answer.questions) for answer in answers)
        return _Found([_tool(view, caller) for view in views], unsent, more)

    async def _tools_of(self, session_id: str) -> OpenApprovals:
        try:
            return await self._sessions.approvals(session_id)
        except UnknownSession:  # a token may name sessions that don't exist yet
            return OpenApprovals(questions=(), count=0)

    async def _purchases(self, caller: Principal, session_id: str | None) -> _Found:
        lists = self._money.lists
        ids = await lists.listed_for(caller, PURCHASE_WORKFLOW, MAX_LISTED, session_id, waiting=True)
        views = await lists.readable(self._money.purchase(one) for one in ids)
        waiting = [
            _purchase(view, caller) for view in views if view.status == _AWAITING and sees(caller, view)
        ]
        return _Found(waiting, more=len(ids) == MAX_LISTED)

    async def _payments(self, caller: Principal, session_id: str | None) -> _Found:
        lists = self._money.lists
        ids = await lists.listed_for(caller, PAID_REQUEST.name, MAX_LISTED, session_id, waiting=True)
        views = await lists.readable(self._money.payment(one) for one in ids)
        waiting = [
            _payment(view, caller) for view in views if view.status == _AWAITING and sees(caller, view)
        ]
        return _Found(waiting, more=len(ids) == MAX_LISTED)


def _tool(view: QuestionView, caller: Principal) -> WaitingApproval:
    return WaitingApproval(
        kind=ApprovalKind.TOOL,
        id=as_asked(view.asked).question_id,
        session_id=view.session_id,
        agent=view.agent,
        digest=view.digest,
        since=view.asked_at,
        deadline=view.deadline,
        may_decide=_may_answer(view, caller),
        question=view,
    )


def _may_answer(view: QuestionView, caller: Principal) -> bool:
    if Action.ANSWER not in caller.may or not decides_in_person(caller):
        return False
    return as_asked(view.asked).answerers.has(caller.actor, answers_as(caller, caller.actor))


def _purchase(view: PurchaseView, caller: Principal) -> WaitingApproval:
    assert view.digest is not None, "what waits for approval has a cart"
    return WaitingApproval(
        kind=ApprovalKind.PURCHASE,
        id=view.purchase_id,
        session_id=view.request.session_id,
        agent=view.request.agent.id,
        digest=view.digest,
        since=view.updated_at,
        deadline=view.approval_deadline,
        may_decide=Action.APPROVE in caller.may,
        purchase=view,
    )


def _payment(view: PaidRequestView, caller: Principal) -> WaitingApproval:
    assert view.terms_digest is not None, "what waits for approval has terms"
    return WaitingApproval(
        kind=ApprovalKind.PAYMENT,
        id=view.payment_id,
        session_id=view.session_id,
        agent=view.agent,
        digest=view.terms_digest,
        since=view.updated_at,
        may_decide=Action.APPROVE in caller.may,
        payment=view.model_copy(update={"answer": None}),
    )
