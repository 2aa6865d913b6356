"""A paywall for FastAPI: price a route, accept MPP and x402, charge once, deliver for sure.

    paywall = Paywall(realm="api.example.com", secret_key=..., journal=SqliteJournal("paid.db"),
                      rails=[StripeRail(client, network_id="bn_…")])

    @app.get("/reports/{topic}")
    @paywall.charge(Money(amount=50, currency="usd"))
    async def report(topic: str) -> Report: ...

What it promises: nothing runs while unpaid; a challenge is written down before it
is charged; one challenge is charged at most once, whatever crashes; whoever paid
gets the answer, the same one again for the same credential, also after a restart;
where nobody knows whether money moved, the client is told so and is *not* asked
to pay again.
"""

import asyncio
import base64
import functools
import hashlib
import inspect
import logging
import secrets
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import rfc8785
from fastapi import HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute, serialize_response
from mpp import Receipt as MppReceipt
from pydantic import JsonValue

from waystation.models.base import JsonObject
from waystation.models.money import Money
from waystation.models.payments import HeaderPair, Rail
from waystation.protocols import http402
from waystation.protocols.http402 import (
    InvalidChallenge,
    MalformedCredential,
    RedeemedChallenge,
    RequestScope,
    WireError,
)
from waystation.seller.paywall.entries import Entry, EntryState, Lease, StoredAnswer
from waystation.seller.paywall.forms import KEPT
from waystation.seller.paywall.journal import Journal
from waystation.seller.paywall.rails import (
    BadPayment,
    PaymentPayload,
    Refused,
    SellerRail,
    Settled,
    Unclear,
    X402Rail,
    rail_of,
)

logger = logging.getLogger(__name__)

