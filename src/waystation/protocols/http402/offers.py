"""HTTP 402 on the wire: MPP (the ``Payment`` authentication scheme) and x402 version 2.

Pure: reads and writes header values, never a socket. Parsing of single headers
is left to the protocols' own libraries (``mpp``, ``x402``); what is decided here
is how strictly an offer is read, how a challenge is bound to one request, and
what a receipt is worth. Text meant for display (``description``) is never read.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import rfc8785
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from mpp import (  # type: ignore[attr-defined]  # mpp offers ParseError, but its __all__ forgets it
    Challenge,
    Credential,
    ParseError,
)
from mpp import Receipt as MppReceipt
from pydantic import JsonValue, ValidationError
from x402.extensions.payment_identifier import (
    PAYMENT_IDENTIFIER,
    append_payment_identifier_to_extensions,
    declare_payment_identifier_extension,
    is_valid_payment_id,
)

from waystation.models.base import JsonObject
from waystation.models.money import MAX_AMOUNT_MINOR_UNITS, Money
from waystation.models.payments import Offer, Rail, Receipt

MAX_HEADER_CHARACTERS = 16 * 1024
"""A challenge header longer than this is refused unread."""
MAX_OFFERS = 16
"""More offers than this in one answer is an attack, not a price list."""
X402_VERSION = 2
PAYMENT_REQUIRED = "payment-required"
PAYMENT_SIGNATURE = "payment-signature"
PAYMENT_RESPONSE = "payment-response"
PAYMENT_RECEIPT = "payment-receipt"
PROBLEM_BASE = "https://paymentauth.org/problems/"

_AMOUNT = re.compile(r"[0-9]{1,16}")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_NETWORK = re.compile(r"eip155:[1-9][0-9]{0,17}")
_FIAT = re.compile(r"[a-z]{3}")
_AUTH_SCHEME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?: +|$)")
_AUTH_PARAM = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*=")

MppChallenge = Challenge
MppCredential = Credential


class WireError(ValueError):
    """A header doesn't say what its protocol asks for. The message never quotes a credential."""


@dataclass(frozen=True, slots=True)
class ParsedOffers:
    """What a 402 answer offers: usable offers in the server's order, and why the others are not."""

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
    for name, value in headers:
        lowered = name.lower()
        if lowered not in ("www-authenticate", PAYMENT_REQUIRED):
            continue
        if len(value) > MAX_HEADER_CHARACTERS:
            refused.append(f"{lowered} header is longer than {MAX_HEADER_CHARACTERS} characters")
            continue
        readers = _mpp_candidates(value) if lowered == "www-authenticate" else _x402_candidates(value)
        for wire, index in readers:
            if len(offers) + len(refused) >= MAX_OFFERS:
                return ParsedOffers(tuple(offers), (*refused, f"more than {MAX_OFFERS} offers"))
            try:
                offer = read_offer(wire, index, mpp=lowered == "www-authenticate")
                _check_open(offer, now)
            except WireError as error:
                refused.append(str(error))
            else:
                offers.append(offer)
    return ParsedOffers(tuple(offers), tuple(refused))


def read_offer(wire: str, index: int, *, mpp: bool) -> Offer:
    """Reads one offer from the header value it came in. Raises ``WireError``."""
    try:
        return _mpp_offer(wire) if mpp else _x402_offer(wire, index)
    except (ParseError, ValidationError, rfc8785.CanonicalizationError, RecursionError) as error:
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
    where a token is followed by something else than ``=``.
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


def parse_mpp_challenge(wire: str) -> Challenge:
    """Reads one MPP challenge. Raises ``WireError``."""
    try:
        return Challenge.from_www_authenticate(wire)
    except ParseError as error:
        raise WireError(f"malformed MPP challenge: {error}") from None


