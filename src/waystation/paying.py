"""Paying over HTTP for agents: ``fetch``, an httpx transport, and budgets for many small payments.

    payer = Payer(temporal, mandate_id="mandate-1", agent="researcher")
    answer = await payer.fetch("https://api.example/report", max_price=Money(amount=50, currency="usd"))

What needs no payment costs one round trip and touches no workflow. What does is paid by
a ``PaidRequest`` workflow, or within an ``Allowance`` where one is open for the seller.
Prices, payees and amounts come from the server's challenge alone, never from a model.
"""

import base64
import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from temporalio.client import Client, WithStartWorkflowOperation, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from waystation.models.money import Money
from waystation.models.payments import (
    AllowanceAnswer,
    AllowancePayment,
    AllowanceStart,
    AllowanceView,
    HttpAnswer,
    MoneyMoved,
    PaidHttpRequest,
    PaidRequestStart,
    PaidRequestView,
    Rail,
    Receipt,
)
from waystation.names import SESSION_TASK_QUEUE

PAID_REQUEST_WORKFLOW: Final = "PaidRequest"
ALLOWANCE_WORKFLOW: Final = "Allowance"
PAYMENT_ID_EXTENSION: Final = "waystation.payment_id"
"""httpx request extension that names a payment, so that a repeated request isn't paid twice."""
ALL_RAILS: Final = (Rail.MPP_STRIPE, Rail.X402_EXACT, Rail.MPP_EVM)
_BODY_HEADERS: Final = frozenset({"content-length", "transfer-encoding", "content-encoding"})
_UNSENT_HEADERS: Final = frozenset(
    {"host", "connection", "content-length", "accept-encoding", "transfer-encoding"}
)


class PaymentRefusedError(Exception):
    """No answer for the request. ``rule`` is stable; ``money_moved`` says ``no``, ``yes`` or ``unknown``."""

    def __init__(self, rule: str, message: str, money_moved: MoneyMoved, payment_id: str) -> None:
        super().__init__(message)
        self.rule = rule
        self.money_moved = money_moved
        self.payment_id = payment_id


@dataclass(frozen=True)
class Paid:
    """What a payment brought."""

    response: httpx.Response
    receipt: Receipt | None
    payment_id: str | None
    """None when nothing had to be paid."""
    money_moved: MoneyMoved


