"""The building blocks of HTTP 402 headers: amounts, addresses, times, base64 of JSON, problems."""

import base64
import binascii
import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar

import mpp
import rfc8785
from eth_utils.address import to_checksum_address
from mpp import Challenge, Credential
from mpp import Receipt as MppReceipt

from waystation.foreign_json import ForeignJsonError, read_json
from waystation.models.base import JsonObject
from waystation.models.money import MAX_AMOUNT_MINOR_UNITS
from waystation.models.times import clamped
from waystation.rfc3339 import parse_rfc3339

MAX_HEADER_CHARACTERS = 16 * 1024
"""A longer challenge header is refused unread."""
X402_VERSION = 2
PAYMENT_REQUIRED = "payment-required"
PAYMENT_SIGNATURE = "payment-signature"
PAYMENT_RESPONSE = "payment-response"
PAYMENT_RECEIPT = "payment-receipt"
PAYMENT_AUTHORIZATION = "payment-authorization"
CREDENTIAL_HEADERS = frozenset({"authorization", PAYMENT_AUTHORIZATION})
"""Where an MPP credential may be sent: the second, so that ``Authorization`` can carry a login."""
PROBLEM_BASE = "https://paymentauth.org/problems/"

_AMOUNT = re.compile(r"[0-9]{1,16}")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
NETWORK = re.compile(r"eip155:[1-9][0-9]{0,17}")

MppChallenge = Challenge
MppCredential = Credential
_MppParseError: Final[type[Exception]] = mpp.ParseError  # type: ignore[attr-defined]  # absent from __all__ only

Parsed = TypeVar("Parsed")


class WireError(ValueError):
    """A header doesn't say what its protocol asks for. The message never quotes a credential."""


def parse_mpp_challenge(wire: str) -> Challenge:
    """Reads one MPP challenge, which a credential can echo.

    Raises:
        WireError: The header doesn't say what its protocol asks for.
    """
    challenge = _read_mpp(Challenge.from_www_authenticate, wire, "challenge")
    try:
        challenge.to_echo()
    except (rfc8785.CanonicalizationError, ValueError):
        raise WireError("malformed MPP challenge: it can't be echoed") from None
    return challenge


def parse_mpp_credential(wire: str) -> Credential:
    """Reads an MPP credential.

    Raises:
        WireError: The header doesn't say what its protocol asks for.
    """
    return _read_mpp(Credential.from_authorization, wire.translate(_URL_BASE64), "credential")


def parse_mpp_receipt(wire: str) -> MppReceipt:
    """Reads an MPP receipt.

    Raises:
        WireError: The header doesn't say what its protocol asks for.
    """
    return _read_mpp(MppReceipt.from_payment_receipt, wire, "receipt")


def _read_mpp(read: Callable[[str], Parsed], wire: str, what: str) -> Parsed:
    try:
        return read(wire)
    except _MppParseError as error:
        raise WireError(f"malformed MPP {what}: {error}") from None
    except RecursionError:
        raise WireError(f"malformed MPP {what}: nested too deeply") from None


def as_object(value: object, what: str) -> JsonObject:
    """Returns a JSON object from decoded JSON.

    Raises:
        WireError: It is anything else.
    """
    if not isinstance(value, dict):
        raise WireError(f"{what} must be a JSON object")
    return value


def as_text(value: object, what: str) -> str:
    """Returns a string from decoded JSON.

    Raises:
        WireError: It is anything else.
    """
    if not isinstance(value, str):
        raise WireError(f"{what} must be a string")
    return value


def parse_amount(value: object) -> int:
    """Parses a positive whole number of minor units from its decimal string.

    Raises:
        WireError: The header doesn't say what its protocol asks for.
    """
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value) or not value.isascii():
        raise WireError("price is not a whole number of minor units")
    amount = int(value)
    if not 0 < amount <= MAX_AMOUNT_MINOR_UNITS:
        raise WireError("price is zero or absurdly large")
    return amount


def parse_address(value: object) -> str:
    """Parses an EIP-55 address.

    Raises:
        WireError: The header doesn't say what its protocol asks for.
    """
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise WireError("payee or token is not an EVM address")
    return str(to_checksum_address(value))


def evm_asset(network: str, token: object) -> str:
    """Returns the asset id of a token: ``eip155:84532/erc20:0x036C…``."""
    return f"{network}/erc20:{parse_address(token)}"


def split_evm_asset(asset: str) -> tuple[int, str]:
    """Returns the ``(chain id, token address)`` of an asset id.

    Raises:
        WireError: The asset is not an EVM token.
    """
    network, separator, token = asset.partition("/erc20:")
    if not separator or not NETWORK.fullmatch(network):
        raise WireError(f"{asset} is not an EVM token")
    return int(network.removeprefix("eip155:")), parse_address(token)


def parse_time(value: str) -> datetime:
    """Parses an RFC 3339 timestamp that has a UTC offset.

    Raises:
        WireError: The header doesn't say what its protocol asks for.
    """
    try:
        return clamped(parse_rfc3339(value))
    except ValueError as error:
        raise WireError(f"timestamp {error}") from None


def decode_base64(value: str) -> bytes:
    """Decodes base64 or base64url, padded or not: clients mix them up.

    Raises:
        ValueError: It is neither.
    """
    plain = value.strip().translate(_PLAIN_BASE64)
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


_PLAIN_BASE64: Final = str.maketrans("-_", "+/")
_URL_BASE64: Final = str.maketrans("+/", "-_")


def decode_json_header(value: str) -> JsonObject:
    """Decodes an x402 header: base64 or base64url of a JSON object.

    Raises:
        WireError: The header doesn't say what its protocol asks for.
    """
    if len(value) > MAX_HEADER_CHARACTERS * 4:
        raise WireError("x402 header is too long")
    try:
        decoded = read_json(decode_base64(value))
        rfc8785.dumps(decoded)
    except (binascii.Error, ValueError, rfc8785.CanonicalizationError):
        raise WireError("x402 header is not base64 of JSON") from None
    if not isinstance(decoded, dict):
        raise WireError("x402 header is not a JSON object")
    return decoded


def encode_json_header(value: JsonObject) -> str:
    """Returns base64 of compact JSON, as x402 writes its headers."""
    return base64.b64encode(json.dumps(value, separators=(",", ":")).encode()).decode("ascii")


def problem(slug: str, status: int, detail: str, **more: str) -> JsonObject:
    """Returns an RFC 9457 problem of the Payment scheme."""
    title = slug.replace("-", " ").capitalize()
    return {"type": PROBLEM_BASE + slug, "title": title, "status": status, "detail": detail, **more}


def problem_slug(body: bytes) -> str | None:
    """Returns the slug of a Payment problem, such as ``payment-expired``; None for any other body."""
    try:
        problem = read_json(body)
    except ForeignJsonError:
        return None
    kind = problem.get("type") if isinstance(problem, dict) else None
    if not isinstance(kind, str) or not kind.startswith(PROBLEM_BASE):
        return None
    return kind.removeprefix(PROBLEM_BASE)[:64]
