"""Paying over HTTP for agents: ``fetch``, an httpx transport, and budgets for many small payments.

    payer = Payer(temporal, mandate_id="mandate-1", agent="researcher")
    answer = await payer.fetch("https://api.example/report", max_price=Money(amount=50, currency="usd"))

A request that needs no payment costs one round trip and touches no workflow. Any other is paid by a
``PaidRequest`` workflow, or within an ``Allowance`` if one is open for the seller. Prices, payees and
amounts come only from the server's challenge, never from a model. Nothing is sent to a seller that the
mandate doesn't name, or into a private network.
"""

import asyncio
import base64
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import httpx
from pydantic import ValidationError
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from waystation.buyer.allowance.opening import MeansToPay, OpenAllowance, open_allowance
from waystation.buyer.answers import MAX_STORED_ANSWER_BYTES, AnswerStore
from waystation.buyer.networks import (
    WHOLE_ANSWER_TIMEOUT_SECONDS,
    CheckedTransport,
    Network,
    checked_client,
)
from waystation.buyer.origins import RequestInvalidError, origin_of
from waystation.buyer.outcomes import ID_TAKEN, HolderRefusedError
from waystation.buyer.waiting import answered
from waystation.errors import WaystationError
from waystation.models.mandates import AllowedProtocols, MandateTerms
from waystation.models.money import Money
from waystation.models.payments import (
    MAX_REQUEST_BODY_BASE64_CHARACTERS,
    AllowanceStart,
    AllowanceView,
    HeaderPair,
    HttpAnswer,
    MoneyMoved,
    PaidHttpRequest,
    PaidRequestStart,
    Rail,
    Receipt,
)
from waystation.temporal.calls import ask, result_of
from waystation.temporal.digests import began_with
from waystation.temporal.messages import ALLOWANCE, MANDATE_BALANCE, PAID_REQUEST_DIGEST
from waystation.temporal.names import SESSION_TASK_QUEUE

if TYPE_CHECKING:
    from waystation.buyer.allowance.journal import AllowanceJournal
    from waystation.buyer.credentials import Credentials

PAYMENT_ID_EXTENSION: Final = "waystation.payment_id"
"""httpx request extension that names a payment, so that a repeated request isn't paid twice."""
ALL_RAILS: Final = (Rail.MPP_STRIPE, Rail.X402_EXACT, Rail.MPP_EVM)
_BODY_HEADERS: Final = frozenset({"content-length", "transfer-encoding", "content-encoding"})
_UNSENT_HEADERS: Final = frozenset(
    {"host", "connection", "content-length", "accept-encoding", "transfer-encoding"}
)


class PaymentRefusedError(WaystationError):
    """The request got no answer. ``rule`` is stable; ``money_moved`` is ``no``, ``yes`` or ``unknown``."""

    def __init__(self, rule: str, message: str, money_moved: MoneyMoved, payment_id: str | None) -> None:
        super().__init__(message)
        self.rule = rule
        self.money_moved: MoneyMoved = money_moved
        self.payment_id = payment_id


