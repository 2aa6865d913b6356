"""Stripe's client over our connections: what it can't read is one of its own errors, and bounded."""

import httpx
import pytest
import stripe

from waystation.stripe_http import MAX_ANSWER_BYTES, open_stripe

UNREADABLE = {
    "deep": b'{"id": "pi_1", "metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a little too deep": b"[" * 33 + b"]" * 33,
    "half": b'{"id": "pi_',
    "a page": b"<!doctype html><title>Welcome</title>",
    "nothing": b"",
    "huge": b'{"id": "' + b"x" * MAX_ANSWER_BYTES + b'"}',
}


@pytest.mark.parametrize("status", [200, 502])
@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
async def test_an_answer_that_cannot_be_read_is_an_error_of_stripes(body: bytes, status: int) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, content=body))
    client, connections = open_stripe("sk_test_x", transport=transport)
    with pytest.raises((stripe.APIError, stripe.APIConnectionError)) as failed:
        await client.v1.payment_intents.retrieve_async("pi_1")
    assert len(str(failed.value)) < 200
    assert not isinstance(failed.value, stripe.InvalidRequestError)  # a final one
    await connections.close_async()


async def test_a_large_answer_is_read() -> None:
    body = b'{"id": "pi_1", "object": "payment_intent", "description": "' + b"x" * 5_000_000 + b'"}'
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=body))
    client, connections = open_stripe("sk_test_x", transport=transport)
    assert (await client.v1.payment_intents.retrieve_async("pi_1")).id == "pi_1"
    await connections.close_async()
