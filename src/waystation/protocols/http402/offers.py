"""The payer's side: reads every MPP challenge and x402 requirement of a 402 response.

Pure: reads header values, never a socket. Parsing of single headers is left to the protocols' own libraries
(``mpp``, ``x402``); what is decided here is how strictly an offer is read. Text meant for display
(``description``) is never read.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import rfc8785
from pydantic import JsonValue, ValidationError

from waystation.models.base import JsonObject
from waystation.models.money import Money
from waystation.models.payments import Offer, Rail
from waystation.protocols.http402.wire import (
    CREDENTIAL_HEADERS,
    MAX_HEADER_CHARACTERS,
    NETWORK,
    PAYMENT_REQUIRED,
    X402_VERSION,
    WireError,
    as_object,
    decode_json_header,
    evm_asset,
    parse_address,
    parse_amount,
    parse_mpp_challenge,
    parse_time,
)

MAX_OFFERS = 16
"""Offers that are taken from one answer: the first ones that can be paid."""
MAX_CANDIDATES = 64
"""Offers that are read at all. More in one answer are an attack, not a price list."""
MAX_TIMEOUT_SECONDS = 86_400
"""No authorization is valid for longer, whatever a server allows."""
_FIAT = re.compile(r"[a-z]{3}")
_AUTH_SCHEME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?: +|$)")
_AUTH_PARAM = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*=")


@dataclass(frozen=True, slots=True)
class ParsedOffers:
    """What a 402 response offers: usable offers in the server's order, and why the others were refused."""

    offers: tuple[Offer, ...]
    refused: tuple[str, ...]


def parse_offers(headers: Iterable[tuple[str, str]], *, now: datetime) -> ParsedOffers:
    """Reads every MPP challenge and x402 requirement of a 402 answer.

    Anything malformed, expired, of an unknown method or priced absurdly is left
    out and named in ``refused``; nothing raises, since one bad offer must not
    hide a good one.
    """
    offers: list[Offer] = []
    refused: list[str] = []
    for wire, index, mpp in islice(_candidates(headers, refused), MAX_CANDIDATES):
        try:
            offer = read_offer(wire, index, mpp=mpp)
            _check_open(offer, now)
        except WireError as error:
            refused.append(str(error))
        else:
            offers.append(offer)
    return ParsedOffers(tuple(offers), tuple(refused[:MAX_OFFERS]))


def _candidates(headers: Iterable[tuple[str, str]], refused: list[str]) -> Iterator[tuple[str, int, bool]]:
    """Yields header values and the numbers of the offers in them, and whether they are MPP's."""
    for name, value in headers:
        lowered = name.lower()
        if lowered not in ("www-authenticate", PAYMENT_REQUIRED):
            continue
        if len(value) > MAX_HEADER_CHARACTERS:
            refused.append(f"{lowered} header is longer than {MAX_HEADER_CHARACTERS} characters")
            continue
        mpp = lowered == "www-authenticate"
        for wire, index in _mpp_candidates(value) if mpp else _x402_candidates(value):
            yield wire, index, mpp


def read_offer(wire: str, index: int, *, mpp: bool) -> Offer:
    """Reads one offer from the header value it came in.

    Raises:
        WireError: The header doesn't say what its protocol asks for.
    """
    try:
        return _mpp_offer(wire) if mpp else _x402_offer(wire, index)
    except (ValidationError, rfc8785.CanonicalizationError) as error:
        raise WireError(f"malformed payment challenge ({type(error).__name__})") from None


def _check_open(offer: Offer, now: datetime) -> None:
    if offer.expires_at is not None and offer.expires_at <= now:
        raise WireError(f"{offer.rail} challenge expired at {offer.expires_at.isoformat()}")


def _mpp_candidates(value: str) -> list[tuple[str, int]]:
    return [(challenge, 0) for challenge in split_payment_challenges(value)]


def _x402_candidates(value: str) -> list[tuple[str, int]]:
    try:
        accepts = decode_json_header(value).get("accepts")
    except WireError:
        return [(value, 0)]
    return [(value, index) for index in range(len(accepts))] if isinstance(accepts, list) else [(value, 0)]


def split_payment_challenges(value: str) -> list[str]:
    """Splits a ``WWW-Authenticate`` value into its ``Payment`` challenges (RFC 9110 section 11.6.1).

    Commas separate challenges as well as parameters; a new challenge begins
    where a token is followed by anything but ``=``.
    """
    challenges: list[list[str]] = []
    for part in _split_outside_quotes(value):
        starts = _AUTH_PARAM.match(part) is None and _AUTH_SCHEME.match(part) is not None
        if starts:
            challenges.append([part])
        elif challenges and part:
            challenges[-1].append(part)
    return [", ".join(parts) for parts in challenges if parts[0].lower().startswith("payment ")]


def _split_outside_quotes(value: str) -> list[str]:
    parts, start, quoted, escaped = [], 0, False, False
    for index, character in enumerate(value):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            parts.append(value[start:index].strip())
            start = index + 1
    parts.append(value[start:].strip())
    return parts