class Payer:
    """Makes requests and pays for them within one mandate."""

    def __init__(
        self,
        client: Client,
        *,
        mandate_id: str,
        agent: str,
        rails: Sequence[Rail] = ALL_RAILS,
        task_queue: str = SESSION_TASK_QUEUE,
        session_id: str | None = None,
        turn_id: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        answers: Path | None = None,
    ) -> None:
        """``answers`` is the workers' folder for large answers, if this process can read it."""
        self._client = client
        self._mandate_id, self._agent = mandate_id, agent
        self._rails = tuple(rails)
        self._task_queue = task_queue
        self._session_id, self._turn_id = session_id, turn_id
        self._answers = answers
        self._owns_transport = transport is None
        self._transport = transport or httpx.AsyncHTTPTransport()
        self._http = httpx.AsyncClient(transport=self._transport, follow_redirects=False)
        self._allowances: dict[str, str] = {}

    async def close(self) -> None:
        """Closes the connections."""
        if self._owns_transport:
            await self._http.aclose()

    async def fetch(
        self,
        url: str,
        *,
        max_price: Money,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        payment_id: str | None = None,
    ) -> Paid:
        """Makes a request and pays for it if it must be paid for.

        Give ``payment_id`` where the same call may be made again (a retried turn): the
        payment is then made once and its answer given again.

        Raises:
            PaymentRefusedError: with the rule, and whether money moved.
            httpx.HTTPError: the server can't be reached; nothing was paid.
        """
        response = await self._http.request(method, url, headers=headers, content=content)
        if response.status_code != 402:
            return Paid(response, None, None, "no")
        request = PaidHttpRequest(
            url=url,
            method=method,
            headers=tuple((headers or {}).items()),
            body_base64=base64.b64encode(content).decode(),
        )
        first_answer = tuple(response.headers.multi_items())
        return await self.pay(request, first_answer, max_price=max_price, payment_id=payment_id)

    async def pay(
        self,
        request: PaidHttpRequest,
        first_answer: tuple[tuple[str, str], ...],
        *,
        max_price: Money,
        payment_id: str | None = None,
    ) -> Paid:
        """Pays for a request whose 402 answer is at hand. See :meth:`fetch`."""
        allowance_id = self._allowances.get(_origin(request.url))
        if allowance_id is not None:
            return await self._pay_within(allowance_id, request, first_answer, payment_id)
        return await self._pay_alone(request, first_answer, max_price, payment_id)

    async def _pay_alone(
        self,
        request: PaidHttpRequest,
        first_answer: tuple[tuple[str, str], ...],
        max_price: Money,
        payment_id: str | None,
    ) -> Paid:
        workflow_id = payment_id or f"payment-{uuid.uuid4().hex}"
        start = PaidRequestStart(
            request=request,
            max_price=max_price,
            mandate_id=self._mandate_id,
            agent=self._agent,
            rails=self._rails,
            first_answer=first_answer,
            session_id=self._session_id,
            turn_id=self._turn_id,
        )
        view = await self._answered(workflow_id, start)
        if view.answer is None:
            refusal = view.refusal
            rule = refusal.rule if refusal else view.status
            message = refusal.message if refusal else f"the payment is {view.status}"
            raise PaymentRefusedError(rule, message, view.money_moved, workflow_id)
        response = self._response(view.answer, request)
        return Paid(response, view.receipt, workflow_id, view.money_moved)

    async def _answered(self, workflow_id: str, start: PaidRequestStart) -> PaidRequestView:
        """Starts the payment, or finds the one with this id, and waits for its answer."""
        operation: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            PAID_REQUEST_WORKFLOW,
            start,
            id=workflow_id,
            task_queue=self._task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            result_type=PaidRequestView,
            memo={"session_id": self._session_id, "agent": self._agent},
        )
        try:
            answered: PaidRequestView = await self._client.execute_update_with_start_workflow(
                "answered", start_workflow_operation=operation, result_type=PaidRequestView
            )
        except WorkflowAlreadyStartedError:
            pass  # closed already: its result is the answer
        except RPCError as error:
            if error.status not in (RPCStatusCode.ALREADY_EXISTS, RPCStatusCode.NOT_FOUND):
                raise
        else:
            return answered
        handle: WorkflowHandle[Any, Any] = self._client.get_workflow_handle(
            workflow_id, result_type=PaidRequestView
        )
        found: PaidRequestView = await handle.result()
        return found

    # --- budgets --------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def allowance(
        self,
        seller: str,
        *,
        budget: Money,
        max_price: Money,
        lifetime: timedelta = timedelta(hours=1),
        allowance_id: str | None = None,
    ) -> AsyncIterator[str]:
        """Reserves a budget for one seller; payments to it are fast until the block ends.

        ``seller`` is a web origin (``https://api.example``). A process that dies inside
        the block leaves an allowance that settles itself at the end of ``lifetime``.
        """
        workflow_id = allowance_id or f"allowance-{uuid.uuid4().hex}"
        start = AllowanceStart(
            mandate_id=self._mandate_id,
            agent=self._agent,
            seller=seller,
            budget=budget,
            max_price=max_price,
            rails=self._rails,
            lifetime_seconds=int(lifetime.total_seconds()),
            session_id=self._session_id,
            turn_id=self._turn_id,
        )
        handle = await self._client.start_workflow(
            ALLOWANCE_WORKFLOW,
            {"start": start.model_dump(mode="json")},
            id=workflow_id,
            task_queue=self._task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )
        self._allowances[seller] = workflow_id
        try:
            yield workflow_id
        finally:
            del self._allowances[seller]
            try:
                await handle.signal("settle", {"by": self._agent})
            except RPCError as error:  # it has ended and settled by itself
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise

    async def settled(self, allowance_id: str) -> AllowanceView:
        """The final balance of an allowance, once it is settled."""
        handle: WorkflowHandle[Any, Any] = self._client.get_workflow_handle(
            allowance_id, result_type=AllowanceView
        )
        view: AllowanceView = await handle.result()
        return view

    async def _pay_within(
        self,
        allowance_id: str,
        request: PaidHttpRequest,
        first_answer: tuple[tuple[str, str], ...],
        payment_id: str | None,
    ) -> Paid:
        key = payment_id or uuid.uuid4().hex
        payment = AllowancePayment(key=key, request=request, first_answer=first_answer)
        handle: WorkflowHandle[Any, Any] = self._client.get_workflow_handle(allowance_id)
        try:
            answer: AllowanceAnswer = await handle.execute_update(
                "pay", payment, id=f"pay-{key}", result_type=AllowanceAnswer
            )
        except WorkflowUpdateFailedError as failed:
            cause = failed.cause
            rule = (cause.type if isinstance(cause, ApplicationError) else None) or "AllowanceFailed"
            raise PaymentRefusedError(rule, str(cause), "no", f"{allowance_id}:{key}") from None
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            raise PaymentRefusedError(
                "AllowanceClosed", "the allowance has ended; open a new one", "no", f"{allowance_id}:{key}"
            ) from None
        if answer.answer is None:
            refusal = answer.refusal
            rule, message = (refusal.rule, refusal.message) if refusal else ("no_answer", "no answer came")
            raise PaymentRefusedError(rule, message, answer.money_moved, f"{allowance_id}:{key}")
        response = self._response(answer.answer, request)
        return Paid(response, answer.receipt, f"{allowance_id}:{key}", answer.money_moved)

    def _response(self, answer: HttpAnswer, request: PaidHttpRequest) -> httpx.Response:
        content = base64.b64decode(answer.body_base64)
        if answer.body_ref is not None:
            if self._answers is None:
                raise LookupError(
                    f"the answer ({answer.body_bytes} bytes) lies in the workers' answer store as "
                    f"{answer.body_ref}; give Payer the folder as answers="
                )
            content = (self._answers / answer.body_ref).read_bytes()
        headers = [(name, value) for name, value in answer.headers if name.lower() not in _BODY_HEADERS]
        return httpx.Response(
            answer.status,
            headers=headers,
            content=content,
            request=httpx.Request(request.method, request.url),
        )


