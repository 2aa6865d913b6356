"""A buyer's bench: worker, mandate, wallet, processor and servers, all real, in one process.

Only the sockets are missing: every host is an ASGI application behind
``HostRouter``, which can lose answers as a network does.
"""

import contextlib
import dataclasses
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from eth_account import Account
from fastapi import FastAPI
from temporalio.client import Client, WorkflowHandle
from temporalio.converter import ExternalStorage
from temporalio.worker import Worker

from activities.announcements import PurchaseAnnouncements
from activities.mandates import MandateActivities
from activities.proofs import ProofActivities
from activities.registration import paid_request_activities
from activities.webhooks import WebhookRegistry
from tests.support import eventually
from tests.world.keys import TRUSTING, VAULT
from waystation.buyer.answers import AnswerStore
from waystation.buyer.credentials import Credentials
from waystation.buyer.http import PaidHttp
from waystation.buyer.wallet import Wallet
from waystation.models.mandates import MandateTerms, MandateView
from waystation.models.money import Money
from waystation.models.payments import PaidHttpRequest, PaidRequestStart, PaidRequestView
from waystation.protocols.http402.eip3009 import USDC_BASE_SEPOLIA
from waystation.sandbox import paid_api
from waystation.sandbox.processor import create_app as create_processor
from waystation.stripe_http import open_stripe
from waystation.temporal.storage import FolderStorageDriver
from worker import PAID_REQUEST_WORKFLOWS, WORKFLOW_RUNNER
from workflows.mandate import Mandate, MandateStart
from workflows.paid_request import PaidRequest

USDC = USDC_BASE_SEPOLIA.currency
API = "https://paid.test"
AGENT = "agent-7"


def usd(cents: int) -> Money:
    return Money(amount=cents, currency="usd")


class HostRouter(httpx.AsyncBaseTransport):
    """A network of ASGI applications by host name."""

    def __init__(self) -> None:
        self.hosts: dict[str, httpx.ASGITransport] = {}
        self.seen: list[httpx.Request] = []
        self.lose: Callable[[httpx.Request], bool] = lambda request: False
        self.drop: Callable[[httpx.Request], bool] = lambda request: False

    def add(self, host: str, app: Any) -> None:
        self.hosts[host] = httpx.ASGITransport(app, raise_app_exceptions=False)

    def sent_to(self, host: str) -> list[httpx.Request]:
        return [request for request in self.seen if request.url.host == host]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        if self.drop(request):
            raise httpx.ConnectError("dropped before it arrived", request=request)
        if request.url.host not in self.hosts:
            raise httpx.ConnectError("no such host", request=request)
        response = await self.hosts[request.url.host].handle_async_request(request)
        if self.lose(request):
            await response.aread()
            raise httpx.ReadError("the answer was lost", request=request)
        return response


def times(count: int, match: Callable[[httpx.Request], bool]) -> Callable[[httpx.Request], bool]:
    """True for the first ``count`` requests that match."""
    left = [count]

    def strike(request: httpx.Request) -> bool:
        if left[0] and match(request):
            left[0] -= 1
            return True
        return False

    return strike


def has_credential(request: httpx.Request) -> bool:
    value = request.headers.get("authorization", "")
    return value.startswith("Payment ") or "payment-signature" in request.headers


