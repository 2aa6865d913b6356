"""``Buy``: makes one purchase and returns how it ended, for workflows that run it as their child.

A purchase follows its order for months after it was paid. So it runs as a child of this workflow that
outlives it, and reports its end by a signal; then it is asked how it ended, for anybody who reaches Temporal
can send signals. A purchase that ends without a report (because it is terminated, for example) is noticed as
the child that it is.
"""

import asyncio
import contextlib
from types import NoneType
from typing import Final

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ChildWorkflowError, FailureError, WorkflowAlreadyStartedError
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    import workflows.policies as policies
    from activities.contract import HOUSE_UNAVAILABLE, PurchaseQuestion, PurchaseReadingCalls
    from waystation.models.decisions import Cancel, Refusal
    from waystation.models.purchases import BuyStart, Charge, PurchaseView
    from waystation.temporal.calls import tell_workflow
    from waystation.temporal.messages import BUY, PURCHASE_CANCEL
    from waystation.temporal.names import PURCHASE_ID_TAKEN
    from workflows.calls import call_options, once_local
    from workflows.guards import drop_unless, ending, starting
    from workflows.purchase.memo import memo_of_purchase
    from workflows.purchase.workflow import Purchase, PurchaseStart
    from workflows.refusals import ENDED_IN_TEMPORAL, refusal


_LOOK: Final = call_options(
    policies.PURCHASE_READ_TIMEOUT, policies.PURCHASE_READ_RETRY, silence=HOUSE_UNAVAILABLE
)


@workflow.defn(name=BUY.name)
class Buy:
    """One purchase's transaction."""

    @workflow.init
    @starting
    def __init__(self, start: BuyStart) -> None:
        self._start = start
        self._started = self._reported = False

    @workflow.run
    @ending
    async def run(self, start: BuyStart) -> PurchaseView:
        """Returns the purchase once it is final.

        A cancellation is handed on, and heeded until the purchase is being paid. If it ends as canceled, so
        does this workflow; otherwise it returns what came of it.

        Raises:
            ApplicationError: ``PurchaseIdTaken``.
        """
        end, told = asyncio.create_task(self._end()), None
        while not end.done():
            try:
                await workflow.wait_condition(end.done)
            except asyncio.CancelledError:
                told = told or asyncio.create_task(self._hand_on_cancellation())
        view = await end
        if told and view.status == "canceled":
            raise asyncio.CancelledError
        return view

    @workflow.signal
    @drop_unless(NoneType, optional=True)
    def ended(self) -> None:
        """Has the purchase asked how it stands."""
        self._reported = True

    async def _end(self) -> PurchaseView:
        """Returns how the purchase ended: by its own word, or as the child that it is."""
        purchase = asyncio.create_task(self._buy())
        question = PurchaseQuestion(purchase_id=self._start.purchase_id)
        while True:
            await workflow.wait_condition(lambda: self._reported or purchase.done())
            self._reported = False
            if purchase.done():
                return await purchase
            asked = asyncio.create_task(once_local(PurchaseReadingCalls.read_purchase, question, _LOOK))
            await workflow.wait([asked, purchase], return_when=asyncio.FIRST_COMPLETED)
            if purchase.done():
                return await purchase
            if (view := await asked).final:
                return view

    async def _buy(self) -> PurchaseView:
        """Starts the purchase and returns how it ended, if it ends before its order is followed."""
        start = self._start
        try:
            purchase = await workflow.start_child_workflow(
                Purchase.run,
                PurchaseStart(request=start.request, awaited_by=workflow.info().workflow_id),
                id=start.purchase_id,
                # Money that moves needs its workflow, whatever becomes of this one.
                parent_close_policy=ParentClosePolicy.ABANDON,
                # A second purchase of this id would use the first one's idempotency keys.
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                memo=memo_of_purchase(start.request),
            )
        except WorkflowAlreadyStartedError:
            raise refusal(PURCHASE_ID_TAKEN, f"'{start.purchase_id}' is taken; choose another id.") from None
        self._started = True
        try:
            return await purchase
        except ChildWorkflowError:
            return self._lost()

    async def _hand_on_cancellation(self) -> None:
        await workflow.wait_condition(lambda: self._started)
        wish = Cancel(by="workflow", reason="the workflow that wanted it was canceled")
        with contextlib.suppress(FailureError):  # it has ended
            await tell_workflow(self._start.purchase_id, PURCHASE_CANCEL, wish)

    def _lost(self) -> PurchaseView:
        """Returns a purchase that was ended from outside, of which nobody knows how far it was."""
        why = "its workflow was ended in Temporal; see there by whom. Money may have moved: ask the processor"
        return PurchaseView(
            purchase_id=self._start.purchase_id,
            status="failed",
            final=True,
            request=self._start.request,
            refusal=Refusal(rule=ENDED_IN_TEMPORAL, message=why),
            charge=Charge(status="unknown"),
            updated_at=workflow.now(),
        )
