"""What tests of purchases share: a buyer's side, ways to ask and to wait."""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError

from tests.support import PATIENCE_SECONDS, eventually
from waystation.models.decisions import Approve
from waystation.models.mandates import MandateTerms, MandateView
from waystation.models.purchases import OutcomeWanted, PurchaseRequest, PurchaseView
from waystation.models.trail import AuditTrail
from workflows.mandate import Mandate, MandateStart
from workflows.purchase import Purchase, PurchaseStart
from workflows.trail import verify

ADDRESS = {
    "name": "Alice Example",
    "line_one": "1 Example St",
    "city": "Oakland",
    "state": "CA",
    "country": "US",
    "postal_code": "94607",
}
BUYER = {"email": "alice@example.com", "first_name": "Alice", "last_name": "Example"}
DETAILS = {"name": "Alice Example", "email": "alice@example.com", "address": ADDRESS}


@dataclass
class Buyer:
    """The buying side: a Temporal client and the queue where a worker takes up its workflows."""

    client: Client
    queue: str
    seller: str
    mandates: list[WorkflowHandle[Any, MandateView]] = field(default_factory=list)

    async def mandate(self, **changes: Any) -> WorkflowHandle[Any, MandateView]:
        given: dict[str, Any] = {
            "owner": "alice",
            "agent": "shopper",
            "cap": {"amount": 100_000, "currency": "usd"},
            "valid_until": datetime.now(UTC) + timedelta(days=30),
            "sellers": [self.seller],
            "payment_methods": ["pm_card_visa"],
        }
        terms = MandateTerms.model_validate({**given, **changes})
        return await self.client.start_workflow(
            Mandate.run, MandateStart(terms=terms), id=f"mandate-{uuid.uuid4()}", task_queue=self.queue
        )

    def request(self, mandate_id: str, **changes: Any) -> PurchaseRequest:
        given: dict[str, Any] = {
            "mandate_id": mandate_id,
            "seller": self.seller,
            "currency": "usd",
            "items": [{"id": "mug", "quantity": 2}],
            "agent": {"id": "shopper"},
            "buyer": BUYER,
            "fulfillment_details": DETAILS,
        }
        return PurchaseRequest.model_validate({**given, **changes})

    async def start(self, mandate_id: str, **changes: Any) -> "Bought":
        start = PurchaseStart(request=self.request(mandate_id, **changes))
        handle = await self.client.start_workflow(
            Purchase.run, start, id=f"purchase-{uuid.uuid4()}", task_queue=self.queue
        )
        return Bought(handle)

    async def buy(self, *, terms: dict[str, Any] | None = None, **changes: Any) -> "Bought":
        """A purchase under a mandate of its own."""
        mandate = await self.mandate(**(terms or {}))
        bought = await self.start(mandate.id, **changes)
        bought.mandate = mandate
        return bought


class Bought:
    """One purchase, as tests look at it."""

    mandate: WorkflowHandle[Any, MandateView]

    def __init__(self, handle: WorkflowHandle[Any, PurchaseView]) -> None:
        self.handle = handle
        self.id = handle.id

    async def view(self) -> PurchaseView:
        return await self.handle.query(Purchase.status)

    async def until(self, *statuses: str, within: float = PATIENCE_SECONDS) -> PurchaseView:
        async def reached() -> PurchaseView | None:
            view = await self.view()
            if view.final and view.status not in statuses:
                raise AssertionError(f"ended as {view.status}: {view.refusal}")
            return view if view.status in statuses else None

        found: PurchaseView = await eventually(reached, within=within, what=f"the purchase is {statuses}")
        return found

    async def approve(self, by: str = "alice") -> PurchaseView:
        view = await self.until("awaiting_approval")
        assert view.digest is not None
        await self.handle.signal(Purchase.approve, Approve(digest=view.digest, approver=by))
        return view

    async def outcome(self) -> PurchaseView:
        while True:
            try:
                view = await self.handle.execute_update(Purchase.outcome, OutcomeWanted())
            except RPCError:  # it ended while the update was on its way
                view = await self.view()
            if view.final:
                return view

    async def actions(self) -> list[str]:
        return [entry.action for entry in (await self.trail()).entries]

    async def trail(self) -> AuditTrail:
        trail = await self.handle.query(Purchase.audit)
        assert verify(trail.entries)
        return trail

    async def balance(self) -> tuple[int, int]:
        """What the mandate has spent and reserved."""
        view = await self.mandate.query(Mandate.balance)
        return view.spent.amount, view.reserved.amount