class Bench:
    """Everything a paid request needs."""

    def __init__(self, folder: Path, temporal: Client, *, wallet: Wallet | None = None) -> None:
        storage = ExternalStorage(drivers=[FolderStorageDriver(folder / "payloads")])
        converter = dataclasses.replace(temporal.data_converter, external_storage=storage)
        self.temporal = Client(**{**temporal.config(), "data_converter": converter})
        self.task_queue = f"paid-{uuid.uuid4().hex[:8]}"
        self.network = HostRouter()
        processor = create_processor(folder / "processor")
        self.network.add("processor.test", processor)
        seller_client, _ = open_stripe(
            paid_api.SELLER_KEY, api_base="http://processor.test", transport=self.network
        )
        self.api: FastAPI = paid_api.create_app(folder / "paid", processor=seller_client)
        self.network.add("paid.test", self.api)
        self.agent_client, _ = open_stripe(
            "sk_test_agent", api_base="http://processor.test", transport=self.network
        )
        self.wallet = wallet or Wallet(
            Account.create(),
            rpc_url="https://paid.test/facilitator/rpc",
            rpc_transport=self.network,
        )
        self.credentials = Credentials(processor=self.agent_client, wallet=self.wallet)
        self.payloads = folder / "payloads"
        self._http = httpx.AsyncClient(transport=self.network)

    @contextlib.asynccontextmanager
    async def working(self, *, max_cached_workflows: int = 1_000) -> AsyncIterator["Bench"]:
        """With a worker."""
        http = PaidHttp(answers=AnswerStore(self.temporal.data_converter), transport=self.network)
        paying = paid_request_activities(http, self.credentials, VAULT)
        mandates = MandateActivities(self.temporal)
        proofs = ProofActivities(TRUSTING)
        asking = [
            proofs.check_proof,
            mandates.holder_is_running,
            mandates.read_mandate,
            mandates.reserve_from_mandate,
            mandates.commit_to_mandate,
            mandates.release_to_mandate,
            PurchaseAnnouncements(self.temporal).announce_purchase,
            WebhookRegistry(self.temporal).webhook_subscribers,
        ]
        try:
            async with Worker(
                self.temporal,
                task_queue=self.task_queue,
                workflows=[Mandate, *PAID_REQUEST_WORKFLOWS],
                activities=[*asking, *paying],
                workflow_runner=WORKFLOW_RUNNER,
                max_cached_workflows=max_cached_workflows,
            ):
                yield self
        finally:
            await self.api.state.paywall.close()
            await self.api.state.chain.close()
            await self.wallet.close()
            await self._http.aclose()

    async def mandate(self, cap: Money, **terms: Any) -> str:
        """A mandate that pays without asking unless told otherwise."""
        values: dict[str, Any] = {
            "owner": "alice",
            "agent": AGENT,
            "cap": cap,
            "approval_threshold": cap.amount,
            "valid_until": datetime.now(UTC) + timedelta(hours=1),
            "sellers": ("*",),
            "payment_methods": ("pm_card_visa",),
        } | terms
        mandate_id = f"mandate-{uuid.uuid4().hex[:8]}"
        start = MandateStart(terms=MandateTerms(**values))
        await self.temporal.start_workflow(Mandate.run, start, id=mandate_id, task_queue=self.task_queue)
        return mandate_id

    async def balance(self, mandate_id: str) -> tuple[int, int]:
        """``(spent, reserved)`` in minor units."""
        view: MandateView = await self.temporal.get_workflow_handle(mandate_id).query(Mandate.balance)
        return view.spent.amount, view.reserved.amount

    async def start(
        self, path: str, max_price: Money, mandate_id: str, **more: Any
    ) -> WorkflowHandle[PaidRequest, PaidRequestView]:
        url = path if path.startswith("http") else API + path
        request = PaidHttpRequest(url=url, **more.pop("request", {}))
        start = PaidRequestStart(
            **{
                "request": request,
                "max_price": max_price,
                "mandate_id": mandate_id,
                "agent": AGENT,
                **more,
            }
        )
        return await self.temporal.start_workflow(
            PaidRequest.run, start, id=f"pay-{uuid.uuid4().hex[:8]}", task_queue=self.task_queue
        )

    async def pay(self, path: str, max_price: Money, mandate_id: str, **more: Any) -> PaidRequestView:
        handle = await self.start(path, max_price, mandate_id, **more)
        return await handle.result()

    async def ledger(self) -> dict[str, Any]:
        answer = await self._http.get("http://processor.test/sandbox/ledger")
        ledger: dict[str, Any] = answer.json()
        return ledger

    async def charges(self) -> list[int]:
        return [entry["amount"] for entry in (await self.ledger())["entries"] if entry["kind"] == "charge"]

    async def open_tokens(self) -> list[str]:
        tokens = (await self.ledger())["tokens"]
        return [token["id"] for token in tokens if token["status"] != "deactivated"]

    async def all_tokens(self) -> list[str]:
        return [token["id"] for token in (await self.ledger())["tokens"]]

    async def transfers(self) -> int:
        return len(await self.api.state.chain.transfers())

    def deliveries(self) -> dict[str, int]:
        return dict(self.api.state.runs)

    async def status(
        self, handle: WorkflowHandle[PaidRequest, PaidRequestView], wanted: str
    ) -> PaidRequestView:
        """The view once the request has this status."""

        async def reached() -> PaidRequestView | None:
            view = await handle.query(PaidRequest.status)
            return view if view.status == wanted else None

        view: PaidRequestView = await eventually(reached, what=f"status {wanted}")
        return view


__all__ = ["AGENT", "API", "USDC", "Bench", "HostRouter", "eventually", "has_credential", "times", "usd"]
