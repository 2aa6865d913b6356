"""The API's way to mandates, purchases and paid requests: calls bounded in time, failures as problems."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from pydantic import BaseModel
from temporalio.client import Client
from temporalio.common import (
    QueryRejectCondition,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.types import MethodAsyncSingleParam

from api.auth import Principal
from api.errors import Conflict, Problem, Unavailable
from api.gateways.calls import Calls, ask_unless_ended
from api.gateways.ended import ended_allowance, ended_mandate, ended_payment, ended_purchase
from api.gateways.index import SearchIndex
from api.gateways.lists import Lists
from api.gateways.outcomes import OUTCOME, outcome_of
from api.gateways.visible import no_allowance, no_mandate, no_payment, no_purchase, sees, wording_of
from waystation.models.base import replaced
from waystation.models.decisions import Approve, Decision, Reject
from waystation.models.mandates import MandateTerms, MandateView, RevokeRequest
from waystation.models.payments import AllowanceView, PaidRequestStart, PaidRequestView
from waystation.models.proofs import DecisionKind, Proof
from waystation.models.purchases import (
    Cart,
    OrderEventReceived,
    OrderEventsStart,
    OutcomeWanted,
    PurchaseRequest,
    PurchaseView,
    RetryPayment,
)
from waystation.models.trail import AuditTrail
from waystation.proofs import Signer
from waystation.settings import ANY_AGENT, MoneySettings
from waystation.temporal.calls import start_and_tell
from waystation.temporal.digests import began_with
from waystation.temporal.messages import (
    ALLOWANCE,
    MANDATE_REVOKE,
    ORDER_EVENTS,
    ORDER_EVENTS_DELIVER,
    PAID_REQUEST,
    PAID_REQUEST_DIGEST,
    PURCHASE_RETRY_PAYMENT,
)
from waystation.temporal.names import MANDATE_WORKFLOW, PURCHASE_WORKFLOW, SESSION_TASK_QUEUE
from waystation.temporal.tokens import SignalName
from workflows.allowance import Allowance
from workflows.mandate import Mandate, MandateStart
from workflows.paid_request import PaidRequest
from workflows.purchase import Purchase, PurchaseStart
from workflows.purchase.memo import memo_is_of, memo_of_purchase
from workflows.purchase.order_events import order_events_id

T = TypeVar("T")
Workflow = TypeVar("Workflow")
Argument = TypeVar("Argument")

MAX_OUTCOME_WAIT_SECONDS = 30


class MoneyGateway:
    """Calls to Mandate, Purchase and OrderEvents workflows."""

    def __init__(
        self,
        client: Client,
        timeout_seconds: float,
        *,
        signer: Signer | None = None,
        index: SearchIndex | None = None,
        task_queue: str = SESSION_TASK_QUEUE,
    ) -> None:
        """Without ``signer``, people's decisions count only where workers take unsigned ones.

        Without ``index``, purchases and paid requests are started without search attributes.
        """
        self._client = client
        self._signer, self._index = signer, index

        def calls(kind: str, noun: str, unknown: Callable[[str], Problem]) -> Calls:
            return Calls(client, timeout_seconds, kind, wording_of(noun, unknown))

        self._timeout = timedelta(seconds=timeout_seconds)
        self._mandates = calls(MANDATE_WORKFLOW, "mandate", no_mandate)
        self._purchases = calls(PURCHASE_WORKFLOW, "purchase", no_purchase)
        self._payments = calls(PAID_REQUEST.name, "payment", no_payment)
        self._allowances = calls(ALLOWANCE.name, "allowance", no_allowance)
        self._queue = task_queue
        self.lists = Lists(self._purchases, index)

    # Mandates

    async def create_mandate(self, mandate_id: str | None, terms: MandateTerms) -> tuple[str, bool]:
        """Starts a mandate; returns its id, and whether it is new."""
        wanted = mandate_id or f"mandate-{uuid.uuid4()}"
        memo = {"owner": terms.owner, "agent": terms.agent}
        start = MandateStart(terms=terms, proof=self._proof("grant", wanted, terms))
        return await self._start(self._mandates, wanted, Mandate.run, start, memo)

    async def mandate(self, mandate_id: str) -> MandateView:
        handle = self._client.get_workflow_handle_for(Mandate.run, mandate_id)

        def ask(reject: QueryRejectCondition) -> Awaitable[MandateView]:
            return handle.query(Mandate.balance, reject_condition=reject, rpc_timeout=self._timeout)

        return await _as_it_stands(self._mandates, mandate_id, ask, ended_mandate)

    async def revoke(self, mandate_id: str, request: RevokeRequest) -> None:
        await self._mandates.signal(mandate_id, MANDATE_REVOKE, request)

    # Purchases

    async def start_purchase(self, purchase_id: str | None, request: PurchaseRequest) -> tuple[str, bool]:
        """Starts a purchase; returns its id, and whether it is new."""
        wanted = purchase_id or f"purchase-{uuid.uuid4()}"
        start, memo = PurchaseStart(request=request), memo_of_purchase(request)
        found_by = await self._found_by(request.agent.id, request.session_id)
        return await self._start(self._purchases, wanted, Purchase.run, start, memo, found_by)

    async def began_as(self, purchase_id: str, request: PurchaseRequest) -> bool:
        """Returns whether the purchase was started with exactly this request."""
        handle = self._client.get_workflow_handle(purchase_id)
        found = await self._purchases.guarded(
            purchase_id, lambda: handle.describe(rpc_timeout=self._timeout), looks=True
        )
        return memo_is_of(await found.memo(), request)

    async def purchase(self, purchase_id: str) -> PurchaseView:
        handle = self._client.get_workflow_handle_for(Purchase.run, purchase_id)

        def ask(reject: QueryRejectCondition) -> Awaitable[PurchaseView]:
            return handle.query(Purchase.status, reject_condition=reject, rpc_timeout=self._timeout)

        return await _as_it_stands(self._purchases, purchase_id, ask, ended_purchase)

    async def check_visible(self, purchase_id: str, caller: Principal) -> None:
        """Checks as ``visible`` does, but asks nothing for a caller who may see them all."""
        if caller.sessions is not None or (caller.role == "agent" and not caller.speaks_for(ANY_AGENT)):
            await self.visible(purchase_id, caller)

    async def visible(self, purchase_id: str, caller: Principal) -> PurchaseView:
        """Returns a purchase that the caller may see.

        Raises:
            NotFound: There is no such purchase, or the caller may not see it.
        """
        view = await self.purchase(purchase_id)
        if sees(caller, view):
            return view
        raise no_purchase(purchase_id)

    async def cart(self, purchase_id: str) -> Cart | None:
        handle = self._client.get_workflow_handle_for(Purchase.run, purchase_id)
        return await self._purchases.guarded(
            purchase_id, lambda: handle.query(Purchase.cart, rpc_timeout=self._timeout), looks=True
        )

    async def audit(self, purchase_id: str) -> AuditTrail:
        handle = self._client.get_workflow_handle_for(Purchase.run, purchase_id)
        return await self._purchases.guarded(
            purchase_id, lambda: handle.query(Purchase.audit, rpc_timeout=self._timeout), looks=True
        )

    async def outcome(
        self, view: PurchaseView, wait_seconds: float, *, or_for_a_person: bool = False
    ) -> PurchaseView:
        """Returns the view once the purchase is final (or needs a person), or as it stands by then."""
        handle = self._client.get_workflow_handle_for(Purchase.run, view.purchase_id)
        wanted = OutcomeWanted(or_for_a_person=or_for_a_person)

        def ask(now: PurchaseView) -> Awaitable[PurchaseView]:
            # All who wait for the same turn of a person share one update, and the next turn has another.
            update_id = f"{OUTCOME}-{now.turns_of_people}" if or_for_a_person else OUTCOME
            return handle.execute_update(Purchase.outcome, wanted, id=update_id)

        def reached(now: PurchaseView) -> bool:
            return now.final or (or_for_a_person and now.waits_for_a_person)

        return await outcome_of(
            view, ask, reached, lambda: self.purchase(view.purchase_id), within_seconds=wait_seconds
        )

    async def decide(self, purchase_id: str, decision: Decision) -> PurchaseView:
        decision = self._signed(purchase_id, decision)
        try:
            handle = self._client.get_workflow_handle_for(Purchase.run, purchase_id)
            return await self._purchases.update(handle, Purchase.decide, decision)
        except Conflict as conflict:
            if conflict.code == "stale-digest":  # show the fresh cart with the refusal
                fresh = await self.purchase(purchase_id)
                conflict.extra["digest"] = fresh.digest
                conflict.extra["cart"] = fresh.cart.model_dump(mode="json") if fresh.cart else None
            raise

    async def retry_payment(self, purchase_id: str, retry: RetryPayment) -> None:
        proof = self._proof("retry", purchase_id, retry)
        await self.tell(purchase_id, PURCHASE_RETRY_PAYMENT, replaced(retry, proof=proof))

    async def tell(self, workflow_id: str, signal: SignalName[Argument], argument: Argument) -> None:
        await self._purchases.signal(workflow_id, signal, argument)

    # Paid requests

    async def start_payment(self, payment_id: str | None, start: PaidRequestStart) -> tuple[str, bool]:
        """Starts a paid request; returns its id, and whether it is new."""
        wanted = payment_id or f"payment-{uuid.uuid4()}"
        memo = {"session_id": start.session_id, "agent": start.agent}
        found_by = await self._found_by(start.agent, start.session_id)
        return await self._start(self._payments, wanted, PaidRequest.run, start, memo, found_by)

    async def payment(self, payment_id: str) -> PaidRequestView:
        handle = self._client.get_workflow_handle_for(PaidRequest.run, payment_id)

        def ask(reject: QueryRejectCondition) -> Awaitable[PaidRequestView]:
            return handle.query(PaidRequest.status, reject_condition=reject, rpc_timeout=self._timeout)

        return await _as_it_stands(self._payments, payment_id, ask, ended_payment)

    async def payment_began_with(self, view: PaidRequestView, start: PaidRequestStart) -> bool:
        """Returns whether the paid request was started with exactly this."""
        handle = self._client.get_workflow_handle(view.payment_id)
        return await self._payments.guarded(
            view.payment_id,
            lambda: began_with(handle, PAID_REQUEST_DIGEST, start, shown=view.start_digest),
            looks=True,
        )

    async def decide_payment(self, payment_id: str, decision: Decision) -> PaidRequestView:
        decision = self._signed(payment_id, decision)
        try:
            handle = self._client.get_workflow_handle_for(PaidRequest.run, payment_id)
            return await self._payments.update(handle, PaidRequest.decide, decision)
        except Conflict as conflict:
            if conflict.code == "stale-digest":
                conflict.extra["digest"] = (await self.payment(payment_id)).terms_digest
            raise
        except Unavailable:
            # The answer waits for what follows; even if that takes too long, the decision may have counted.
            view = await self.payment(payment_id)
            if not _is_decided(view, decision):
                raise
        return view

    async def payment_audit(self, payment_id: str) -> AuditTrail:
        handle = self._client.get_workflow_handle_for(PaidRequest.run, payment_id)
        return await self._payments.guarded(
            payment_id, lambda: handle.query(PaidRequest.audit, rpc_timeout=self._timeout), looks=True
        )

    async def allowance(self, allowance_id: str) -> AllowanceView:
        handle = self._client.get_workflow_handle_for(Allowance.run, allowance_id)

        def ask(reject: QueryRejectCondition) -> Awaitable[AllowanceView]:
            return handle.query(Allowance.status, reject_condition=reject, rpc_timeout=self._timeout)

        return await _as_it_stands(self._allowances, allowance_id, ask, ended_allowance)

    async def allowance_audit(self, allowance_id: str) -> AuditTrail:
        handle = self._client.get_workflow_handle_for(Allowance.run, allowance_id)
        return await self._allowances.guarded(
            allowance_id, lambda: handle.query(Allowance.audit, rpc_timeout=self._timeout), looks=True
        )

    async def payment_outcome(self, view: PaidRequestView, wait_seconds: float) -> PaidRequestView:
        """Returns the view once the paid request is final, or as it stands after ``wait_seconds``."""
        handle = self._client.get_workflow_handle_for(PaidRequest.run, view.payment_id)
        return await outcome_of(
            view,
            lambda _: handle.execute_update(PaidRequest.outcome, id=OUTCOME),
            lambda now: now.final,
            lambda: self.payment(view.payment_id),
            within_seconds=wait_seconds,
        )

    # Webhooks

    async def deliver_order_event(self, seller: str, event: OrderEventReceived) -> None:
        """Hands over a webhook, which waits if the purchase has not claimed its checkout yet."""
        route = order_events_id(seller, event.order.checkout_id)

        async def call() -> None:
            await start_and_tell(
                self._client,
                ORDER_EVENTS,
                OrderEventsStart(),
                ORDER_EVENTS_DELIVER,
                event,
                id=route,
                task_queue=self._queue,
                rpc_timeout=self._timeout,
            )

        await self._purchases.guarded(route, call)

    # How

    def _proof(self, kind: DecisionKind, workflow_id: str, said: BaseModel) -> Proof | None:
        """Vouches for a decision: routes come here only after the caller and their role were checked."""
        return self._signer.sign(kind, workflow_id, said) if self._signer is not None else None

    def _signed(self, workflow_id: str, decision: Decision) -> Decision:
        match decision:
            case Decision(approve=Approve() as approve, reject=None):
                proof = self._proof("approve", workflow_id, approve)
                return Decision(approve=replaced(approve, proof=proof))
            case Decision(reject=Reject() as reject, approve=None):
                proof = self._proof("reject", workflow_id, reject)
                return Decision(reject=replaced(reject, proof=proof))
        return decision  # both or neither: the workflow refuses it

    async def _found_by(self, agent: str, session_id: str | None) -> TypedSearchAttributes | None:
        there = self._index is not None and await self._index.may_be_set()
        return SearchIndex.of_money(agent, session_id) if there else None

    async def _start(
        self,
        calls: Calls,
        wanted: str,
        run: MethodAsyncSingleParam[Workflow, Argument, object],
        start: Argument,
        memo: Mapping[str, object],
        found_by: TypedSearchAttributes | None = None,
    ) -> tuple[str, bool]:
        async def call() -> bool:
            try:
                await self._client.start_workflow(
                    run,
                    start,
                    id=wanted,
                    task_queue=self._queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    memo=memo,
                    search_attributes=found_by,
                    rpc_timeout=self._timeout,
                )
            except WorkflowAlreadyStartedError:
                if not await calls.is_of_kind(wanted):
                    raise Conflict(
                        f"'{wanted}' names something else; choose another id.", code="id-taken"
                    ) from None
                return False
            return True

        return wanted, await calls.guarded(wanted, call)


async def _as_it_stands(
    calls: Calls,
    workflow_id: str,
    ask: Callable[[QueryRejectCondition], Awaitable[T]],
    if_ended: Callable[[T], T],
) -> T:
    """Returns what a query says, put right by ``if_ended`` where Temporal has ended the workflow."""
    view, ended = await calls.guarded(workflow_id, lambda: ask_unless_ended(ask), looks=True)
    return if_ended(view) if ended else view


def _is_decided(view: PaidRequestView, decision: Decision) -> bool:
    if decision.approve is not None:
        return view.approved_by == decision.approve.approver
    return view.refusal is not None and view.refusal.rule == "rejected"


@dataclass(frozen=True)
class MoneyParts:
    """What the routes of mandates and purchases use."""

    gateway: MoneyGateway
    settings: MoneySettings
