"""A workflow that buys and pays, as somebody would write it."""

from temporalio import workflow

from waystation.workflow import buy, pay

with workflow.unsafe.imports_passed_through():
    from waystation.models.payments import PaidRequestStart, PaidRequestView
    from waystation.models.purchases import PurchaseRequest, PurchaseView


@workflow.defn
class Restock:
    """Makes one purchase."""

    @workflow.run
    async def run(self, request: PurchaseRequest, purchase_id: str) -> PurchaseView:
        return await buy(request, purchase_id=purchase_id)


@workflow.defn
class Research:
    """Makes one paid request."""

    @workflow.run
    async def run(self, start: PaidRequestStart, payment_id: str) -> PaidRequestView:
        return await pay(start, payment_id=payment_id)
