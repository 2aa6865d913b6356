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

from waystation.foreign_json import ForeignJsonError, read_json

STRIPE_API_VERSION: Final = "2026-09-30.preview"
"""Shared payment tokens exist in preview versions only. Sent with every call that needs them."""

TIMEOUT_SECONDS: Final = 30
MAX_CONNECTIONS: Final = 100
MAX_ANSWER_BYTES: Final = 10 * 1024 * 1024
"""Of one answer: a page of a hundred objects takes a small part of it."""

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
        sending = self._client.stream(method, url, headers=dict(headers), content=body)
        try:
            async with sending as answer:
                content = await _bounded(answer)
        except httpx.HTTPError as error:
            # The kind of failure only: an httpx error can carry the request.
            raise _unanswered(f"No answer from the payment processor ({type(error).__name__}).") from None
        _check(content, answer)
        return content, answer.status_code, answer.headers

    async def close_async(self) -> None:
        await self._client.aclose()

    def close(self) -> None:
        return None


async def _bounded(answer: httpx.Response) -> bytes:
    content = bytearray()
    async for chunk in answer.aiter_bytes():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise _unanswered(f"The payment processor's answer is larger than {MAX_ANSWER_BYTES} bytes.")
    return bytes(content)


def _check(content: bytes, answer: httpx.Response) -> None:
    """Raises for what Stripe's client can't read, or would raise ``RecursionError`` for."""
    try:
        read_json(content)
    except ForeignJsonError:
        raise stripe.APIError(
            f"The payment processor's answer can't be read (HTTP {answer.status_code}).",
            http_status=answer.status_code,
            headers=dict(answer.headers),
        ) from None


def _unanswered(message: str) -> stripe.APIConnectionError:
    return stripe.APIConnectionError(message, should_retry=False)  # type: ignore[no-untyped-call]


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
