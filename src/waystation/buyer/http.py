"""The HTTP side of paid requests: what is sent, and how an answer is read.

Shared by a worker's activities and by agent processes that make their own payments.
"""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import httpx

from waystation.buyer.answers import AnswerStore
from waystation.buyer.networks import WHOLE_ANSWER_TIMEOUT_SECONDS, Network, checked_client
from waystation.buyer.origins import RequestInvalidError, check_transport, origin_of
from waystation.errors import WaystationError
from waystation.models.payments import (
    HeaderPair,
    HttpAnswer,
    MintedCredential,
    Offer,
    PaidHttpRequest,
    RedeemAnswer,
)
from waystation.protocols import http402
from waystation.retry_after import retry_after

MAX_ANSWER_HEADERS: Final = 100
MAX_ANSWER_HEADER_CHARACTERS: Final = 64 * 1024
MAX_REDIRECTS: Final = 5

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


class ServerUnavailableError(WaystationError):
    """No answer, a 5xx, or told to come back later: nobody knows what became of the request."""

    def __init__(self, message: str, *, code: str = "no_answer", wait: timedelta | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.wait = wait


# Asking and paying


class PaidHttp:
    """Makes requests, unpaid and paid, and reads their answers."""

    def __init__(
        self,
        *,
        answers: AnswerStore,
        allowed: Sequence[Network] = (),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """In tests, ``transport`` replaces the network (and the address check)."""
        self._http = checked_client(allowed, transport=transport)
        self._owns_transport = transport is None
        self._answers = answers

    async def close(self) -> None:
        """Closes the connections."""
        if self._owns_transport:
            await self._http.aclose()

    async def ask(self, request: PaidHttpRequest, owner: str) -> "Asked":
        """Makes the request without paying, and follows redirects within the origin.

        ``owner`` is the workflow that a large answer is stored for.

        Raises:
            RequestInvalidError: The request can't be made, or leads to another origin.
            ServerUnavailableError: The server didn't answer, or failed.
        """
        for _ in range(MAX_REDIRECTS + 1):
            check_transport(request.url)
            outgoing = self._build(request, {"cache-control": "no-store"})
            async with self._answering(outgoing) as response:
                moved = _redirect_within_origin(request, response)
                if moved is None:
                    return await self._asked(request, response, owner)
            request = moved
        raise RequestInvalidError(
            "too_many_redirects", f"the server redirected more than {MAX_REDIRECTS} times"
        )

    async def _asked(self, request: PaidHttpRequest, response: httpx.Response, owner: str) -> "Asked":
        if response.status_code == 402:
            return Asked(request, challenges=tuple(response.headers.multi_items()))
        if response.status_code >= 500 or response.status_code in _RETRYABLE_STATUS:
            raise _unavailable(response, "request")
        answer = await self._read(response, owner)
        if answer is None:
            raise RequestInvalidError("answer_too_large", self._answers.limit_text)
        return Asked(request, answer=answer)

    async def send(
        self, request: PaidHttpRequest, offer: Offer, credential: MintedCredential, *, key: str, owner: str
    ) -> RedeemAnswer:
        """Sends the request with its credential.

        Redirects are not followed: a credential goes only to the origin that asked for it.

        Raises:
            ServerUnavailableError: Nobody knows whether money moved.
        """
        check_transport(request.url)
        headers = {
            _credential_header(request, credential): credential.value.get_secret_value(),
            "idempotency-key": key,
            "cache-control": "no-store",
        }
        async with self._answering(self._build(request, headers)) as response:
            status = response.status_code
            if status >= 500 or status in _RETRYABLE_STATUS:
                raise _unavailable(response, "paid request")
            if response.is_redirect:
                return RedeemAnswer(kind="redirected")
            answer = await self._read(response, owner)
        if answer is None:
            return RedeemAnswer(kind="too_large")
        problem = _payment_problem(answer) if status in (400, 402, 403) else None
        if status == 402 and problem is None:
            problem = http402.parse_settlement_failure(answer.headers)
        if status == 402 or problem is not None:
            return RedeemAnswer(kind="refused", problem=problem)
        receipt = http402.parse_receipt(answer.headers, offer.rail)
        return RedeemAnswer(kind="answered", answer=answer, receipt=receipt)

    def _build(self, request: PaidHttpRequest, ours: Mapping[str, str]) -> httpx.Request:
        """Returns the caller's request with our headers, which the caller can't set."""
        theirs = [(n, v) for n, v in request.headers if n.lower() not in _HEADERS_OF_OURS]
        body = base64.b64decode(request.body_base64)
        built = self._http.build_request(request.method, request.url, headers=theirs, content=body)
        for name, value in ours.items():
            built.headers[name] = value
        return built

    @contextlib.asynccontextmanager
    async def _answering(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """Sends a request and yields the streamed answer."""
        try:
            async with asyncio.timeout(WHOLE_ANSWER_TIMEOUT_SECONDS):
                response = await self._http.send(request, stream=True)
                try:
                    yield response
                finally:
                    await response.aclose()
        except TimeoutError:
            raise ServerUnavailableError(
                f"the server took longer than {WHOLE_ANSWER_TIMEOUT_SECONDS:.0f} seconds"
            ) from None
        except httpx.HTTPError as error:
            raise ServerUnavailableError(
                f"the server did not answer ({type(error).__name__}); it is tried again"
            ) from None

    async def _read(self, response: httpx.Response, owner: str) -> HttpAnswer | None:
        """Returns the whole answer, storing a large body apart; None if it is too large to accept."""
        kept = await self._answers.keep(response.aiter_bytes(), owner)
        if kept is None:
            return None
        return HttpAnswer(
            status=response.status_code,
            headers=_kept_headers(response),
            body_base64=base64.b64encode(kept.inline).decode(),
            body_ref=kept.reference,
            body_bytes=kept.size_bytes,
            body_sha256=kept.sha256,
        )


class Asked:
    """What the bare request brought back: an answer, or the headers of a 402."""

    def __init__(
        self,
        request: PaidHttpRequest,
        *,
        answer: HttpAnswer | None = None,
        challenges: tuple[HeaderPair, ...] = (),
    ) -> None:
        self.request, self.answer, self.challenges = request, answer, challenges


def _credential_header(request: PaidHttpRequest, credential: MintedCredential) -> str:
    """Returns where a credential goes: beside the caller's own ``Authorization``, never in its place."""
    taken = any(name.lower() == credential.header == "authorization" for name, _ in request.headers)
    return http402.PAYMENT_AUTHORIZATION if taken else credential.header


def _redirect_within_origin(request: PaidHttpRequest, response: httpx.Response) -> PaidHttpRequest | None:
    if not response.is_redirect or response.next_request is None:
        return None
    target = str(response.next_request.url)
    if origin_of(target) != origin_of(request.url):
        raise RequestInvalidError(
            "redirected_elsewhere",
            f"the server redirects to another origin ({origin_of(target)}); request that URL if you mean it",
        )
    if request.method not in ("GET", "HEAD"):
        raise RequestInvalidError(
            "redirected", "the server redirects a request that isn't GET; request the new URL"
        )
    return request.model_copy(update={"url": target})


def _unavailable(response: httpx.Response, what: str) -> ServerUnavailableError:
    code = f"http_{response.status_code}"
    message = f"the server answered the {what} with {response.status_code}"
    return ServerUnavailableError(message, code=code, wait=retry_after(response.headers.get("retry-after")))


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
    """Returns the last part of the answer's ``paymentauth.org`` problem type, or None."""
    kinds = [value for name, value in answer.headers if name.lower() == "content-type"]
    if not any("problem+json" in kind for kind in kinds):
        return None
    return http402.problem_slug(base64.b64decode(answer.body_base64))


def now() -> datetime:
    """Returns the present time in UTC, by the clock of paid requests."""
    return datetime.now(UTC)