def _mpp_offer(wire: str) -> Offer:
    challenge = parse_mpp_challenge(wire)
    if challenge.credential_header.lower() not in CREDENTIAL_HEADERS:
        raise WireError(
            "challenge asks for its credential in another header than Authorization or Payment-Authorization"
        )
    if challenge.intent != "charge":
        raise WireError(f"unknown intent {challenge.intent!r} of method {challenge.method!r}")
    readers = {"stripe": _stripe_terms, "evm": _evm_terms}
    if challenge.method not in readers:
        raise WireError(f"unknown payment method {challenge.method!r}")
    rail, currency, payee = readers[challenge.method](challenge.request)
    return Offer(
        rail=rail,
        challenge_id=challenge.id,
        realm=challenge.realm,
        price=Money(amount=parse_amount(challenge.request.get("amount")), currency=currency),
        payee=payee,
        expires_at=parse_time(challenge.expires) if challenge.expires else None,
        wire=wire,
    )


def _stripe_terms(request: JsonObject) -> tuple[Rail, str, str]:
    details = request.get("methodDetails")
    if not isinstance(details, dict):
        raise WireError("stripe challenge has no methodDetails")
    network_id, kinds = details.get("networkId"), details.get("paymentMethodTypes")
    if not isinstance(network_id, str) or not network_id:
        raise WireError("stripe challenge names no networkId to pay")
    if not isinstance(kinds, list) or "card" not in kinds:
        raise WireError("stripe challenge doesn't accept cards")
    currency = request.get("currency")
    if not isinstance(currency, str) or not _FIAT.fullmatch(currency):
        raise WireError("stripe challenge has no ISO 4217 currency in lower case")
    return Rail.MPP_STRIPE, currency, network_id


def _evm_terms(request: JsonObject) -> tuple[Rail, str, str]:
    details = request.get("methodDetails")
    if not isinstance(details, dict):
        raise WireError("evm challenge has no methodDetails")
    chain_id, kinds = details.get("chainId"), details.get("credentialTypes")
    if isinstance(chain_id, bool) or not isinstance(chain_id, int) or not 0 < chain_id < 10**18:
        raise WireError("evm challenge has no valid chainId")
    if not isinstance(kinds, list) or "authorization" not in kinds:
        raise WireError("evm challenge doesn't accept EIP-3009 authorizations")
    if details.get("splits") or details.get("feePayer"):
        raise WireError("evm challenge asks for splits or a fee payer")
    currency = evm_asset(f"eip155:{chain_id}", request.get("currency"))
    return Rail.MPP_EVM, currency, parse_address(request.get("recipient"))


def _x402_offer(wire: str, index: int) -> Offer:
    required = decode_json_header(wire)
    accepts = required.get("accepts")
    if required.get("x402Version") != X402_VERSION or isinstance(required.get("x402Version"), bool):
        raise WireError("unknown x402 version")
    if not isinstance(accepts, list) or index >= len(accepts):
        raise WireError("x402 answer accepts nothing")
    terms = as_object(accepts[index], "x402 terms")
    if terms.get("scheme") != "exact":
        raise WireError(f"unknown x402 scheme {str(terms.get('scheme'))[:40]!r}")
    network = terms.get("network")
    if not isinstance(network, str) or not NETWORK.fullmatch(network):
        raise WireError(f"unknown x402 network {str(network)[:40]!r}")
    _check_x402_extra(terms)
    _timeout_of(terms)
    return Offer(
        rail=Rail.X402_EXACT,
        challenge_id=x402_challenge_id(terms),
        realm="",
        price=Money(
            amount=parse_amount(terms.get("amount")),
            currency=evm_asset(network, terms.get("asset")),
        ),
        payee=parse_address(terms.get("payTo")),
        expires_at=None,
        wire=wire,
        wire_index=index,
    )


def x402_timeout_seconds(wire: str, index: int) -> int:
    """Returns how long x402 terms allow an authorization to be valid.

    Raises:
        WireError: The terms can't be read.
    """
    return _timeout_of(as_object(accepted_terms(decode_json_header(wire), index), "x402 terms"))


def _timeout_of(terms: JsonObject) -> int:
    timeout = terms.get("maxTimeoutSeconds")
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout <= 0:
        raise WireError("x402 maxTimeoutSeconds must be a positive integer")
    return min(timeout, MAX_TIMEOUT_SECONDS)


def _check_x402_extra(terms: JsonObject) -> None:
    extra = terms.get("extra")
    if not isinstance(extra, dict):
        raise WireError("x402 terms have no extra with the token's EIP-712 domain")
    if extra.get("assetTransferMethod", "eip3009") != "eip3009":
        raise WireError("x402 terms ask for another transfer than EIP-3009")
    if not isinstance(extra.get("name"), str) or not isinstance(extra.get("version"), str):
        raise WireError("x402 terms don't name the token's EIP-712 domain")


def x402_challenge_id(terms: JsonObject) -> str:
    """Returns a stable id of x402 terms: the hash of their canonical JSON."""
    return "x402:" + hashlib.sha256(rfc8785.dumps(terms)).hexdigest()


def accepted_terms(required: JsonObject, index: int) -> JsonValue:
    accepts = required.get("accepts")
    if not isinstance(accepts, list) or index >= len(accepts):
        raise WireError("x402 answer has no terms under this number")
    return accepts[index]