def _mpp_offer(wire: str) -> Offer:
    challenge = parse_mpp_challenge(wire)
    if challenge.header is not None:
        raise WireError("challenge asks for its credential in another header than Authorization")
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
    if not isinstance(network, str) or not _NETWORK.fullmatch(network):
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
    """Returns for how long x402 terms let an authorization be valid.

    Raises:
        WireError: The terms can't be read.
    """
    return _timeout_of(as_object(_accepted(decode_json_header(wire), index), "x402 terms"))


def _timeout_of(terms: JsonObject) -> int:
    timeout = terms.get("maxTimeoutSeconds")
    if isinstance(timeout, bool) or not isinstance(timeout, int) or not 0 < timeout <= 86_400:
        raise WireError("x402 maxTimeoutSeconds must be an integer from 1 to 86400")
    return timeout


def _check_x402_extra(terms: JsonObject) -> None:
    extra = terms.get("extra")
    if not isinstance(extra, dict):
        raise WireError("x402 terms have no extra with the token's EIP-712 domain")
    if extra.get("assetTransferMethod", "eip3009") != "eip3009":
        raise WireError("x402 terms ask for another transfer than EIP-3009")
    if not isinstance(extra.get("name"), str) or not isinstance(extra.get("version"), str):
        raise WireError("x402 terms don't name the token's EIP-712 domain")


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


def x402_extensions() -> JsonObject:
    """The extensions that a server of ours offers: a payer may name its payment."""
    return {PAYMENT_IDENTIFIER: declare_payment_identifier_extension()}


def x402_challenge_id(terms: JsonObject) -> str:
    """A stable id of x402 terms: the hash of their canonical JSON."""
    return "x402:" + hashlib.sha256(rfc8785.dumps(terms)).hexdigest()


def parse_amount(value: object) -> int:
    """A positive whole number of minor units from its decimal string. Raises ``WireError``."""
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value) or not value.isascii():
        raise WireError("price is not a whole number of minor units")
    amount = int(value)
    if not 0 < amount <= MAX_AMOUNT_MINOR_UNITS:
        raise WireError("price is zero or absurdly large")
    return amount


def parse_address(value: object) -> str:
    """An EIP-55 address. Raises ``WireError``."""
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise WireError("payee or token is not an EVM address")
    return str(to_checksum_address(value))


def evm_asset(network: str, token: object) -> str:
    """The asset id of a token: ``eip155:84532/erc20:0x036C…``."""
    return f"{network}/erc20:{parse_address(token)}"


def split_evm_asset(asset: str) -> tuple[int, str]:
    """``(chain id, token address)`` of an asset id. Raises ``WireError`` for other assets."""
    network, separator, token = asset.partition("/erc20:")
    if not separator or not _NETWORK.fullmatch(network):
        raise WireError(f"{asset} is not an EVM token")
    return int(network.removeprefix("eip155:")), parse_address(token)


def parse_time(value: str) -> datetime:
    """An RFC 3339 instant with its offset. Raises ``WireError``."""
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        raise WireError("timestamp is not RFC 3339") from None
    if instant.tzinfo is None:
        raise WireError("timestamp has no offset from UTC")
    return instant.astimezone(UTC)


def decode_json_header(value: str) -> JsonObject:
    """An x402 header: base64 of a JSON object. Raises ``WireError``."""
    if len(value) > MAX_HEADER_CHARACTERS * 4:
        raise WireError("x402 header is too long")
    try:
        decoded = json.loads(base64.b64decode(value.strip() + "=" * (-len(value.strip()) % 4), validate=True))
        rfc8785.dumps(decoded)
    except (binascii.Error, ValueError, RecursionError, rfc8785.CanonicalizationError):
        raise WireError("x402 header is not base64 of JSON") from None
    if not isinstance(decoded, dict):
        raise WireError("x402 header is not a JSON object")
    return decoded


def encode_json_header(value: JsonObject) -> str:
    """Base64 of compact JSON, as x402 writes its headers."""
    return base64.b64encode(json.dumps(value, separators=(",", ":")).encode()).decode("ascii")


# --- credentials ----------------------------------------------------------------------


