"""A paywall for FastAPI: price a route, accept MPP and x402, charge once, always deliver.

    paywall = Paywall(realm="api.example.com", secret_key=..., journal=SqliteJournal("paid.db"),
                      rails=[StripeRail(client, network_id="bn_…")])

    @app.get("/reports/{topic}")
    @paywall.charge(Money(amount=50, currency="usd"))
    async def report(topic: str) -> Report: ...

What it promises: nothing runs while unpaid; a challenge is written down before it
is charged; one challenge is charged at most once, whatever crashes; whoever paid
gets the answer, the same one again for the same credential, also after a restart;
if nobody knows whether money moved, the client is told so and is *not* asked
to pay again.
"""

import asyncio
import functools
import hashlib
import inspect
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import rfc8785
from fastapi import Request, Response
from pydantic import JsonValue

from waystation.models.base import JsonObject
from waystation.models.money import Money
from waystation.protocols import http402
from waystation.protocols.http402 import (
    InvalidChallenge,
    MalformedCredential,
    RedeemedChallenge,
    RequestScope,
    WireError,
)
from waystation.seller.paywall.answers import delivered, owed, problem_response
from waystation.seller.paywall.endpoints import (
    Endpoint,
    Handler,
    body_of,
    payment_authorization,
    with_request,
)
from waystation.seller.paywall.entries import Entry, EntryState
from waystation.seller.paywall.journal import Journal
from waystation.seller.paywall.rails import (
    BadPayment,
    SellerRail,
    Settled,
    X402Rail,
    rail_of,
)
from waystation.seller.paywall.work import Leases, Presented, Work

CHALLENGE_LIFETIME_SECONDS = 300
LEASE_SECONDS = 15
WAIT_FOR_OTHER_WORKER_SECONDS = 30
POLL_OTHER_WORKER_SECONDS = 0.05
MIN_SECRET_CHARACTERS = 32

Price = Money | Sequence[Money] | None
"""One amount, the same price in several currencies, or None for free."""
PriceFunction = Callable[[Request], Price | Awaitable[Price]]


class _Turned(Exception):
    """The request is answered without running the handler."""

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
        ``resource.url`` behind a proxy.

        Raises:
            ValueError: ``secret_key`` is too short, or there are no rails.
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
        self._leases = Leases(timedelta(seconds=lease_seconds))
        self._wait_seconds = wait_seconds
        self._public_url = public_url.rstrip("/") if public_url else None
        self._running: dict[str, asyncio.Task[Entry]] = {}

    # What a merchant writes

    def charge(self, price: Money | Sequence[Money] | PriceFunction) -> Callable[[Endpoint], Endpoint]:
        """Decorates a FastAPI endpoint: it runs once for each payment of ``price``.

        FastAPI validates the request and resolves dependencies first, so a bad
        request costs nothing. A function is asked for the price of each request;
        None means free. Routes that take forms need the middleware
        ``KeepForms``.
        """

        def decorate(endpoint: Endpoint) -> Endpoint:
            return with_request(endpoint, functools.partial(self._serve, price))

        return decorate

    async def reconcile(self, *, older_than: timedelta = timedelta(minutes=2)) -> int:
        """Resolves charges whose outcome is unknown. Returns how many turned out to be charged.

        Run it from time to time. It only reads from the processor and charges nothing.
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
        """Returns payments that were charged but not delivered yet: refund them, or wait."""
        return await self.journal.in_state(EntryState.CHARGED, created_before=datetime.now(UTC))

    async def close(self) -> None:
        """Waits for work in progress and closes the journal."""
        if self._running:
            await asyncio.wait(list(self._running.values()))
        await self.journal.close()

    def _rail_for(self, entry: Entry) -> SellerRail | None:
        for rail in self._rails:
            if (rail.currency, rail.payee) == (entry.price.currency, entry.payee):
                return rail
        return None

    # One request

    async def _serve(
        self, price: Money | Sequence[Money] | PriceFunction, request: Request, handler: Handler
    ) -> Response:
        scope = RequestScope(
            method=request.method,
            path=request.scope["path"],
            query=request.scope["query_string"].decode("latin-1"),
            body=await body_of(request),
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

    def _authenticate(self, request: Request, scope: RequestScope) -> Presented | None:
        authorization = payment_authorization(request)
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

    def _match(self, challenge: RedeemedChallenge) -> Presented:
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
            return Presented(challenge, rail, price, payment, payment.journal_key or challenge.id, proof)
        raise InvalidChallenge("the challenge's terms aren't offered here any more")

    async def _redeem(
        self,
        presented: Presented,
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
            return delivered(entry)
        return owed(entry)

    async def _join_or_start(self, presented: Presented, scope: RequestScope, handler: Handler) -> Entry:
        """Runs one task per payment in this process. It continues if the client disconnects."""
        running = self._running.get(presented.key)
        if running is None:
            running = asyncio.create_task(self._settle_and_deliver(presented, scope, handler))
            self._running[presented.key] = running
            running.add_done_callback(lambda _: self._running.pop(presented.key, None))
            return await asyncio.shield(running)
        entry = await asyncio.shield(running)
        self._check_same(entry, presented, scope)
        return entry

    # One payment

    async def _settle_and_deliver(self, presented: Presented, scope: RequestScope, handler: Handler) -> Entry:
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
                return await Work(self.journal, self._leases, taken, presented, handler).run()
            if asyncio.get_running_loop().time() > deadline:
                return entry
            await asyncio.sleep(POLL_OTHER_WORKER_SECONDS)
            entry = await self.journal.load(presented.key)

    async def _claim(self, presented: Presented, scope: RequestScope) -> Entry:
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

    async def _keep_name(self, entry: Entry, presented: Presented) -> None:
        """Records the payer's ``payment-identifier`` (x402): a second payment under it is a conflict."""
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
        if entry.held_by_other(self._leases.owner, now):
            return None
        taken = entry.taken(self._leases.new())
        return taken if await self.journal.replace(taken) else None

    @staticmethod
    def _check_same(entry: Entry, presented: Presented, scope: RequestScope) -> None:
        """Checks that a challenge pays once, with one proof, for one request."""
        same_proof = entry.fingerprint == presented.fingerprint
        if same_proof and entry.challenge_id == presented.challenge.id:
            return
        if entry.state is EntryState.REFUSED and not same_proof:
            raise _Turned("invalid-challenge", 402, "The challenge was refused with another credential.")
        raise _Turned("verification-failed", 403, "This payment was already used; paying again won't help.")

    # Answers

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
        return problem_response(turned.slug, 403 if turned.status == 402 else turned.status, turned.detail)

    def _ask(
        self, prices: Sequence[Money], request: Request, scope: RequestScope, turned: _Turned
    ) -> Response:
        """Returns a 402 with every way to pay."""
        response = problem_response(turned.slug, 402, turned.detail)
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


async def _resolve(price: Money | Sequence[Money] | PriceFunction, request: Request) -> Sequence[Money]:
    if callable(price):
        found = price(request)
        resolved: Price = await found if inspect.isawaitable(found) else found
    else:
        resolved = price
    if resolved is None:
        return ()
    return (resolved,) if isinstance(resolved, Money) else tuple(resolved)