class PayingTransport(httpx.AsyncBaseTransport):
    """Lets existing httpx code pay without knowing it.

        httpx.AsyncClient(transport=PayingTransport(payer, max_price=Money(amount=50, currency="usd")))

    A 402 is paid at most once, up to ``max_price``; when it isn't paid, the caller gets
    :class:`PaymentRefusedError`. Redirects stay with the client: a request that it sends to
    another origin is a request of its own, with its own price.
    """

    def __init__(
        self, payer: Payer, *, max_price: Money, inner: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._payer = payer
        self._max_price = max_price
        self._inner = inner or httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request, and pays where the answer is 402."""
        content = await request.aread()
        response = await self._inner.handle_async_request(request)
        if response.status_code != 402:
            return response
        await response.aclose()
        wanted = PaidHttpRequest(
            url=str(request.url),
            method=request.method,
            headers=tuple((n, v) for n, v in request.headers.multi_items() if n not in _UNSENT_HEADERS),
            body_base64=base64.b64encode(content).decode(),
        )
        paid = await self._payer.pay(
            wanted,
            tuple(response.headers.multi_items()),
            max_price=self._max_price,
            payment_id=request.extensions.get(PAYMENT_ID_EXTENSION),
        )
        return paid.response

    async def aclose(self) -> None:
        """Closes the inner transport."""
        await self._inner.aclose()


def _origin(url: str) -> str:
    parsed = httpx.URL(url)
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    default = {"http": 80, "https": 443}.get(parsed.scheme)
    port = "" if parsed.port in (None, default) else f":{parsed.port}"
    return f"{parsed.scheme}://{host}{port}".lower()
