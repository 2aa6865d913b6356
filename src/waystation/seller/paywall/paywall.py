"""A paywall for FastAPI: price a route, accept MPP and x402, charge once, always deliver.

    paywall = Paywall(realm="api.example.com", secret_key=..., journal=SqliteJournal("paid.db"),
                      rails=[StripeRail(client, network_id="bn_…")])

    @app.get("/reports/{topic}")
    @paywall.charge(Money(amount=50, currency="usd"))
    async def report(topic: str) -> Report: ...

What it promises: nothing runs while unpaid; nothing is charged but what the request
costs when it is paid; a challenge is written down before it is charged; one challenge
is charged at most once, whatever crashes; whoever paid gets the answer, the same one
again for the same credential, also after a restart; if nobody knows whether money
moved, the client is told so and is *not* asked to pay again.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from fastapi import Response

from waystation.models.money import Money
from waystation.protocols import http402
from waystation.protocols.http402 import (
    InvalidChallenge,
    MalformedCredential,
    RedeemedChallenge,
    RequestScope,
    WireError,
)
from waystation.seller.paywall.answers import delivered, failed_x402, owed, passed_on, unkept
from waystation.seller.paywall.asking import Asking, TurnedAway, Visit
from waystation.seller.paywall.bookkeeping import Bookkeeping
from waystation.seller.paywall.endpoints import (
    Call,
    Endpoint,
    body_of,
    is_preflight,
    payment_authorization,
    with_call,
)
from waystation.seller.paywall.entries import Entry, EntryState
from waystation.seller.paywall.journal import Journal
from waystation.seller.paywall.names import Names, idempotency_name, identifier_name
from waystation.seller.paywall.pricing import Pricing, headers_digest, prices_of
from waystation.seller.paywall.rails import (
    BadPayment,
    SellerRail,
    X402Rail,
    rail_of,
)
from waystation.seller.paywall.recording import LargeAnswer
from waystation.seller.paywall.refunds import RefundRule, never, on_client_error
from waystation.seller.paywall.work import Leases, Presented, Work

CHALLENGE_LIFETIME_SECONDS = 300
LEASE_SECONDS = 15
WAIT_FOR_OTHER_WORKER_SECONDS = 30
POLL_OTHER_WORKER_SECONDS = 0.05
MIN_SECRET_CHARACTERS = 32


class _CostsNothing(Exception):
    """The request has become free since it was asked to pay: it is served, and its credential is not used."""


class Paywall(Bookkeeping):
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
        super().__init__(journal, rails)
        self.realm = realm
        self._secret_key = secret_key
        self._challenge_lifetime = timedelta(seconds=challenge_seconds)
        self._public_url = public_url
        self._leases = Leases(timedelta(seconds=lease_seconds))
        self._wait_seconds = wait_seconds
        self._names = Names(journal)
        self._running: dict[str, asyncio.Task[Entry]] = {}

    # What a merchant writes

    def charge(self, price: Pricing, *, refund_errors: bool = False) -> Callable[[Endpoint], Endpoint]:
        """Decorates a FastAPI endpoint: it runs once for each payment of ``price``.

        FastAPI validates the request and resolves dependencies first, so a bad
        request costs nothing. A function is asked for the price of each request,
        when it is asked to pay and again when it pays; None means free. Routes
        that take forms need the middleware ``KeepForms``.

        With ``refund_errors``, an answer from 400 to 499 gives the money back
        (but 402, 408, 425 and 429 say "not now": the handler runs again).
        """
        rule = on_client_error if refund_errors else never

        def decorate(endpoint: Endpoint) -> Endpoint:
            async def serve(call: Call) -> object:
                return await self._serve(price, rule, call)

            return with_call(endpoint, serve)

        return decorate

    async def close(self) -> None:
        """Waits for work in progress and closes the journal."""
        if self._running:
            await asyncio.wait(list(self._running.values()))
        await self.journal.close()

    # One request

    async def _serve(self, pricing: Pricing, refund_rule: RefundRule, call: Call) -> object:
        request = call.request
        if is_preflight(request):
            return Response(status_code=204)  # grants nothing: what is allowed is the app's to say
        scope = RequestScope(
            method=request.method,
            path=request.scope["path"],
            query=request.scope["query_string"].decode("latin-1"),
            body=await body_of(request),
        )
        visit = Visit(request, scope, headers_digest(request), await prices_of(pricing, request))
        try:
            presented = self._authenticate(visit)
            if presented is not None:
                return await self._redeem(presented, visit, call, refund_rule)
        except TurnedAway as turned:
            return self._asking().turn_away(turned, visit)
        except _CostsNothing:
            return await call.result()
        if visit.prices:
            unpaid = TurnedAway("payment-required", 402, "Payment is required.")
            return self._asking().turn_away(unpaid, visit)
        return await call.result()

    def _asking(self) -> Asking:
        return Asking(self.realm, self._secret_key, self._rails, self._challenge_lifetime, self._public_url)

    def _authenticate(self, visit: Visit) -> Presented | None:
        authorization = payment_authorization(visit.request)
        signature = visit.request.headers.get(http402.PAYMENT_SIGNATURE)
        secret_key, realm = self._secret_key, self.realm
        try:
            if authorization is not None:
                challenge = http402.read_mpp_credential(
                    authorization, secret_key=secret_key, realm=realm, scope=visit.scope
                )
            elif signature is not None:
                challenge = http402.read_x402_credential(
                    signature, secret_key=secret_key, realm=realm, scope=visit.scope
                )
            else:
                return None
            return self._match(challenge)
        except MalformedCredential as error:
            raise TurnedAway("malformed-credential", 402, str(error)) from None
        except InvalidChallenge as error:
            raise TurnedAway("invalid-challenge", 402, str(error)) from None
        except (BadPayment, WireError) as error:
            raise TurnedAway("verification-failed", 402, str(error)) from None

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
            return Presented(challenge, rail, price, payment, payment.journal_key or challenge.id)
        raise InvalidChallenge("the challenge's terms aren't offered here any more")

    async def _redeem(
        self, presented: Presented, visit: Visit, call: Call, refund_rule: RefundRule
    ) -> Response:
        try:
            return await self._answer(presented, visit, call, refund_rule)
        except TurnedAway as turned:
            if presented.challenge.method == "x402" and turned.status == 402:
                turned.headers |= failed_x402(turned.slug, str(presented.challenge.terms["network"]))
            raise

    async def _answer(
        self, presented: Presented, visit: Visit, call: Call, refund_rule: RefundRule
    ) -> Response:
        """Runs one task per payment in this process. It continues if the client disconnects."""
        while (running := self._running.get(presented.key)) is not None:
            await asyncio.wait({running})
            entry = await self.journal.load(presented.key)
            if entry is not None and (not entry.unkept or presented.expired):
                self._check_same(entry, presented, visit)
                return _response(entry, presented, None)
        work = Work(self.journal, self._leases, presented, call, refund_rule)
        task = asyncio.create_task(self._settle_and_deliver(work, presented, visit))
        self._running[presented.key] = task
        task.add_done_callback(lambda done: self._ended(presented.key, done))
        try:
            waiting: set[asyncio.Future[Entry] | asyncio.Future[tuple[Entry, LargeAnswer]]] = {
                task,
                work.large,
            }
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            work.abandon()
            raise
        if work.large.done():
            return passed_on(*work.large.result())
        return _response(task.result(), presented, work.retry_after)

    def _ended(self, key: str, task: asyncio.Task[Entry]) -> None:
        if self._running.get(key) is task:
            del self._running[key]

    # One payment

    async def _settle_and_deliver(self, work: Work, presented: Presented, visit: Visit) -> Entry:
        deadline = asyncio.get_running_loop().time() + self._wait_seconds
        entry = await self.journal.load(presented.key)
        while True:
            if entry is None:
                entry = await self._claim(presented, visit)
                if entry.key != presented.key:
                    return entry  # what the payer's name for this payment has paid for already
            self._check_same(entry, presented, visit)
            if entry.finished or (entry.unkept and presented.expired):
                return entry
            taken = await self._take(entry)
            if taken is not None:
                return await work.run(taken)
            if asyncio.get_running_loop().time() > deadline:
                return entry
            await asyncio.sleep(POLL_OTHER_WORKER_SECONDS)
            entry = await self.journal.load(presented.key)

    async def _claim(self, presented: Presented, visit: Visit) -> Entry:
        """Writes a payment down before it is charged. Returns what stands in the journal then."""
        now = datetime.now(UTC)
        if not visit.prices:
            raise _CostsNothing
        if presented.price not in visit.prices:
            raise TurnedAway("invalid-challenge", 402, "The request costs another amount now.")
        if presented.expired:
            raise TurnedAway("payment-expired", 402, "The challenge expired before it was paid.")
        try:
            presented.payment.check_valid(now)
        except BadPayment as error:
            raise TurnedAway("verification-failed", 402, str(error)) from None
        entry = Entry(
            key=presented.key,
            challenge_id=presented.challenge.id,
            fingerprint=presented.fingerprint,
            scope=visit.scope.digest(self.realm),
            headers=visit.headers,
            route=f"{visit.scope.method} {visit.scope.path}",
            rail=rail_of(presented.challenge.method),
            price=presented.price,
            payee=presented.rail.payee,
            transfer=presented.payment.transfer,
            created_at=now,
        )
        paid_before = await self._paid_before(entry, presented, visit)
        if paid_before is not None:
            return paid_before
        if await self.journal.insert(entry):
            return entry
        found = await self.journal.load(presented.key)
        if found is None:
            raise RuntimeError("a paywall entry vanished; the journal lost a write")
        return found

    async def _paid_before(self, entry: Entry, presented: Presented, visit: Visit) -> Entry | None:
        """Records the payer's names for a payment. Returns what one of them has paid for already."""
        identifier, payer = presented.challenge.identifier, presented.payment.payer
        if identifier is not None and payer is not None:
            other = await self._names.keep(identifier_name(identifier, payer), entry)
            if other is not None:
                detail = "This payment identifier was used for another payment."
                raise TurnedAway("identifier-conflict", 409, detail)
        key = visit.request.headers.get("idempotency-key")
        if key is None:
            return None
        other = await self._names.keep(idempotency_name(key, entry.scope, payer), entry)
        if other is not None and payer is None:
            detail = "This Idempotency-Key was used for another payment; nothing more was charged. "
            raise TurnedAway("idempotency-conflict", 409, detail + "Send that payment's credential again.")
        return other

    async def _take(self, entry: Entry) -> Entry | None:
        now = datetime.now(UTC)
        if entry.held_by_other(self._leases.owner, now):
            return None
        taken = entry.taken(self._leases.new())
        return taken if await self.journal.replace(taken) else None

    @staticmethod
    def _check_same(entry: Entry, presented: Presented, visit: Visit) -> None:
        """Checks that a challenge pays once, with one proof, for one request at one price."""
        same_proof = entry.fingerprint == presented.fingerprint
        if not same_proof or entry.challenge_id != presented.challenge.id:
            if entry.state is EntryState.REFUSED and not same_proof:
                detail = "The challenge was refused with another credential."
                raise TurnedAway("invalid-challenge", 402, detail)
            detail = "This payment was already used; paying again won't help."
            raise TurnedAway("verification-failed", 403, detail)
        if not entry.finished and entry.price not in visit.prices and entry.headers != visit.headers:
            detail = "This payment was made for a request that cost another amount: send that one again."
            raise TurnedAway("verification-failed", 403, detail)


def _response(entry: Entry, presented: Presented, retry_after: str | None) -> Response:
    """Returns the answer that a payment's entry has for a request with its credential.

    Raises:
        TurnedAway: The payment was refused.
    """
    if entry.state is EntryState.REFUSED:
        raise TurnedAway("verification-failed", 402, f"No money moved: {entry.refusal}.")
    if entry.answer is not None:
        return delivered(entry)
    if entry.unkept and (presented.expired or entry.key != presented.key):
        return unkept(entry)
    return owed(entry, retry_after)
