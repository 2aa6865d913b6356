"""The payer's side: reads the receipt of a paid response."""

from collections.abc import Iterable
from datetime import UTC

from pydantic import ValidationError

from waystation.models.payments import Rail, Receipt
from waystation.models.times import clamped
from waystation.protocols.http402.wire import (
    MAX_HEADER_CHARACTERS,
    PAYMENT_RECEIPT,
    PAYMENT_RESPONSE,
    WireError,
    decode_json_header,
    parse_mpp_receipt,
)

MAX_REASON_CHARACTERS = 64


def parse_receipt(headers: Iterable[tuple[str, str]], rail: Rail) -> Receipt | None:
    """Returns the receipt of a paid response, or None if there is none or it can't be read."""
    values = {name.lower(): value for name, value in headers}
    try:
        if rail is Rail.X402_EXACT:
            return _x402_receipt(values.get(PAYMENT_RESPONSE))
        return _mpp_receipt(values.get(PAYMENT_RECEIPT), rail)
    except (WireError, ValidationError):
        return None


def parse_settlement_failure(headers: Iterable[tuple[str, str]]) -> str | None:
    """Returns why an x402 payment was not settled, as the server says; None if it says nothing."""
    values = {name.lower(): value for name, value in headers}
    stated = values.get(PAYMENT_RESPONSE)
    if stated is None or len(stated) > MAX_HEADER_CHARACTERS:
        return None
    try:
        settled = decode_json_header(stated)
    except WireError:
        return None
    reason = settled.get("errorReason")
    if settled.get("success") is not False or not isinstance(reason, str):
        return None
    return reason[:MAX_REASON_CHARACTERS] or None


def _mpp_receipt(value: str | None, rail: Rail) -> Receipt | None:
    if value is None or len(value) > MAX_HEADER_CHARACTERS:
        return None
    receipt = parse_mpp_receipt(value)
    return Receipt(
        rail=rail,
        status=receipt.status,
        reference=receipt.reference,
        timestamp=clamped(
            receipt.timestamp if receipt.timestamp.tzinfo else receipt.timestamp.replace(tzinfo=UTC)
        ),
    )


def _x402_receipt(value: str | None) -> Receipt | None:
    if value is None or len(value) > MAX_HEADER_CHARACTERS:
        return None
    settled = decode_json_header(value)
    status = "success" if settled.get("success") is True else "failed"
    return Receipt(rail=Rail.X402_EXACT, status=status, reference=str(settled.get("transaction", "")))
