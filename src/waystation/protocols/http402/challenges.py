"""The server's side: issues challenges, each bound to one request, and authenticates credentials."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import rfc8785
from mpp import Challenge
from x402.extensions.payment_identifier import (
    PAYMENT_IDENTIFIER,
    declare_payment_identifier_extension,
    is_valid_payment_id,
)

from waystation.foreign_json import read_json
from waystation.models.base import JsonObject
from waystation.protocols.http402.wire import (
    X402_VERSION,
    WireError,
    as_object,
    as_text,
    decode_base64,
    decode_json_header,
    parse_mpp_credential,
    parse_time,
)


def x402_extensions() -> JsonObject:
    """Returns the extensions that our servers offer: a payer may name its payment."""
    return {PAYMENT_IDENTIFIER: declare_payment_identifier_extension()}


@dataclass(frozen=True, slots=True)
class RequestScope:
    """The parts of a request that a challenge is bound to."""

    method: str
    path: str
    query: str
    body: bytes

    def digest(self, realm: str) -> str:
        """Returns one hash over realm, method, path, query and body."""
        body_hash = hashlib.sha256(self.body).hexdigest()
        return hashlib.sha256(
            rfc8785.dumps([realm, self.method, self.path, self.query, body_hash])
        ).hexdigest()

    def body_digest(self) -> str | None:
        """Returns the RFC 9530 digest of the body as MPP writes it, or None without a body."""
        if not self.body:
            return None
        return "sha-256=" + base64.b64encode(hashlib.sha256(self.body).digest()).decode("ascii")


def sign(secret_key: bytes, parts: Sequence[str]) -> str:
    """Returns HMAC-SHA256 over the parts, joined unambiguously, as base64url without padding."""
    message = rfc8785.dumps(list(parts))
    mac = hmac.new(secret_key, message, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(mac).decode("ascii").rstrip("=")


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
    """Returns a ``WWW-Authenticate`` value whose id binds terms, expiry and the whole request."""
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
    """A challenge that came back in a credential and was proven to be ours."""

    id: str
    method: str
    terms: JsonObject
    expires_at: datetime
    payload: JsonObject
    proof: str
    """Digest of the payload: what pays, recognizable but not usable."""
    identifier: str | None = None
    """The payer's name for the payment (x402 extension ``payment-identifier``)."""


def read_mpp_credential(value: str, *, secret_key: str, realm: str, scope: RequestScope) -> RedeemedChallenge:
    """Authenticates a credential against this request.

    Raises:
        MalformedCredential: The credential can't be read.
        InvalidChallenge: The challenge wasn't issued by this server for this request.
    """
    try:
        credential = parse_mpp_credential(value)
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
        payload = as_object(credential.payload, "payload")
        proof = _proof(payload)
        expires_at = parse_time(as_text(echo.expires, "expires"))
    except (WireError, rfc8785.CanonicalizationError, ValueError, TypeError):
        raise MalformedCredential("the Payment credential can't be read") from None
    if not hmac.compare_digest(issued.id.encode(), echo.id.encode()):
        raise InvalidChallenge("the challenge was not issued by this server")
    if echo.realm != realm or echo.intent != "charge":
        raise InvalidChallenge("the challenge is for another realm or intent")
    if opaque.get("scope") != scope.digest(realm) or echo.digest != scope.body_digest():
        raise InvalidChallenge("the challenge is for another request (method, path, query or body)")
    return RedeemedChallenge(echo.id, echo.method, terms, expires_at, payload, proof)


def _proof(payload: JsonObject) -> str:
    """Returns the digest of a payload's canonical form, which has no number beyond 2^53.

    Raises:
        CanonicalizationError: It has no canonical form.
    """
    return hashlib.sha256(rfc8785.dumps(payload)).hexdigest()


def _decode_b64url_json(value: str) -> JsonObject:
    try:
        decoded = read_json(decode_base64(value))
    except (binascii.Error, ValueError):
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
    """Returns x402 terms that carry a challenge in ``extra``; clients echo ``accepted`` unchanged.

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

    Raises:
        MalformedCredential: The credential can't be read.
        InvalidChallenge: The challenge wasn't issued by this server for this request.
    """
    try:
        presented = decode_json_header(value)
        accepted = as_object(presented["accepted"], "accepted")
        payload = as_object(presented["payload"], "payload")
        proof = _proof(payload)
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
    return RedeemedChallenge(challenge_id, "x402", terms, expires_at, payload, proof, _identifier(presented))


def _identifier(presented: JsonObject) -> str | None:
    """Returns the payment's identifier, if there is one.

    Raises:
        MalformedCredential: The credential can't be read.
    """
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
