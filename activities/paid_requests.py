"""Activities of a paid request: ask for the price, mint one credential, send it, learn the truth.

Each is safe to run again: minting is deterministic (same key, same token or
signature), sending repeats the same credential, closing only reads and revokes.
"""

import asyncio
import base64
import contextlib
import functools
import hashlib
import ipaddress
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
from pydantic import SecretStr
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import failures
from activities.payment_tokens import IssueToken, PaymentTokenActivities, RevokeToken, TokenRef
from waystation.models.base import Frozen
from waystation.models.money import Money
from waystation.models.payments import (
    AllowanceAnswer,
    AllowancePayment,
    ClosedCredential,
    HeaderPair,
    HttpAnswer,
    MintedCredential,
    Offer,
    PaidHttpRequest,
    PaymentRefusal,
    ProbeAnswer,
    Rail,
    RedeemAnswer,
)
from waystation.models.purchases import PaymentToken
from waystation.protocols import http402
from waystation.protocols.http402 import WireError
from waystation.protocols.offer_choice import OfferRefused, choose_offer
from waystation.wallet import ChainUnavailableError, Wallet

CONNECT_TIMEOUT_SECONDS: Final = 10.0
READ_TIMEOUT_SECONDS: Final = 40.0
"""A server settles within its answer, and stock servers wait 30 seconds for that."""
WHOLE_ANSWER_TIMEOUT_SECONDS: Final = 55.0
"""However slowly the bytes drip."""
MAX_INLINE_ANSWER_BYTES: Final = 256 * 1024
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
MAX_ANSWER_HEADERS: Final = 100
MAX_ANSWER_HEADER_CHARACTERS: Final = 64 * 1024
HEARTBEAT_SECONDS: Final = 1.0
MAX_REDIRECTS: Final = 5
CHAIN_MARGIN_SECONDS: Final = 60
"""After its end an authorization may still sit in a block that we don't see yet."""

REQUEST_INVALID: Final = "PaidRequestInvalid"
"""Final: the request can't be made at all (no TLS, bad URL). ``details``: the rule's name."""
CREDENTIAL_NOT_MINTED: Final = "CredentialNotMinted"
"""Final: this side can't pay the offer. ``details``: the rule's name."""
SERVER_UNAVAILABLE: Final = failures.SELLER_UNAVAILABLE
"""Retryable: no answer, a 5xx, or asked to come back later."""

_RETRYABLE_STATUS: Final = frozenset({408, 409, 425, 429})
_HEADERS_OF_OURS: Final = frozenset(
    {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "idempotency-key",
        "payment-authorization",
        http402.PAYMENT_SIGNATURE,
    }
)
_UNKEPT_HEADERS: Final = frozenset({"set-cookie", "connection", "transfer-encoding", "content-encoding"})


class ReadOffers(Frozen):
    """The headers of a 402 answer that somebody already has."""

    request: PaidHttpRequest
    headers: tuple[HeaderPair, ...]


class MintCall(Frozen):
    """One credential for one offer. Everything that shapes it comes in, so a retry makes the same."""

    offer: Offer
    payment_id: str
    key: str
    at: datetime
    expires_at: datetime
    payment_method: str | None = None


class RedeemCall(Frozen):
    """Send the request with its credential."""

    request: PaidHttpRequest
    offer: Offer
    credential: MintedCredential
    key: str


class CloseCall(Frozen):
    """Find out whether a credential moved money, and make sure that it never will if it didn't."""

    offer: Offer
    credential: MintedCredential
    key: str


class AllowanceCall(Frozen):
    """One payment within an allowance. Everything that shapes its credential comes in."""

    payment: AllowancePayment
    payment_id: str
    max_price: Money
    rails: tuple[Rail, ...]
    expected_payee: str | None
    payment_method: str | None
    at: datetime
    expires_at: datetime


class AnswerStore:
    """Large answers, each a file named by its SHA-256 in a folder that all workers share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def spool(self) -> tuple[int, Path]:
        """An open temporary file in the store."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self._folder, prefix=".answer-")
        return descriptor, Path(name)

    def keep(self, spooled: Path, sha256: str) -> str:
        """Makes a spooled file durable; its reference."""
        spooled.replace(self._folder / sha256)
        return sha256

    def path(self, reference: str) -> Path:
        """The file behind a reference. Raises ValueError for what is none."""
        if len(reference) != 64 or not set(reference) <= set("0123456789abcdef"):
            raise ValueError("an answer reference is 64 hex digits")
        return self._folder / reference


Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])


