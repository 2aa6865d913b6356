"""What tests of purchases share: the processor's process, a buyer's side, ways to ask and to wait."""

import sys
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError

from tests.support import PATIENCE_SECONDS, START_SECONDS, Process, eventually, free_port
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


class Processor(Process):
    """The sandbox processor in a process of its own; its ledger survives kill -9."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            sys.executable, "-m", "waystation.sandbox.processor",
            "--port", str(self.port), "--data", str(folder / "processor"),
            log=folder / "processor.log",
        )  # fmt: skip

    async def ready(self) -> None:
        await eventually(self._healthy, within=START_SECONDS, what="the processor answers")

    async def _healthy(self) -> bool:
        try:
            async with httpx.AsyncClient() as http:
                return (await http.get(f"{self.url}/sandbox/health")).is_success
        except httpx.HTTPError:
            return False

    async def books(self) -> dict[str, Any]:
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"{self.url}/sandbox/ledger", timeout=30)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found

    async def tokens_of(self, purchase_id: str) -> list[dict[str, Any]]:
        tokens = (await self.books())["tokens"]
        return [one for one in tokens if one["shared_metadata"].get("purchase_id") == purchase_id]

    async def arm(self, **trouble: Any) -> None:
        async with httpx.AsyncClient() as http:
            (await http.post(f"{self.url}/sandbox/troubles", json=trouble)).raise_for_status()

    async def calm(self) -> None:
        async with httpx.AsyncClient() as http:
            (await http.delete(f"{self.url}/sandbox/troubles")).raise_for_status()


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