CHALLENGE_LIFETIME_SECONDS = 300
LEASE_SECONDS = 15
WAIT_FOR_OTHER_WORKER_SECONDS = 30
POLL_OTHER_WORKER_SECONDS = 0.05
MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""A larger answer can't be kept for a second delivery, and so can't be sold."""
MIN_SECRET_CHARACTERS = 32
RETRY_AFTER_SECONDS = 2

Price = Money | Sequence[Money] | None
"""One amount, the same thing in several currencies, or None for free."""
PriceFunction = Callable[[Request], Price | Awaitable[Price]]
Endpoint = Callable[..., object]
Handler = Callable[[], Awaitable[Response]]

# Headers of one hop or one client, which have no place in a recorded answer.
_UNRECORDED_HEADERS = frozenset(
    {"content-length", "date", "server", "connection", "transfer-encoding", "set-cookie"}
)


@dataclass(frozen=True, slots=True)
class _Presented:
    """A credential proven to fit this request, with the rail that can charge it."""

    challenge: RedeemedChallenge
    rail: SellerRail
    price: Money
    payment: PaymentPayload
    key: str
    fingerprint: str


class _Turned(Exception):
    """The request is answered without the handler."""

    def __init__(self, slug: str, status: int, detail: str) -> None:
        super().__init__(detail)
        self.slug, self.status, self.detail = slug, status, detail


class Paywall:
    """Prices routes and takes payments for them. One per process, sharing journal and secret."""

    def __init__(
        self,
        *,
        realm: str,
        secret_key: str,
        journal: Journal,
        rails: Sequence[SellerRail],
        challenge_seconds: int = CHALLENGE_LIFETIME_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        wait_seconds: float = WAIT_FOR_OTHER_WORKER_SECONDS,
        public_url: str | None = None,
    ) -> None:
        """``realm`` and ``secret_key`` must be the same in every replica.

        ``public_url`` is the scheme and host that clients see, for x402's
        ``resource.url`` behind a proxy. Raises ValueError for a short secret.
        """
        if len(secret_key) < MIN_SECRET_CHARACTERS:
            raise ValueError(f"secret_key needs at least {MIN_SECRET_CHARACTERS} characters")
        if not rails:
            raise ValueError("a paywall needs at least one rail")
        self.realm = realm
        self.journal = journal
        self._secret_key = secret_key
        self._rails = tuple(rails)
        self._challenge_lifetime = timedelta(seconds=challenge_seconds)
        self._lease = timedelta(seconds=lease_seconds)
        self._wait_seconds = wait_seconds
        self._public_url = public_url.rstrip("/") if public_url else None
        self._owner = uuid.uuid4().hex
        self._running: dict[str, asyncio.Task[Entry]] = {}

    # --- what a merchant writes ---------------------------------------------------------

    def charge(self, price: Money | Sequence[Money] | PriceFunction) -> Callable[[Endpoint], Endpoint]:
        """Decorates a FastAPI endpoint: it runs once for each payment of ``price``.

        FastAPI validates the request and resolves dependencies first, so a bad
        request costs nothing. A function is asked for the price of each request;
        None means free. Routes that take forms need the middleware
        :class:`~waystation.seller.paywall.forms.KeepForms`.
        """

        def decorate(endpoint: Endpoint) -> Endpoint:
            return _with_request(endpoint, functools.partial(self._serve, price))

        return decorate

    async def reconcile(self, *, older_than: timedelta = timedelta(minutes=2)) -> int:
        """Settles the question for charges whose outcome is unknown; how many were found charged.

        Run it now and then. Looks at the processor, charges nothing.
        """
        found = 0
        now = datetime.now(UTC)
        for entry in await self.journal.in_state(EntryState.CLAIMED, created_before=now - older_than):
            rail = self._rail_for(entry)
            if rail is None or entry.held_by_other("", now):
                continue
            outcome = await rail.find(entry)
            if isinstance(outcome, Settled):
                found += await self.journal.replace(entry.charged(outcome.charge))
        return found

    async def undelivered(self) -> Sequence[Entry]:
        """Payments that were charged and whose answer is still owed: refund them, or wait."""
        return await self.journal.in_state(EntryState.CHARGED, created_before=datetime.now(UTC))

    async def close(self) -> None:
        """Waits for what is under way and closes the journal."""
        if self._running:
            await asyncio.wait(list(self._running.values()))
        await self.journal.close()

    def _rail_for(self, entry: Entry) -> SellerRail | None:
        for rail in self._rails:
            if (rail.currency, rail.payee) == (entry.price.currency, entry.payee):
                return rail
        return None

    # --- one request --------------------------------------------------------------------

    async def _serve(
        self, price: Money | Sequence[Money] | PriceFunction, request: Request, handler: Handler
    ) -> Response:
        scope = RequestScope(
            method=request.method,
            path=request.scope["path"],
            query=request.scope["query_string"].decode("latin-1"),
            body=await _body(request),
        )
        try:
            presented = self._authenticate(request, scope)
        except _Turned as turned:
            return await self._turn_away(turned, price, request, scope)
        if presented is not None:
            return await self._redeem(presented, price, request, scope, handler)
        prices = await _resolve(price, request)
        if not prices:
            return await handler()
        return self._ask(prices, request, scope, _Turned("payment-required", 402, "Payment is required."))

    def _authenticate(self, request: Request, scope: RequestScope) -> _Presented | None:
        authorization = _payment_authorization(request)
        signature = request.headers.get(http402.PAYMENT_SIGNATURE)
        secret_key, realm = self._secret_key, self.realm
        try:
            if authorization is not None:
                challenge = http402.read_mpp_credential(
                    authorization, secret_key=secret_key, realm=realm, scope=scope
                )
            elif signature is not None:
                challenge = http402.read_x402_credential(
                    signature, secret_key=secret_key, realm=realm, scope=scope
                )
            else:
                return None
            return self._match(challenge)
        except MalformedCredential as error:
            raise _Turned("malformed-credential", 402, str(error)) from None
        except InvalidChallenge as error:
            raise _Turned("invalid-challenge", 402, str(error)) from None
        except (BadPayment, WireError) as error:
            raise _Turned("verification-failed", 402, str(error)) from None

    def _match(self, challenge: RedeemedChallenge) -> _Presented:
        price_amount = http402.parse_amount(challenge.terms.get("amount"))
        for rail in self._rails:
            price = Money(amount=price_amount, currency=rail.currency)
            if challenge.method == "x402":
                if not isinstance(rail, X402Rail) or rail.x402_terms(price) != challenge.terms:
                    continue
                payment = rail.read_x402(challenge.payload, price)
            else:
                if rail.mpp_method != challenge.method or rail.mpp_request(price) != challenge.terms:
                    continue
                payment = rail.read_mpp(challenge.id, self.realm, challenge.payload, price)
            proof = hashlib.sha256(rfc8785.dumps(challenge.payload)).hexdigest()
            return _Presented(challenge, rail, price, payment, payment.journal_key or challenge.id, proof)
        raise InvalidChallenge("the challenge's terms aren't offered here any more")

    async def _redeem(
        self,
        presented: _Presented,
        price: Money | Sequence[Money] | PriceFunction,
        request: Request,
        scope: RequestScope,
        handler: Handler,
    ) -> Response:
        try:
            entry = await self._join_or_start(presented, scope, handler)
        except _Turned as turned:
            return await self._turn_away(turned, price, request, scope)
        if entry.state is EntryState.REFUSED:
            refusal = _Turned("verification-failed", 402, f"No money moved: {entry.refusal}.")
            return await self._turn_away(refusal, price, request, scope)
        if entry.state is EntryState.DELIVERED:
            return _deliver(entry)
        return _owed(entry)

    async def _join_or_start(self, presented: _Presented, scope: RequestScope, handler: Handler) -> Entry:
        """One task for each payment in this process; it outlives a client that hangs up."""
        running = self._running.get(presented.key)
        if running is None:
            running = asyncio.create_task(self._settle_and_deliver(presented, scope, handler))
            self._running[presented.key] = running
            running.add_done_callback(lambda _: self._running.pop(presented.key, None))
            return await asyncio.shield(running)
        entry = await asyncio.shield(running)
        self._check_same(entry, presented, scope)
        return entry

    # --- one payment --------------------------------------------------------------------

    async def _settle_and_deliver(
        self, presented: _Presented, scope: RequestScope, handler: Handler
    ) -> Entry:
        deadline = asyncio.get_running_loop().time() + self._wait_seconds
        entry = await self.journal.load(presented.key)
        while True:
            if entry is None:
                entry = await self._claim(presented, scope)
            self._check_same(entry, presented, scope)
            if entry.finished:
                return entry
            taken = await self._take(entry)
            if taken is not None:
                return await _Work(self, taken, presented, handler, self._lease).run()
            if asyncio.get_running_loop().time() > deadline:
                return entry
            await asyncio.sleep(POLL_OTHER_WORKER_SECONDS)
            entry = await self.journal.load(presented.key)

    async def _claim(self, presented: _Presented, scope: RequestScope) -> Entry:
        now = datetime.now(UTC)
        if presented.challenge.expires_at <= now:
            raise _Turned("payment-expired", 402, "The challenge expired before it was paid.")
        try:
            presented.payment.check_valid(now)
        except BadPayment as error:
            raise _Turned("verification-failed", 402, str(error)) from None
        entry = Entry(
            key=presented.key,
            challenge_id=presented.challenge.id,
            fingerprint=presented.fingerprint,
            scope=scope.digest(self.realm),
            route=f"{scope.method} {scope.path}",
            rail=rail_of(presented.challenge.method),
            price=presented.price,
            payee=presented.rail.payee,
            created_at=now,
        )
        await self._keep_name(entry, presented)
        if await self.journal.insert(entry):
            return entry
        found = await self.journal.load(presented.key)
        if found is None:
            raise RuntimeError("a paywall entry vanished; the journal lost a write")
        return found

    async def _keep_name(self, entry: Entry, presented: _Presented) -> None:
        """One identifier is one payment (x402 ``payment-identifier``): another one under it is a conflict."""
        identifier = presented.challenge.identifier
        if identifier is None or presented.payment.payer is None:
            return
        named = entry.named(identifier, presented.payment.payer)
        if await self.journal.insert(named):
            return
        known = await self.journal.load(named.key)
        if known is not None and known.fingerprint != presented.fingerprint:
            raise _Turned("identifier-conflict", 409, "This payment identifier was used for another payment.")

    async def _take(self, entry: Entry) -> Entry | None:
        now = datetime.now(UTC)
        if entry.held_by_other(self._owner, now):
            return None
        taken = entry.taken(self.new_lease())
        return taken if await self.journal.replace(taken) else None

    def new_lease(self) -> Lease:
        """A lease for this process from now on."""
        return Lease(owner=self._owner, until=datetime.now(UTC) + self._lease)

    @staticmethod
    def _check_same(entry: Entry, presented: _Presented, scope: RequestScope) -> None:
        """A challenge pays once, with one proof, for one request."""
        same_proof = entry.fingerprint == presented.fingerprint
        if same_proof and entry.challenge_id == presented.challenge.id:
            return
        if entry.state is EntryState.REFUSED and not same_proof:
            raise _Turned("invalid-challenge", 402, "The challenge was refused with another credential.")
        raise _Turned("verification-failed", 403, "This payment was already used; paying again won't help.")

    # --- answers ------------------------------------------------------------------------

    async def _turn_away(
        self,
        turned: _Turned,
        price: Money | Sequence[Money] | PriceFunction,
        request: Request,
        scope: RequestScope,
    ) -> Response:
        if turned.status == 402:
            prices = await _resolve(price, request)
            if prices:
                return self._ask(prices, request, scope, turned)
        return _problem(turned.slug, 403 if turned.status == 402 else turned.status, turned.detail)

    def _ask(
        self, prices: Sequence[Money], request: Request, scope: RequestScope, turned: _Turned
    ) -> Response:
        """A 402 with every way to pay."""
        response = _problem(turned.slug, 402, turned.detail)
        expires_at = datetime.now(UTC) + self._challenge_lifetime
        accepts: list[JsonValue] = []
        for rail, price in self._payable(prices):
            challenge = http402.issue_mpp_challenge(
                secret_key=self._secret_key,
                realm=self.realm,
                method=rail.mpp_method,
                request=rail.mpp_request(price),
                scope=scope,
                expires_at=expires_at,
                nonce=secrets.token_hex(16),
            )
            response.headers.append("www-authenticate", challenge)
            if isinstance(rail, X402Rail):
                terms = rail.x402_terms(price)
                accepts.append(self._bind_x402(terms, scope, expires_at))
        if accepts:
            required: JsonObject = {
                "x402Version": http402.X402_VERSION,
                "error": turned.detail,
                "resource": {"url": self._resource_url(request)},
                "accepts": accepts,
                "extensions": http402.x402_extensions(),
            }
            response.headers["payment-required"] = http402.encode_json_header(required)
        return response

    def _bind_x402(self, terms: JsonObject, scope: RequestScope, expires_at: datetime) -> JsonObject:
        return http402.bind_x402_terms(
            terms,
            secret_key=self._secret_key,
            realm=self.realm,
            scope=scope,
            expires_at=expires_at,
            nonce=secrets.token_hex(16),
        )

    def _payable(self, prices: Sequence[Money]) -> list[tuple[SellerRail, Money]]:
        payable = [
            (rail, price) for price in prices for rail in self._rails if rail.currency == price.currency
        ]
        if not payable:
            raise ValueError("no rail of this paywall charges the route's currency")
        return payable

    def _resource_url(self, request: Request) -> str:
        if self._public_url is None:
            return str(request.url)
        query = f"?{request.url.query}" if request.url.query else ""
        return f"{self._public_url}{request.url.path}{query}"


class _Work:
    """One worker's hold on one payment: charge if need be, run the handler, record the answer."""

    def __init__(
        self, paywall: Paywall, entry: Entry, presented: _Presented, handler: Handler, lease: timedelta
    ) -> None:
        self._paywall = paywall
        self._entry = entry
        self._presented = presented
        self._handler = handler
        self._renew_seconds = lease.total_seconds() / 3
        self._lock = asyncio.Lock()
        self._lost = False

    async def run(self) -> Entry:
        renewing = asyncio.create_task(self._renew())
        try:
            if self._entry.state is EntryState.CLAIMED:
                await self._charge()
            if self._entry.state is EntryState.CHARGED and not self._lost:
                await self._deliver()
        finally:
            renewing.cancel()
        return self._entry

    async def _charge(self) -> None:
        try:
            outcome = await self._presented.rail.charge(self._entry, self._presented.payment)
        except Exception as error:  # an unforeseen failure says nothing about the money
            logger.exception("charging for challenge %s failed", self._entry.challenge_id)
            outcome = Unclear(type(error).__name__)
        async with self._lock:
            if isinstance(outcome, Settled):
                await self._write(self._entry.charged(outcome.charge))
            elif isinstance(outcome, Refused):
                await self._write(self._entry.refused(outcome.reason))
            else:
                logger.warning(
                    "unclear whether challenge %s was charged: %s", self._entry.challenge_id, outcome.reason
                )
                await self._write(self._entry.left_unclear(outcome.reason))

    async def _deliver(self) -> None:
        answer = await self._run_handler()
        async with self._lock:
            if answer is None:
                await self._write(self._entry.undelivered())
            else:
                await self._write(self._entry.delivered(answer))

    async def _run_handler(self) -> StoredAnswer | None:
        """The handler's answer, or None when it failed and must run again for a resend."""
        try:
            response = await self._handler()
        except HTTPException as error:
            response = JSONResponse({"detail": error.detail}, error.status_code, error.headers)
        except Exception:
            logger.exception("paid handler %s failed; the answer is still owed", self._entry.route)
            return None
        if response.status_code >= 500:
            logger.error("paid handler %s answered %d", self._entry.route, response.status_code)
            return None
        try:
            return await _record(response)
        except ValueError:
            logger.exception("the answer of %s can't be kept", self._entry.route)
            return None

    async def _write(self, entry: Entry) -> None:
        if self._lost:
            return
        if await self._paywall.journal.replace(entry):
            self._entry = entry
            return
        # The lease ran out and another worker went on; its word counts.
        self._lost = True
        current = await self._paywall.journal.load(entry.key)
        if current is not None:
            self._entry = current

    async def _renew(self) -> None:
        while not self._lost and not self._entry.finished:
            await asyncio.sleep(self._renew_seconds)
            async with self._lock:
                if self._entry.lease is not None and not self._entry.finished:
                    await self._write(self._entry.renewed(self._paywall.new_lease()))