def stripe_credential(wire: str, token: str) -> str:
    """The ``Authorization`` value that pays a stripe challenge with a shared payment token."""
    challenge = parse_mpp_challenge(wire)
    payload: JsonObject = {"spt": token}
    external_id = challenge.request.get("externalId")
    if isinstance(external_id, str):
        payload["externalId"] = external_id
    return Credential(challenge=challenge.to_echo(), payload=payload).to_authorization()


def mpp_evm_nonce(challenge_id: str, realm: str) -> str:
    """The EIP-3009 nonce that the MPP ``evm`` method ties to its challenge."""
    text = json.dumps([challenge_id, realm], separators=(",", ":"), ensure_ascii=False)
    return "0x" + keccak(text=text).hex()


def evm_credential(wire: str, authorization: dict[str, str], signature: str, *, chain_id: int) -> str:
    """The ``Authorization`` value that pays an evm challenge with a signed authorization."""
    challenge = parse_mpp_challenge(wire)
    payload = {"type": "authorization", **authorization, "signature": signature}
    source = f"did:pkh:eip155:{chain_id}:{authorization['from']}"
    return Credential(challenge=challenge.to_echo(), payload=payload, source=source).to_authorization()


def x402_credential(
    wire: str, index: int, authorization: Mapping[str, str], signature: str, *, identifier: str | None = None
) -> str:
    """The ``PAYMENT-SIGNATURE`` value that pays x402 terms; the terms are echoed unchanged.

    ``identifier`` names the payment where the server offers the ``payment-identifier`` extension.
    """
    required = decode_json_header(wire)
    payload: JsonObject = {
        "x402Version": X402_VERSION,
        "accepted": _accepted(required, index),
        "payload": {"signature": signature, "authorization": dict[str, JsonValue](authorization)},
    }
    for optional in ("resource", "extensions"):
        if required.get(optional) is not None:
            payload[optional] = required[optional]
    extensions = payload.get("extensions")
    if identifier is not None and isinstance(extensions, dict):
        append_payment_identifier_to_extensions(extensions, identifier)
    return encode_json_header(payload)


def _accepted(required: JsonObject, index: int) -> JsonValue:
    accepts = required.get("accepts")
    if not isinstance(accepts, list) or index >= len(accepts):
        raise WireError("x402 answer has no terms under this number")
    return accepts[index]


def payment_identifier(key: str) -> str:
    """The identifier of a payment, from its own key: the same one however often it is made."""
    return "pay_" + hashlib.sha256(key.encode()).hexdigest()[:40]


def fingerprint(credential: str) -> str:
    """The name of a credential in logs and trails: its SHA-256, which reveals nothing."""
    return "sha256:" + hashlib.sha256(credential.encode()).hexdigest()


# --- receipts -------------------------------------------------------------------------


def parse_receipt(headers: Iterable[tuple[str, str]], rail: Rail) -> Receipt | None:
    """The receipt of a paid answer, or None when there is none or it can't be read."""
    values = {name.lower(): value for name, value in headers}
    try:
        if rail is Rail.X402_EXACT:
            return _x402_receipt(values.get(PAYMENT_RESPONSE))
        return _mpp_receipt(values.get(PAYMENT_RECEIPT), rail)
    except (ParseError, WireError, ValidationError):
        return None


def _mpp_receipt(value: str | None, rail: Rail) -> Receipt | None:
    if value is None or len(value) > MAX_HEADER_CHARACTERS:
        return None
    receipt = MppReceipt.from_payment_receipt(value)
    return Receipt(
        rail=rail,
        status=receipt.status,
        reference=receipt.reference,
        timestamp=receipt.timestamp if receipt.timestamp.tzinfo else receipt.timestamp.replace(tzinfo=UTC),
    )


def _x402_receipt(value: str | None) -> Receipt | None:
    if value is None or len(value) > MAX_HEADER_CHARACTERS:
        return None
    settled = decode_json_header(value)
    status = "success" if settled.get("success") is True else "failed"
    return Receipt(rail=Rail.X402_EXACT, status=status, reference=str(settled.get("transaction", "")))


