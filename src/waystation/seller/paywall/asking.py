"""What a paywall asks for: a 402 with a challenge for every way to pay, each bound to one request."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fastapi import Request, Response
from pydantic import JsonValue

from waystation.models.base import JsonObject
from waystation.models.money import Money
from waystation.protocols import http402
from waystation.protocols.http402 import RequestScope, as_object, as_text
from waystation.seller.paywall.answers import failed_x402, problem_response
from waystation.seller.paywall.rails import SellerRail, X402Rail


class TurnedAway(Exception):
    """The request is answered without running the handler; with status 402 it may be paid anew."""

    def __init__(self, slug: str, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.slug, self.status, self.detail = slug, status, detail
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Visit:
    """One request: what a payment for it is bound to, and what it costs now."""

    request: Request
    scope: RequestScope
    headers: str
    """Digest of its headers."""
    prices: tuple[Money, ...]
    """In each currency; none if it is free."""


class Asking:
    """Issues the challenges of one paywall."""

    def __init__(
        self,
        realm: str,
        secret_key: str,
        rails: Sequence[SellerRail],
        lifetime: timedelta,
        public_url: str | None,
    ) -> None:
        self.realm = realm
        self.lifetime = lifetime
        self._secret_key = secret_key
        self._rails = tuple(rails)
        self._public_url = public_url.rstrip("/") if public_url else None

    def turn_away(self, turned: TurnedAway, visit: Visit) -> Response:
        """Returns the answer to a request that isn't served."""
        if turned.status == 402 and visit.prices:
            return self._ask(turned, visit)
        status = 403 if turned.status == 402 else turned.status
        return problem_response(turned.slug, status, turned.detail, turned.headers)

    def _ask(self, turned: TurnedAway, visit: Visit) -> Response:
        response = problem_response(turned.slug, 402, turned.detail, turned.headers)
        expires_at = datetime.now(UTC) + self.lifetime
        accepts: list[JsonValue] = []
        for rail, price in self._payable(visit.prices):
            challenge = http402.issue_mpp_challenge(
                secret_key=self._secret_key,
                realm=self.realm,
                method=rail.mpp_method,
                request=rail.mpp_request(price),
                scope=visit.scope,
                expires_at=expires_at,
                nonce=secrets.token_hex(16),
            )
            response.headers.append("www-authenticate", challenge)
            if isinstance(rail, X402Rail):
                accepts.append(self._bind_x402(rail.x402_terms(price), visit.scope, expires_at))
        if accepts:
            required: JsonObject = {
                "x402Version": http402.X402_VERSION,
                "error": turned.detail,
                "resource": {"url": self._resource_url(visit.request)},
                "accepts": accepts,
                "extensions": http402.x402_extensions(),
            }
            response.headers[http402.PAYMENT_REQUIRED] = http402.encode_json_header(required)
        if accepts and http402.PAYMENT_SIGNATURE in visit.request.headers:
            network = as_text(as_object(accepts[0], "terms")["network"], "network")
            for name, value in failed_x402(turned.slug, network).items():
                response.headers.setdefault(name, value)
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