# --- small helpers --------------------------------------------------------------------------


def _with_request(endpoint: Endpoint, serve: Callable[[Request, Handler], Awaitable[Response]]) -> Endpoint:
    """Wraps an endpoint so that FastAPI hands over the request besides its own parameters."""
    signature = inspect.signature(endpoint, eval_str=True)
    own = next((name for name, p in signature.parameters.items() if p.annotation is Request), None)
    injected = own or "paywall_request"

    @functools.wraps(endpoint)
    async def wrapper(**values: object) -> Response:
        request = values[injected]
        if not isinstance(request, Request):
            raise TypeError(f"FastAPI hands over a request as {injected}, not {type(request).__name__}")
        if own is None:
            del values[injected]

        async def handler() -> Response:
            if inspect.iscoroutinefunction(endpoint):
                result: object = await endpoint(**values)
            else:
                result = await asyncio.to_thread(endpoint, **values)
            return await _to_response(result, request)

        return await serve(request, handler)

    parameters = list(signature.parameters.values())
    if own is None:
        kind = inspect.Parameter.KEYWORD_ONLY
        variadic = [p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
        plain = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
        parameters = [*plain, inspect.Parameter(injected, kind, annotation=Request), *variadic]
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return wrapper


async def _to_response(result: object, request: Request) -> Response:
    """What FastAPI would answer: through the route's response model, status and class."""
    if isinstance(result, Response):
        return result
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return JSONResponse(result)
    content = await serialize_response(
        field=route.response_field,
        response_content=result,
        include=route.response_model_include,
        exclude=route.response_model_exclude,
        by_alias=route.response_model_by_alias,
        exclude_unset=route.response_model_exclude_unset,
        exclude_defaults=route.response_model_exclude_defaults,
        exclude_none=route.response_model_exclude_none,
    )
    return JSONResponse(content, route.status_code or 200)


async def _body(request: Request) -> bytes:
    """What the client sent, byte for byte: a payment is bound to it."""
    kept: bytes | None = request.scope.get(KEPT)
    if kept is not None:
        return kept
    try:
        return await request.body()
    except RuntimeError:  # FastAPI has read a form already
        raise RuntimeError(
            "a paid route with a form needs the middleware KeepForms of waystation.seller.paywall.forms"
        ) from None


async def _resolve(price: Money | Sequence[Money] | PriceFunction, request: Request) -> Sequence[Money]:
    if callable(price):
        found = price(request)
        resolved: Price = await found if inspect.isawaitable(found) else found
    else:
        resolved = price
    if resolved is None:
        return ()
    return (resolved,) if isinstance(resolved, Money) else tuple(resolved)


def _payment_authorization(request: Request) -> str | None:
    for value in request.headers.getlist("authorization"):
        for part in value.split(","):
            if part.strip().lower().startswith("payment "):
                return part.strip()
    return None


async def _record(response: Response) -> StoredAnswer:
    """The whole answer, streamed ones included. Raises ValueError when it is too large to keep."""
    body = bytearray()
    iterator = getattr(response, "body_iterator", None)
    if iterator is None:
        body += response.body
    else:
        async for chunk in iterator:
            body += chunk.encode(response.charset) if isinstance(chunk, str) else chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise ValueError(f"a paid answer may have at most {MAX_ANSWER_BYTES} bytes")
    if len(body) > MAX_ANSWER_BYTES:
        raise ValueError(f"a paid answer may have at most {MAX_ANSWER_BYTES} bytes")
    headers = tuple(
        (name, value) for name, value in response.headers.items() if name.lower() not in _UNRECORDED_HEADERS
    )
    return StoredAnswer(
        status=response.status_code, headers=headers, body_base64=base64.b64encode(bytes(body)).decode()
    )


def _deliver(entry: Entry) -> Response:
    """The recorded answer with its receipt; byte for byte the same at every call."""
    if entry.answer is None:
        raise RuntimeError("a delivered entry has an answer")
    response = Response(base64.b64decode(entry.answer.body_base64), entry.answer.status)
    for name, value in entry.answer.headers:
        response.headers[name] = value
    response.headers["cache-control"] = "private, no-store"
    if 200 <= entry.answer.status < 300:
        for name, value in _receipt_headers(entry):
            response.headers[name] = value
    return response


def _receipt_headers(entry: Entry) -> list[HeaderPair]:
    charge = entry.charge
    if charge is None:
        raise RuntimeError("a delivered entry has a charge")
    if entry.rail is Rail.X402_EXACT:
        if charge.network is None:
            raise RuntimeError("an x402 charge names its network")
        settled: JsonObject = {
            "success": True,
            "transaction": charge.reference,
            "network": charge.network,
            "amount": str(entry.price.amount),
        }
        if charge.payer is not None:
            settled["payer"] = charge.payer
        return [("payment-response", http402.encode_json_header(settled))]
    method = "stripe" if entry.rail is Rail.MPP_STRIPE else "evm"
    receipt = MppReceipt.success(charge.reference, timestamp=charge.charged_at, method=method)
    return [("payment-receipt", receipt.to_payment_receipt())]


def _owed(entry: Entry) -> Response:
    """Neither paid for certain nor delivered: say so, ask for no new payment."""
    if entry.state is EntryState.CHARGED:
        detail = "The payment was taken but the answer isn't ready. Send the same credential again."
        slug = "delivery-pending"
    else:
        detail = "It isn't known yet whether the payment was taken. Send the same credential again."
        slug = "internal-payment-error"
    response = _problem(slug, 500, detail)
    response.headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    return response


def _problem(slug: str, status: int, detail: str) -> Response:
    content = http402.problem(slug, status, detail)
    headers = {"cache-control": "no-store"}
    return JSONResponse(content, status, headers, media_type="application/problem+json")
