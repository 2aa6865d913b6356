"""What waits for people: tools, carts, paid requests and questions in one list."""

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
from waystation.models.questions import OpenApprovals, QuestionKind, QuestionView, as_asked
from waystation.temporal.messages import PAID_REQUEST
from waystation.temporal.names import (
    PURCHASE_WORKFLOW,
    SESSION_WORKFLOW,
    WAITS_FOR,
    WAITS_FOR_ANSWER,
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
        self,
        caller: Principal,
        kinds: Collection[ApprovalKind],
        session_id: str | None,
        limit: int,
        *,
        mine: bool = False,
    ) -> ApprovalList:
        """Returns what waits and the caller may see, newest first; with ``mine``, what they may decide."""
        ways = {
            self._purchases: ApprovalKind.PURCHASE in kinds,
            self._payments: ApprovalKind.PAYMENT in kinds,
            self._tools: ApprovalKind.TOOL in kinds and ApprovalKind.QUESTION not in kinds,
            self._questions: ApprovalKind.QUESTION in kinds,
        }
        looks = [way(caller, session_id) for way, is_wanted in ways.items() if is_wanted]
        found = await asyncio.gather(*looks)
        approvals = [
            one
            for some in found
            for one in some.approvals
            if one.kind in kinds and (one.may_decide or not mine)
        ]
        approvals.sort(key=lambda one: one.since, reverse=True)
        further = sum(some.further for some in found)
        exact = not mine and (ApprovalKind.TOOL in kinds or ApprovalKind.QUESTION not in kinds)
        return ApprovalList(
            approvals=tuple(approvals[:limit]),
            # What did not fit into a session's answer may be of another kind, or not the caller's to decide.
            count=len(approvals) + (further if exact else 0),
            more=any(some.more for some in found) or (further > 0 and not exact),
        )

    async def _tools(self, caller: Principal, session_id: str | None) -> _Found:
        return await self._asked(caller, session_id, [WAITS_FOR_APPROVAL])

    async def _questions(self, caller: Principal, session_id: str | None) -> _Found:
        return await self._asked(caller, session_id, [WAITS_FOR_APPROVAL, WAITS_FOR_ANSWER])

    async def _asked(self, caller: Principal, session_id: str | None, waiting_for: Sequence[str]) -> _Found:
        if session_id is not None:
            ids: Sequence[str] = [session_id]
        elif caller.sessions is not None:
            ids = sorted(caller.sessions)
        else:
            lists = (
                self._sessions.lists.listed(SESSION_WORKFLOW, MAX_LISTED, {WAITS_FOR: one})
                for one in waiting_for
            )
            ids = list(dict.fromkeys(one for found in await asyncio.gather(*lists) for one in found))
        questions = WAITS_FOR_ANSWER in waiting_for
        answers = await self._sessions.lists.readable(self._asked_in(one, questions=questions) for one in ids)
        views = [view for answer in answers for view in answer.questions]
        more = caller.sessions is None and len(ids) >= MAX_LISTED
        if caller.role == "agent":
            return _Found(
                [_asked(view, caller) for view in views if caller.speaks_for(view.agent)], more=more
            )
        unsent = sum(answer.count - len(answer.questions) for answer in answers)
        return _Found([_asked(view, caller) for view in views], unsent, more)

    async def _asked_in(self, session_id: str, *, questions: bool) -> OpenApprovals:
        try:
            return await self._sessions.approvals(session_id, questions=questions)
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


def _asked(view: QuestionView, caller: Principal) -> WaitingApproval:
    return WaitingApproval(
        kind=ApprovalKind.TOOL if view.kind is QuestionKind.APPROVAL else ApprovalKind.QUESTION,
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
    if Action.ANSWER not in caller.may:
        return False
    if view.kind is QuestionKind.APPROVAL and not decides_in_person(caller):
        return False
    return as_asked(view.asked).answerers.has(caller.actor, answers_as(caller, caller.actor))


def _may_approve(view: PurchaseView | PaidRequestView, caller: Principal) -> bool:
    return Action.APPROVE in caller.may and (not view.approvers or caller.subject in view.approvers)


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
        may_decide=_may_approve(view, caller),
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
        deadline=view.approval_deadline,
        may_decide=_may_approve(view, caller),
        payment=view.model_copy(update={"answer": None}),
    )