def _beating(method: Method) -> Method:
    """Heartbeats while the activity runs, so that a killed worker is missed in seconds."""

    @functools.wraps(method)
    async def with_heartbeats(*arguments: Any) -> Any:
        async def beat() -> None:
            while True:
                await asyncio.sleep(HEARTBEAT_SECONDS)  # most calls are over before the first beat
                activity.heartbeat()

        if activity.info().is_local:
            return await method(*arguments)
        beating = asyncio.create_task(beat())
        try:
            return await method(*arguments)
        finally:
            beating.cancel()

    return with_heartbeats  # type: ignore[return-value]


class PaidRequestActivities:
    """Talks to paid servers, the processor and the wallet."""

    def __init__(
        self,
        *,
        answers: AnswerStore,
        tokens: PaymentTokenActivities | None = None,
        wallet: Wallet | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Without ``tokens`` nothing is paid by card, without ``wallet`` nothing in tokens."""
        timeout = httpx.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
        self._http = httpx.AsyncClient(transport=transport, timeout=timeout, follow_redirects=False)
        self._answers = answers
        self._tokens = tokens
        self._wallet = wallet

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    @activity.defn
    @_beating
    async def probe_paid_resource(self, request: PaidHttpRequest) -> ProbeAnswer:
        """Make the request without paying.

        Raises:
            ApplicationError: ``PaidRequestInvalid`` (final) or ``SellerUnavailable``.
        """
        for _ in range(MAX_REDIRECTS + 1):
            check_transport(request.url)
            outgoing = self._build(request, {"cache-control": "no-store"})
            async with _answering(self._http, outgoing) as response:
                moved = _redirect_within_origin(request, response)
                if moved is None:
                    return await self._probed(request, response)
            request = moved
        raise _invalid("too_many_redirects", f"the server redirected more than {MAX_REDIRECTS} times")

    async def _probed(self, request: PaidHttpRequest, response: httpx.Response) -> ProbeAnswer:
        if response.status_code == 402:
            return self._offers(request, tuple(response.headers.multi_items()))
        if response.status_code >= 500 or response.status_code in _RETRYABLE_STATUS:
            raise _unavailable(response, "request")
        answer = await self._read(response)
        if answer is None:
            raise _invalid("answer_too_large", f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        return ProbeAnswer(request=request, answer=answer)

    @activity.defn
    async def read_payment_offers(self, call: ReadOffers) -> ProbeAnswer:
        """Read the offers of a 402 answer that came before."""
        check_transport(call.request.url)
        return self._offers(call.request, call.headers)

    def _offers(
        self, request: PaidHttpRequest, headers: tuple[HeaderPair, ...], *, at: datetime | None = None
    ) -> ProbeAnswer:
        parsed = http402.parse_offers(headers, now=at or datetime.now(UTC))
        usable, unusable = [], list(parsed.refused)
        for offer in parsed.offers:
            reason = self._cannot_pay(request, offer)
            if reason is None:
                usable.append(offer)
            else:
                unusable.append(f"{offer.rail}: {reason}")
        return ProbeAnswer(request=request, offers=tuple(usable), unusable=tuple(unusable))

    def _cannot_pay(self, request: PaidHttpRequest, offer: Offer) -> str | None:
        in_use = any(name.lower() == "authorization" for name, _ in request.headers)
        if offer.rail is not Rail.X402_EXACT and in_use:
            return "the request's own Authorization header leaves no room for the credential"
        if offer.rail is Rail.MPP_STRIPE:
            return None if self._tokens is not None else "no payment processor is configured"
        if self._wallet is None:
            return "no wallet is configured"
        return None if self._wallet.can_pay(offer) else f"the wallet may not spend {offer.price.currency}"

    @activity.defn
    @_beating
    async def mint_payment_credential(self, call: MintCall) -> MintedCredential:
        """Issue a token or sign an authorization for exactly the offer. Sends nothing to the server.

        Raises:
            ApplicationError: ``CredentialNotMinted`` (final), or what the processor says.
        """
        return await self._mint(call)

    async def _mint(self, call: MintCall) -> MintedCredential:
        if call.offer.rail is Rail.MPP_STRIPE:
            return await self._issue(call)
        if self._wallet is None:
            raise _not_minted("no_wallet", "no wallet is configured; set WAYSTATION_WALLET_KEYSTORE")
        try:
            return self._wallet.mint(call.offer, key=call.key, now=call.at)
        except WireError as error:
            raise _not_minted("wallet_refused", str(error)) from None

    async def _issue(self, call: MintCall) -> MintedCredential:
        if self._tokens is None:
            raise _not_minted("no_processor", "no payment processor is configured")
        if call.payment_method is None:
            raise _not_minted("no_payment_method", "the mandate names no payment method to pay from")
        token = await self._tokens.issue_payment_token(
            IssueToken(
                payment_method=call.payment_method,
                payee=call.offer.payee,
                currency=call.offer.price.currency,
                max_amount=call.offer.price.amount,
                expires_at=call.expires_at,
                purchase_id=call.payment_id,
                checkout_id=call.offer.challenge_id,
                idempotency_key=call.key,
            )
        )
        value = http402.stripe_credential(call.offer.wire, token.id)
        return MintedCredential(
            header="authorization",
            value=SecretStr(value),
            fingerprint=http402.fingerprint(value),
            token_id=SecretStr(token.id),
            valid_before=token.expires_at or call.expires_at,
        )

    @activity.defn
    @_beating
    async def redeem_payment_credential(self, call: RedeemCall) -> RedeemAnswer:
        """Send the request with the credential; again for a lost answer, always the same one.

        Redirects are not followed: a credential goes to the origin that asked for it.

        Raises:
            ApplicationError: ``SellerUnavailable`` (retryable): nobody knows whether money moved.
        """
        return await self._redeem(call)

    async def _redeem(self, call: RedeemCall) -> RedeemAnswer:
        check_transport(call.request.url)
        headers = {
            call.credential.header: call.credential.value.get_secret_value(),
            "idempotency-key": call.key,
            "cache-control": "no-store",
        }
        async with _answering(self._http, self._build(call.request, headers)) as response:
            status = response.status_code
            if status >= 500 or status in _RETRYABLE_STATUS:
                raise _unavailable(response, "paid request")
            if response.is_redirect:
                return RedeemAnswer(kind="redirected")
            answer = await self._read(response)
        if answer is None:
            return RedeemAnswer(kind="too_large")
        problem = _payment_problem(answer) if status in (400, 402, 403) else None
        if status == 402 or problem is not None:
            return RedeemAnswer(kind="refused", problem=problem)
        receipt = http402.parse_receipt(answer.headers, call.offer.rail)
        return RedeemAnswer(kind="answered", answer=answer, receipt=receipt)

    @activity.defn
    @_beating
    async def close_payment_credential(self, call: CloseCall) -> ClosedCredential:
        """Ask the processor or the chain what became of a credential; revoke an unused token.

        Raises:
            ApplicationError: ``ProcessorUnavailable`` (retryable).
        """
        return await self._close(call)

    async def _close(self, call: CloseCall) -> ClosedCredential:
        if call.offer.rail is Rail.MPP_STRIPE:
            return await self._close_token(call)
        return await self._close_authorization(call)

    async def _close_token(self, call: CloseCall) -> ClosedCredential:
        token_id = call.credential.token_id
        if self._tokens is None or token_id is None:
            return ClosedCredential(money_moved="unknown", source="nobody")
        issued = PaymentToken(
            id=token_id.get_secret_value(), fingerprint=call.credential.fingerprint, status="active"
        )
        token = await self._tokens.read_payment_token(TokenRef(token=issued))
        if token.status != "deactivated":
            revoke = RevokeToken(token=issued, idempotency_key=f"{call.key}:revoke")
            token = await self._tokens.revoke_payment_token(revoke)
        if token.is_spent:
            return ClosedCredential(money_moved="yes", amount=token.captured, source="processor")
        if token.status != "deactivated":
            raise ApplicationError(
                "the token is still active after its revocation", type=failures.PROCESSOR_UNAVAILABLE
            )
        return ClosedCredential(money_moved="no", source="processor")

    async def _close_authorization(self, call: CloseCall) -> ClosedCredential:
        credential = call.credential
        if self._wallet is None or credential.nonce is None or credential.payer is None:
            return ClosedCredential(money_moved="unknown", source="nobody")
        currency = call.offer.price.currency
        try:
            used = await self._wallet.was_used(currency, credential.payer, credential.nonce)
        except ChainUnavailableError as error:
            raise ApplicationError(str(error), type=failures.PROCESSOR_UNAVAILABLE) from None
        if used is None:
            return ClosedCredential(money_moved="unknown", source="nobody")
        if used:
            return ClosedCredential(money_moved="yes", amount=call.offer.price.amount, source="chain")
        end = credential.valid_before
        over = end is not None and datetime.now(UTC) > end + timedelta(seconds=CHAIN_MARGIN_SECONDS)
        return ClosedCredential(money_moved="no" if over else "unknown", source="chain")

    # --- within an allowance ----------------------------------------------------------

    @activity.defn
    @_beating
    async def pay_within_allowance(self, call: AllowanceCall) -> AllowanceAnswer:
        """Choose, mint, send and close in one go.

        Safe to run again: key and time fix the credential, so a second run sends the same.

        Raises:
            ApplicationError: retryable while the server or the processor is in trouble.
        """
        offer = self._choose(call)
        if isinstance(offer, AllowanceAnswer):
            return offer
        credential = await self._mint_for(call, offer)
        key = f"{call.payment_id}:request"
        request = call.payment.request
        redeemed = await self._redeem(
            RedeemCall(request=request, offer=offer, credential=credential, key=key)
        )
        closed = await self._close(CloseCall(offer=offer, credential=credential, key=call.payment_id))
        return _allowance_answer(offer, credential, redeemed, closed)

    @activity.defn
    @_beating
    async def close_within_allowance(self, call: AllowanceCall) -> AllowanceAnswer:
        """After a payment got no answer: whether it moved money, and make sure that it never will."""
        offer = self._choose(call)
        if isinstance(offer, AllowanceAnswer):
            return offer
        credential = await self._mint_for(call, offer)
        closed = await self._close(CloseCall(offer=offer, credential=credential, key=call.payment_id))
        return _allowance_answer(offer, credential, None, closed)

    def _choose(self, call: AllowanceCall) -> Offer | AllowanceAnswer:
        payment = call.payment
        check_transport(payment.request.url)
        # The time of the call, not the clock: a retry must take the same offer.
        probed = self._offers(payment.request, payment.first_answer, at=call.at)
        try:
            return choose_offer(
                probed.offers,
                unusable=probed.unusable,
                max_price=call.max_price,
                rails=call.rails,
                expected_payee=call.expected_payee,
            )
        except OfferRefused as refused:
            refusal = PaymentRefusal(rule=refused.rule, message=str(refused))
            return AllowanceAnswer(money_moved="no", refusal=refusal)

    async def _mint_for(self, call: AllowanceCall, offer: Offer) -> MintedCredential:
        return await self._mint(
            MintCall(
                offer=offer,
                payment_id=call.payment_id,
                key=f"{call.payment_id}:mint",
                at=call.at,
                expires_at=call.expires_at,
                payment_method=call.payment_method,
            )
        )

    # --- HTTP -------------------------------------------------------------------------

    def _build(self, request: PaidHttpRequest, ours: dict[str, str]) -> httpx.Request:
        """The caller's request with our headers, which the caller can't set."""
        theirs = [(n, v) for n, v in request.headers if n.lower() not in _HEADERS_OF_OURS]
        body = base64.b64decode(request.body_base64)
        built = self._http.build_request(request.method, request.url, headers=theirs, content=body)
        for name, value in ours.items():
            built.headers[name] = value
        return built

    async def _read(self, response: httpx.Response) -> HttpAnswer | None:
        """The whole answer, large ones into the store; None when it is too large to take at all."""
        body, digest, size = bytearray(), hashlib.sha256(), 0
        descriptor, spooled = -1, Path()
        try:
            async for chunk in response.aiter_bytes():
                size += len(chunk)
                if size > MAX_ANSWER_BYTES:
                    return None
                digest.update(chunk)
                if descriptor < 0 and size > MAX_INLINE_ANSWER_BYTES:
                    descriptor, spooled = self._answers.spool()
                    await asyncio.to_thread(_write, descriptor, bytes(body))
                if descriptor < 0:
                    body += chunk
                else:
                    await asyncio.to_thread(_write, descriptor, chunk)
            sha256, reference = digest.hexdigest(), None
            if descriptor >= 0:
                await asyncio.to_thread(os.fsync, descriptor)
                reference = self._answers.keep(spooled, sha256)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
                spooled.unlink(missing_ok=True)
        return HttpAnswer(
            status=response.status_code,
            headers=_kept_headers(response),
            body_base64="" if reference else base64.b64encode(bytes(body)).decode(),
            body_ref=reference,
            body_bytes=size,
            body_sha256=sha256,
        )


@contextlib.asynccontextmanager
async def _answering(client: httpx.AsyncClient, request: httpx.Request) -> AsyncIterator[httpx.Response]:
    """Sends a request and gives the streamed answer; every HTTP failure becomes a retryable error."""
    try:
        async with asyncio.timeout(WHOLE_ANSWER_TIMEOUT_SECONDS):
            response = await client.send(request, stream=True)
            try:
                yield response
            finally:
                await response.aclose()
    except TimeoutError:
        raise _too_slow() from None
    except httpx.HTTPError as error:
        raise failures.seller_unreachable(error, "request") from None


def _allowance_answer(
    offer: Offer, credential: MintedCredential, redeemed: RedeemAnswer | None, closed: ClosedCredential
) -> AllowanceAnswer:
    """Counts as spent what moved, and what nobody can rule out."""
    answer, refusal = (redeemed.answer, None) if redeemed else (None, None)
    amount = 0
    if closed.money_moved != "no":
        amount = offer.price.amount if closed.amount is None else closed.amount
    if answer is None:
        moved = {"no": "no money moved", "yes": "the money moved", "unknown": "money may have moved"}
        kind = redeemed.kind if redeemed else "silent"
        said = (redeemed.problem if redeemed else None) or kind
        refusal = PaymentRefusal(
            rule="payment_not_answered",
            message=f"the server gave no answer for the payment ({said}); {moved[closed.money_moved]}",
        )
    receipt = redeemed.receipt if redeemed else None
    if receipt is not None and closed.source != "nobody":
        matches = receipt.status == "success" and closed.money_moved == "yes"
        receipt = receipt.model_copy(update={"matches_payment": matches})
    return AllowanceAnswer(
        money_moved=closed.money_moved,
        amount=amount,
        answer=answer,
        receipt=receipt,
        refusal=refusal,
        credential_fingerprint=credential.fingerprint,
    )


def _too_slow() -> ApplicationError:
    return ApplicationError(
        f"the server took longer than {WHOLE_ANSWER_TIMEOUT_SECONDS:.0f} seconds", type=SERVER_UNAVAILABLE
    )


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _kept_headers(response: httpx.Response) -> tuple[HeaderPair, ...]:
    kept: list[HeaderPair] = []
    characters = 0
    for name, value in response.headers.multi_items():
        characters += len(name) + len(value)
        if len(kept) >= MAX_ANSWER_HEADERS or characters > MAX_ANSWER_HEADER_CHARACTERS:
            break
        if name.lower() not in _UNKEPT_HEADERS:
            kept.append((name, value))
    return tuple(kept)


def _payment_problem(answer: HttpAnswer) -> str | None:
    """The last part of the answer's ``paymentauth.org`` problem type, or None."""
    kinds = [value for name, value in answer.headers if name.lower() == "content-type"]
    if not any("problem+json" in kind for kind in kinds):
        return None
    return http402.problem_slug(base64.b64decode(answer.body_base64))


def check_transport(url: str) -> None:
    """Payments need TLS, except on this machine. Raises ``PaidRequestInvalid``."""
    parsed = httpx.URL(url)
    if not parsed.host or parsed.userinfo:
        raise _invalid("url_invalid", "the URL needs a host and no user name or password")
    if parsed.scheme != "https" and not _is_loopback(parsed.host):
        raise _invalid("tls_required", "payments go over https only (http is allowed on loopback)")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin_of(url: str) -> str:
    """``https://host[:port]`` in lower case, as mandates name sellers."""
    parsed = httpx.URL(url)
    default = {"http": 80, "https": 443}[parsed.scheme]
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    port = "" if parsed.port in (None, default) else f":{parsed.port}"
    return f"{parsed.scheme}://{host}{port}".lower()


def _redirect_within_origin(request: PaidHttpRequest, response: httpx.Response) -> PaidHttpRequest | None:
    if not response.is_redirect or response.next_request is None:
        return None
    target = str(response.next_request.url)
    if origin_of(target) != origin_of(request.url):
        raise _invalid(
            "redirected_elsewhere",
            f"the server redirects to another origin ({origin_of(target)}); ask for that URL if you mean it",
        )
    if request.method not in ("GET", "HEAD"):
        raise _invalid("redirected", "the server redirects a request that isn't GET; ask for the new URL")
    return request.model_copy(update={"url": target})


def _unavailable(response: httpx.Response, what: str) -> ApplicationError:
    wait = failures.retry_after(response.headers.get("retry-after"))
    message = f"the server answered the {what} with {response.status_code}"
    code = f"http_{response.status_code}"
    return ApplicationError(message, code, type=SERVER_UNAVAILABLE, next_retry_delay=wait)


def _invalid(rule: str, message: str) -> ApplicationError:
    return ApplicationError(message, rule, type=REQUEST_INVALID, non_retryable=True)


def _not_minted(rule: str, message: str) -> ApplicationError:
    return ApplicationError(message, rule, type=CREDENTIAL_NOT_MINTED, non_retryable=True)
