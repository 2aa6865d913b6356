"""A paywall's responses: recorded for a second delivery, delivered with a receipt, or still owed."""

import base64

from fastapi import Response
from fastapi.responses import JSONResponse
from mpp import Receipt as MppReceipt

from waystation.models.base import JsonObject
from waystation.models.payments import HeaderPair, Rail
from waystation.protocols import http402
from waystation.seller.paywall.entries import Entry, EntryState, StoredAnswer

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""A larger response can't be kept for a second delivery, so it can't be sold."""
RETRY_AFTER_SECONDS = 2

# Headers that belong to one hop or one client are not recorded.
_UNRECORDED_HEADERS = frozenset(
    {"content-length", "date", "server", "connection", "transfer-encoding", "set-cookie"}
)


async def recorded(response: Response) -> StoredAnswer:
    """Reads a whole response, streamed or not.

    Raises:
        ValueError: It is too large to keep.
    """
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


def delivered(entry: Entry) -> Response:
    """Returns the recorded response with its receipt, byte for byte the same every time."""
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


def owed(entry: Entry) -> Response:
    """Returns the response for a payment that isn't certain or delivered yet. Asks for no new one."""
    if entry.state is EntryState.CHARGED:
        detail = "The payment was taken but the answer isn't ready. Send the same credential again."
        slug = "delivery-pending"
    else:
        detail = "It isn't known yet whether the payment was taken. Send the same credential again."
        slug = "internal-payment-error"
    response = problem_response(slug, 500, detail)
    response.headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    return response


def problem_response(slug: str, status: int, detail: str) -> Response:
    content = http402.problem(slug, status, detail)
    headers = {"cache-control": "no-store"}
    return JSONResponse(content, status, headers, media_type="application/problem+json")