# --- binding a challenge to one request -------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestScope:
    """The parts of a request that a challenge is bound to."""

    method: str
    path: str
    query: str
    body: bytes

    def digest(self, realm: str) -> str:
        """One hash over realm, method, path, query and body."""
        body_hash = hashlib.sha256(self.body).hexdigest()
        return hashlib.sha256(
            rfc8785.dumps([realm, self.method, self.path, self.query, body_hash])
        ).hexdigest()

    def body_digest(self) -> str | None:
        """The RFC 9530 digest of the body as MPP writes it, or None without a body."""
        if not self.body:
            return None
        return "sha-256=" + base64.b64encode(hashlib.sha256(self.body).digest()).decode("ascii")


def sign(secret_key: bytes, parts: Sequence[str]) -> str:
    """HMAC-SHA256 over length-safe joined parts, base64url without padding."""
    message = rfc8785.dumps(list(parts))
    mac = hmac.new(secret_key, message, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(mac).decode("ascii").rstrip("=")


def problem(slug: str, status: int, detail: str, **more: str) -> JsonObject:
    """An RFC 9457 problem of the Payment scheme."""
    title = slug.replace("-", " ").capitalize()
    return {"type": PROBLEM_BASE + slug, "title": title, "status": status, "detail": detail, **more}


# --- the server's side ----------------------------------------------------------------


def issue_mpp_challenge(
    *,
    secret_key: str,
    realm: str,
    method: str,
    request: JsonObject,
    scope: RequestScope,
    expires_at: datetime,
    nonce: str,
) -> str:
    """A ``WWW-Authenticate`` value whose id binds terms, expiry and the whole request."""
    challenge = Challenge.create(
        secret_key=secret_key,
        realm=realm,
        method=method,
        intent="charge",
        request=request,
        expires=expires_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        digest=scope.body_digest(),
        meta={"nonce": nonce, "scope": scope.digest(realm)},
    )
    return challenge.to_www_authenticate(realm)


@dataclass(frozen=True, slots=True)
class RedeemedChallenge:
    """A challenge that came back in a credential, proven to be one that we issued."""

    id: str
    method: str
    terms: JsonObject
    expires_at: datetime
    payload: JsonObject
    identifier: str | None = None
    """The payer's name for the payment (x402 extension ``payment-identifier``)."""


def read_mpp_credential(value: str, *, secret_key: str, realm: str, scope: RequestScope) -> RedeemedChallenge:
    """Authenticates a credential against this request.

    Raises ``MalformedCredential`` or ``InvalidChallenge``.
    """
    try:
        credential = Credential.from_authorization(value)
        echo = credential.challenge
        terms = _decode_b64url_json(as_text(echo.request, "request"))
        opaque = {
            name: as_text(value, name)
            for name, value in _decode_b64url_json(as_text(echo.opaque, "opaque")).items()
        }
        issued = Challenge.create(
            secret_key=secret_key,
            realm=echo.realm,
            method=echo.method,
            intent=echo.intent,
            request=terms,
            expires=echo.expires,
            digest=echo.digest,
            meta=opaque,
            header=echo.header,
        )
    except (ParseError, WireError, rfc8785.CanonicalizationError, ValueError, TypeError):
        raise MalformedCredential("the Payment credential can't be read") from None
    if not hmac.compare_digest(issued.id.encode(), echo.id.encode()):
        raise InvalidChallenge("the challenge was not issued by this server")
    if echo.realm != realm or echo.intent != "charge":
        raise InvalidChallenge("the challenge is for another realm or intent")
    if opaque.get("scope") != scope.digest(realm) or echo.digest != scope.body_digest():
        raise InvalidChallenge("the challenge is for another request (method, path, query or body)")
    if not isinstance(credential.payload, dict):
        raise MalformedCredential("the Payment credential has no payload object")
    expires_at = parse_time(as_text(echo.expires, "expires"))
    return RedeemedChallenge(echo.id, echo.method, terms, expires_at, credential.payload)


def _decode_b64url_json(value: str) -> JsonObject:
    try:
        decoded = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        raise WireError("not base64url of JSON") from None
    if not isinstance(decoded, dict):
        raise WireError("not a JSON object")
    return decoded


def bind_x402_terms(
    terms: JsonObject,
    *,
    secret_key: str,
    realm: str,
    scope: RequestScope,
    expires_at: datetime,
    nonce: str,
) -> JsonObject:
    """x402 terms that carry a challenge in ``extra``; clients echo ``accepted`` as they got it.

    x402 signs no URL, so without this a payment for one route would do for any
    other at the same price.
    """
    expires = expires_at.astimezone(UTC).isoformat()
    challenge_id = _x402_mac(terms, secret_key, realm, scope.digest(realm), expires, nonce)
    bound: JsonObject = {"id": challenge_id, "expires": expires, "nonce": nonce}
    extra = as_object(terms.get("extra", {}), "extra")
    return {**terms, "extra": {**extra, "challenge": bound}}


def _x402_mac(terms: JsonObject, secret_key: str, realm: str, scope: str, expires: str, nonce: str) -> str:
    canonical = rfc8785.dumps(terms).decode()
    return sign(secret_key.encode(), ["x402", realm, scope, expires, nonce, canonical])


def read_x402_credential(
    value: str, *, secret_key: str, realm: str, scope: RequestScope
) -> RedeemedChallenge:
    """Authenticates a ``PAYMENT-SIGNATURE`` against this request.

    Raises ``MalformedCredential`` or ``InvalidChallenge``.
    """
    try:
        presented = decode_json_header(value)
        accepted = as_object(presented["accepted"], "accepted")
        payload = as_object(presented["payload"], "payload")
        extra = dict(as_object(accepted["extra"], "extra"))
        bound = as_object(extra.pop("challenge"), "challenge")
        terms: JsonObject = {**accepted, "extra": extra}
        expires, nonce, challenge_id = (as_text(bound[name], name) for name in ("expires", "nonce", "id"))
        expected = _x402_mac(terms, secret_key, realm, scope.digest(realm), expires, nonce)
        expires_at = parse_time(expires)
        readable = presented["x402Version"] == X402_VERSION
        authentic = hmac.compare_digest(expected.encode(), challenge_id.encode())
    except (WireError, KeyError, TypeError, AttributeError, ValueError, rfc8785.CanonicalizationError):
        raise MalformedCredential(
            "the x402 payment can't be read, or doesn't echo the accepted terms"
        ) from None
    if not readable:
        raise MalformedCredential("only x402 version 2 payloads are accepted")
    if not authentic:
        raise InvalidChallenge("the x402 terms were not issued by this server for this request")
    return RedeemedChallenge(challenge_id, "x402", terms, expires_at, payload, _identifier(presented))


def _identifier(presented: JsonObject) -> str | None:
    """The payment's identifier, if there is one. Raises ``MalformedCredential``."""
    extensions = presented.get("extensions")
    extension = extensions.get(PAYMENT_IDENTIFIER) if isinstance(extensions, dict) else None
    info = extension.get("info") if isinstance(extension, dict) else None
    identifier = info.get("id") if isinstance(info, dict) else None
    if identifier is None or (isinstance(identifier, str) and is_valid_payment_id(identifier)):
        return identifier
    raise MalformedCredential("a payment identifier has 16 to 128 letters, digits, dashes or underscores")


class MalformedCredential(WireError):
    """Problem ``malformed-credential``."""


class InvalidChallenge(WireError):
    """Problem ``invalid-challenge``."""


def problem_slug(body: bytes) -> str | None:
    """``payment-expired`` from the body of a Payment problem; None for anything else."""
    try:
        kind = json.loads(body)["type"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(kind, str) or not kind.startswith(PROBLEM_BASE):
        return None
    return kind.removeprefix(PROBLEM_BASE)[:64]