@dataclass(frozen=True)
class Paid:
    """The answer to a request, and how it was paid for."""

    response: httpx.Response
    receipt: Receipt | None
    payment_id: str | None
    """None if nothing had to be paid."""
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
        allowed_networks: Sequence[Network] = (),
        credentials: "Credentials | None" = None,
        journal: "AllowanceJournal | None" = None,
        transport: httpx.AsyncBaseTransport | None = None,
        before_announcing: Callable[[], Awaitable[None]] | None = None,
        comes_back: Callable[[BaseException], bool] | None = None,
    ) -> None:
        """Takes ``credentials`` and ``journal`` to make the payments of its allowances in this process.

        Both belong to the caller. ``allowed_networks`` are private networks that may be called anyway;
        in tests, ``transport`` replaces the network. ``before_announcing`` is awaited before anything that
        the session shows is begun: a payment, an allowance. ``comes_back`` says of what ends the block of an
        allowance whether the same block is entered again later, perhaps by another process: the allowance
        then stays open for it, at most for its lifetime.
        """
        self._client = client
        self._mandate_id, self._agent = mandate_id, agent
        self._rails = tuple(rails)
        self._task_queue = task_queue
        self._session_id, self._turn_id = session_id, turn_id
        self._owns_transport = transport is None
        self._transport = transport or CheckedTransport(allowed_networks)
        self.allowed_networks = tuple(allowed_networks)
        self._http = checked_client(allowed_networks, transport=self._transport)
        self._answers = AnswerStore(client.data_converter, namespace=client.namespace)
        self._means: MeansToPay | None = None
        if credentials is not None and journal is not None and credentials.can_pay:
            self._means = MeansToPay(credentials, journal, self._answers, self._transport)
        self._allowances: dict[str, list[OpenAllowance]] = {}
        self._opening = asyncio.Lock()
        self._terms: MandateTerms | None = None
        self._before_announcing = before_announcing
        self._comes_back = comes_back

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
        """Makes a request, and pays for it if it must be paid for.

        Pass ``payment_id`` if the same call may be made again (by a retried turn): it is then paid once, and
        a repeat returns the same answer.

        Raises:
            PaymentRefusedError: The request got no answer; names the rule and says whether money moved.
            httpx.HTTPError: The server can't be reached; nothing was paid.
        """
        await self.check_seller(url)
        try:
            response = await self._ask(method, url, headers, content)
        except RequestInvalidError as error:
            raise PaymentRefusedError(error.rule, str(error), "no", payment_id) from None
        if response.status_code != 402:
            return Paid(response, None, None, "no")
        request = _payable(url, method, (headers or {}).items(), content)
        first_answer = tuple(response.headers.multi_items())
        return await self.pay(request, first_answer, max_price=max_price, payment_id=payment_id)

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str] | None, content: bytes
    ) -> httpx.Response:
        """Returns the answer to the bare request, in bounded memory and time; of a 402, only its headers."""
        body = bytearray()
        try:
            async with (
                asyncio.timeout(WHOLE_ANSWER_TIMEOUT_SECONDS),
                self._http.stream(method, url, headers=headers, content=content) as response,
            ):
                if response.status_code == 402:
                    return response
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_STORED_ANSWER_BYTES:
                        raise RequestInvalidError(
                            "answer_too_large", f"the answer is larger than {MAX_STORED_ANSWER_BYTES} bytes"
                        )
        except TimeoutError:
            raise httpx.ReadTimeout(
                f"the answer took longer than {WHOLE_ANSWER_TIMEOUT_SECONDS:.0f} seconds; nothing was paid",
                request=httpx.Request(method, url),
            ) from None
        kept = [(n, v) for n, v in response.headers.multi_items() if n.lower() not in _BODY_HEADERS]
        return httpx.Response(
            response.status_code, headers=kept, content=bytes(body), request=response.request
        )

    async def check_seller(self, url: str) -> None:
        """Checks that the mandate allows this origin, before anything is sent there.

        Raises:
            PaymentRefusedError: ``seller_not_allowed``, ``mandate_not_found``, ``url_invalid``.
        """
        try:
            origin = origin_of(url)
        except RequestInvalidError as error:
            raise PaymentRefusedError(error.rule, str(error), "no", None) from None
        terms = await self._mandate_terms()
        if not {"*", origin} & set(terms.sellers):
            raise PaymentRefusedError(
                "seller_not_allowed", f"the mandate does not allow {origin}; nothing was sent", "no", None
            )

    async def _mandate_terms(self) -> MandateTerms:
        if self._terms is None:
            handle = self._client.get_workflow_handle(self._mandate_id)
            try:
                view = await ask(handle, MANDATE_BALANCE)
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise
                raise PaymentRefusedError(
                    "mandate_not_found", f"there is no mandate {self._mandate_id}; ask for one", "no", None
                ) from None
            self._terms = view.terms  # a mandate's terms never change
        return self._terms

    async def _allowed_rails(self) -> tuple[Rail, ...]:
        """Returns the rails that the mandate allows too; all of them where none is, so that it says why."""
        terms = await self._mandate_terms()
        allowed = [set(one.protocols) for one in terms.constraints if isinstance(one, AllowedProtocols)]
        rails = tuple(rail for rail in self._rails if all(rail.protocol in one for one in allowed))
        return rails or self._rails

    async def pay(
        self,
        request: PaidHttpRequest,
        first_answer: tuple[tuple[str, str], ...],
        *,
        max_price: Money,
        payment_id: str | None = None,
    ) -> Paid:
        """Pays for a request whose 402 answer the caller already has. See ``fetch``."""
        open_here = self._allowances.get(origin_of(request.url))
        if open_here:  # the innermost block's
            return await self._pay_within(open_here[-1], request, first_answer, max_price, payment_id)
        return await self._pay_alone(request, first_answer, max_price, payment_id)

    async def _pay_alone(
        self,
        request: PaidHttpRequest,
        first_answer: tuple[tuple[str, str], ...],
        max_price: Money,
        payment_id: str | None,
    ) -> Paid:
        if self._before_announcing is not None:
            await self._before_announcing()
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
        is_new = payment_id is None  # an id of our own is nobody else's
        view = await answered(self._client, workflow_id, start, task_queue=self._task_queue, is_new=is_new)
        handle = self._client.get_workflow_handle(workflow_id)
        if not is_new and not await began_with(handle, PAID_REQUEST_DIGEST, start, shown=view.start_digest):
            message = f"'{workflow_id}' is another payment, or has other limits; choose another id"
            raise PaymentRefusedError(ID_TAKEN, message, "no", workflow_id)
        if view.answer is None:
            refusal = view.refusal
            rule = refusal.rule if refusal else view.status
            message = refusal.message if refusal else f"the payment is {view.status}"
            raise PaymentRefusedError(rule, message, view.money_moved, workflow_id)
        response = await self._response(view.answer, request)
        return Paid(response, view.receipt, workflow_id, view.money_moved)

    # Budgets

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

        ``seller`` is a web origin (``https://api.example``). If the process dies inside the block, it can
        continue with the same ``allowance_id``; otherwise the allowance settles itself. Blocks with one
        ``allowance_id``, open at the same time, share the allowance, and the last to end settles it. A
        cancellation, whenever it comes, ends the block when what was begun is settled.

        Raises:
            PaymentRefusedError: Another process pays from this allowance, or the id is another allowance's.
        """
        if self._before_announcing is not None:
            await self._before_announcing()
        workflow_id = allowance_id or f"allowance-{uuid.uuid4().hex}"
        start = AllowanceStart(
            mandate_id=self._mandate_id,
            agent=self._agent,
            seller=seller,
            budget=budget,
            max_price=max_price,
            rails=await self._allowed_rails(),
            lifetime_seconds=int(lifetime.total_seconds()),
            session_id=self._session_id,
            turn_id=self._turn_id,
        )
        opening = asyncio.create_task(self._opened(workflow_id, start))
        interrupted = False
        try:
            await _to_its_end(opening)
            yield workflow_id
        except BaseException as error:
            interrupted = self._comes_back is not None and self._comes_back(error)
            raise
        finally:
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                leaving = self._leave(opening.result(), interrupted=interrupted)
                await _to_its_end(asyncio.create_task(leaving))

    async def _leave(self, opened: OpenAllowance, *, interrupted: bool) -> None:
        """Settles an allowance with the last of its blocks, unless that is only interrupted."""
        open_here = self._allowances[opened.start.seller]
        open_here.remove(opened)
        if opened not in open_here:
            await (opened.give_back() if interrupted else opened.settle())

    async def _opened(self, allowance_id: str, start: AllowanceStart) -> OpenAllowance:
        """Returns an allowance, that of an open block if it has this id; it is the seller's innermost now."""
        async with self._opening:  # two blocks that begin at the same time must not both open it
            open_here = self._allowances.setdefault(start.seller, [])
            opened = next((one for one in open_here if one.id == allowance_id and one.start == start), None)
            if opened is None:
                try:
                    opened = await open_allowance(
                        self._client, allowance_id, start, task_queue=self._task_queue, means=self._means
                    )
                except HolderRefusedError as refused:
                    raise PaymentRefusedError(refused.rule, str(refused), "no", allowance_id) from None
            open_here.append(opened)
        return opened

    async def settled(self, allowance_id: str) -> AllowanceView:
        """Returns the final balance of an allowance, once it is settled."""
        return await result_of(self._client, ALLOWANCE, allowance_id)

    async def _pay_within(
        self,
        allowance: OpenAllowance,
        request: PaidHttpRequest,
        first_answer: tuple[tuple[str, str], ...],
        max_price: Money,
        payment_id: str | None,
    ) -> Paid:
        key = payment_id or uuid.uuid4().hex
        name = f"{allowance.id}:{key}"
        try:
            answer = await allowance.pay(request, first_answer, key=key, max_price=max_price)
        except (HolderRefusedError, RequestInvalidError) as refused:
            raise PaymentRefusedError(refused.rule, str(refused), "no", name) from None
        if answer.answer is None:
            refusal = answer.refusal
            rule, message = (refusal.rule, refusal.message) if refusal else ("no_answer", "no answer came")
            raise PaymentRefusedError(rule, message, answer.money_moved, name)
        response = await self._response(answer.answer, request)
        return Paid(response, answer.receipt, name, answer.money_moved)

    async def _response(self, answer: HttpAnswer, request: PaidHttpRequest) -> httpx.Response:
        headers = [(name, value) for name, value in answer.headers if name.lower() not in _BODY_HEADERS]
        return httpx.Response(
            answer.status,
            headers=headers,
            content=await self._answers.body(answer),
            request=httpx.Request(request.method, request.url),
        )


async def _to_its_end(work: "asyncio.Task[object]") -> None:
    """Waits for it, also when this is canceled meanwhile: half opened or half settled, a budget is held."""
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _payable(url: str, method: str, headers: Iterable[HeaderPair], content: bytes) -> PaidHttpRequest:
    """Returns a request as it is paid for.

    Raises:
        PaymentRefusedError: ``request_invalid``, ``request_too_large``; nothing was paid.
    """
    body = base64.b64encode(content).decode()
    if len(body) > MAX_REQUEST_BODY_BASE64_CHARACTERS:
        most = MAX_REQUEST_BODY_BASE64_CHARACTERS // 4 * 3
        raise PaymentRefusedError(
            "request_too_large", f"a request that is paid for has a body of at most {most} bytes", "no", None
        )
    try:
        return PaidHttpRequest(url=url, method=method, headers=tuple(headers), body_base64=body)
    except ValidationError as error:
        said = "; ".join(str(one["msg"]) for one in error.errors(include_input=False))
        raise PaymentRefusedError(
            "request_invalid", f"the request can't be paid for: {said}", "no", None
        ) from None


class PayingTransport(httpx.AsyncBaseTransport):
    """Lets existing httpx code pay without knowing it.

        httpx.AsyncClient(transport=PayingTransport(payer, max_price=Money(amount=50, currency="usd")))

    A 402 is paid at most once, up to ``max_price``; if it isn't paid, the caller gets
    ``PaymentRefusedError``. Redirects are left to the client: a request that it sends to another origin is a
    separate request with its own price. All requests must go to sellers of the mandate; if a client calls
    others too, mount the transport for the mandate's sellers only.
    """

    def __init__(
        self, payer: Payer, *, max_price: Money, inner: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._payer = payer
        self._max_price = max_price
        self._inner = inner or CheckedTransport(payer.allowed_networks)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request, and pays if the answer is 402."""
        await self._payer.check_seller(str(request.url))
        content = await request.aread()
        response = await self._inner.handle_async_request(request)
        if response.status_code != 402:
            return response
        await response.aclose()
        headers = [(n, v) for n, v in request.headers.multi_items() if n not in _UNSENT_HEADERS]
        wanted = _payable(str(request.url), request.method, headers, content)
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
