"""A paywall's responses: delivered with a receipt, still owed, or a problem."""

import base64
from collections.abc import Mapping
from typing import Final

from fastapi import Response
from fastapi.responses import JSONResponse, StreamingResponse
from mpp import Receipt as MppReceipt
from starlette.types import Receive, Scope, Send

from waystation.models.base import JsonObject
from waystation.models.payments import HeaderPair, Rail
from waystation.protocols import http402
from waystation.seller.paywall.entries import Entry
from waystation.seller.paywall.recording import LargeAnswer

RETRY_AFTER_SECONDS: Final = 2
EXPOSED_HEADERS: Final = (
    "WWW-Authenticate",
    "PAYMENT-REQUIRED",
    "PAYMENT-RESPONSE",
    "Payment-Receipt",
    "Retry-After",
)
"""What a page from another origin must read to pay and to keep its receipt."""


def delivered(entry: Entry) -> Response:
    """Returns the recorded response with its receipt, byte for byte the same every time."""
    if entry.answer is None:
        raise RuntimeError("a delivered entry has an answer")
    response = Response(base64.b64decode(entry.answer.body_base64), entry.answer.status)
    _add_headers(response, entry, entry.answer.headers)
    return response


class _LargeResponse(StreamingResponse):
    """Passes a large answer on, and says so if its client doesn't take it all."""

    def __init__(self, large: LargeAnswer) -> None:
        super().__init__(large.chunks(), large.status)
        self._large = large

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._large.abandon()


def passed_on(entry: Entry, large: LargeAnswer) -> Response:
    """Returns an answer that is too large to record, with its receipt."""
    response = _LargeResponse(large)
    _add_headers(response, entry, large.headers)
    return response


def _add_headers(response: Response, entry: Entry, recorded: tuple[HeaderPair, ...]) -> None:
    for name, value in recorded:
        response.headers.append(name, value)
    for name, value in receipt_headers(entry).items():
        response.headers[name] = value
    response.headers["cache-control"] = "private, no-store"
    expose(response)


def expose(response: Response) -> None:
    """Lets pages from other origins read the headers of a payment. Who may ask at all is up to the app."""
    response.headers.append("access-control-expose-headers", ", ".join(EXPOSED_HEADERS))


def receipt_headers(entry: Entry) -> Mapping[str, str]:
    """Returns the receipt of a charge, for every answer to whoever was charged."""
    charge = entry.charge
    if charge is None:
        raise RuntimeError("only a charge has a receipt")
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
        return {http402.PAYMENT_RESPONSE: http402.encode_json_header(settled)}
    method = "stripe" if entry.rail is Rail.MPP_STRIPE else "evm"
    receipt = MppReceipt.success(charge.reference, timestamp=charge.charged_at, method=method)
    return {http402.PAYMENT_RECEIPT: receipt.to_payment_receipt()}


def failed_x402(reason: str, network: str) -> Mapping[str, str]:
    """Returns what x402 says about a payment that certainly moved no money."""
    failed: JsonObject = {"success": False, "errorReason": reason, "transaction": "", "network": network}
    return {http402.PAYMENT_RESPONSE: http402.encode_json_header(failed)}


def owed(entry: Entry, retry_after: str | None = None) -> Response:
    """Returns the response for a payment that isn't certain or delivered yet. Asks for no new one."""
    if entry.charge is not None:
        detail = "The payment was taken but the answer isn't ready. Send the same credential again."
        response = problem_response("delivery-pending", 500, detail, receipt_headers(entry))
    else:
        detail = "It isn't known yet whether the payment was taken. Send the same credential again."
        response = problem_response("internal-payment-error", 500, detail)
    response.headers["retry-after"] = str(RETRY_AFTER_SECONDS) if retry_after is None else retry_after
    return response


def unkept(entry: Entry) -> Response:
    """Returns the response for an answer that was delivered, too large to keep, and asked for too late."""
    detail = "The answer was delivered and was too large to be kept for a second delivery."
    return problem_response("answer-not-kept", 410, detail, receipt_headers(entry))


def problem_response(
    slug: str, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Returns an RFC 9457 problem that nobody may cache and every page may read."""
    content = http402.problem(slug, status, detail)
    sent = {"cache-control": "no-store", **(headers or {})}
    response = JSONResponse(content, status, sent, media_type="application/problem+json")
    expose(response)
    return response
