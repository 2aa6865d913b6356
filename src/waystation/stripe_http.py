"""Stripe's own client over our own httpx connection pool, set up so that a payment is never sent twice.

Why not ``stripe.HTTPXClient``: with httpx 0.28 it passes the form in a way that httpx has deprecated, and it
can neither take a transport (tests) nor ignore the environment's proxies.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any, Final

import httpx
import stripe

STRIPE_API_VERSION: Final = "2026-09-30.preview"
"""Shared payment tokens exist in preview versions only. Sent with every call that needs them."""

TIMEOUT_SECONDS: Final = 30
MAX_CONNECTIONS: Final = 100


_TOKEN = re.compile(r"\b(spt|sk|rk|whsec)_[A-Za-z0-9_]{6,}")


class RedactTokens(logging.Filter):
    """Removes payment tokens and keys from log records.

    Both ``stripe`` and ``httpx`` log URLs, and a granted token is read at a URL that contains it; at DEBUG
    ``stripe`` logs whole bodies.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        redacted = _TOKEN.sub(r"\1_…", text)
        if redacted != text:
            record.msg, record.args = redacted, ()
        return True


for _name in ("stripe", "httpx"):
    logging.getLogger(_name).addFilter(RedactTokens())


class HttpxClient(stripe.HTTPClient):
    """The asynchronous half of Stripe's HTTP interface."""

    name = "httpx"

    def __init__(self, client: httpx.AsyncClient) -> None:
        super().__init__()
        self._client = client

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Any]:
        body = post_data.encode() if isinstance(post_data, str) else post_data
        try:
            answer = await self._client.request(method, url, headers=dict(headers), content=body)
        except httpx.HTTPError as error:
            # The kind of failure only: an httpx error can carry the request.
            raise stripe.APIConnectionError(  # type: ignore[no-untyped-call]
                f"No answer from the payment processor ({type(error).__name__}).", should_retry=False
            ) from None
        return answer.content, answer.status_code, answer.headers

    async def close_async(self) -> None:
        await self._client.aclose()

    def close(self) -> None:
        return None


def open_stripe(
    secret_key: str,
    *,
    api_base: str | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    timeout_seconds: int = TIMEOUT_SECONDS,
) -> tuple[stripe.StripeClient, HttpxClient]:
    """Returns Stripe's client without retries, and its connections; close those with ``close_async()``.

    ``api_base`` points it at the sandbox processor instead of Stripe.
    """
    pool = httpx.AsyncClient(
        timeout=timeout_seconds,
        limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
        transport=transport,
        trust_env=api_base is None,
    )
    http = HttpxClient(pool)
    client = stripe.StripeClient(
        secret_key,
        base_addresses={"api": api_base.rstrip("/")} if api_base else None,
        http_client=http,
        max_network_retries=0,
        stripe_version=STRIPE_API_VERSION,
    )
    return client, http
