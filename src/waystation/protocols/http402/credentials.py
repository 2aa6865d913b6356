"""The payer's side: builds the header values that pay a challenge."""

import hashlib
import json
from collections.abc import Mapping

from eth_utils.crypto import keccak
from mpp import Credential
from pydantic import JsonValue
from x402.extensions.payment_identifier import (
    append_payment_identifier_to_extensions,
)

from waystation.models.base import JsonObject
from waystation.protocols.http402.offers import accepted_terms
from waystation.protocols.http402.wire import (
    X402_VERSION,
    decode_json_header,
    encode_json_header,
    parse_mpp_challenge,
)


def stripe_credential(wire: str, token: str) -> str:
    """Returns the ``Authorization`` value that pays a stripe challenge with a shared payment token."""
    challenge = parse_mpp_challenge(wire)
    payload: JsonObject = {"spt": token}
    external_id = challenge.request.get("externalId")
    if isinstance(external_id, str):
        payload["externalId"] = external_id
    return Credential(challenge=challenge.to_echo(), payload=payload).to_authorization()


def credential_header(wire: str) -> str:
    """Returns the header, in lower case, in which a challenge wants its credential."""
    return parse_mpp_challenge(wire).credential_header.lower()


def mpp_evm_nonce(challenge_id: str, realm: str) -> str:
    """Returns the EIP-3009 nonce that the MPP ``evm`` method ties to its challenge."""
    text = json.dumps([challenge_id, realm], separators=(",", ":"), ensure_ascii=False)
    return "0x" + keccak(text=text).hex()


def evm_credential(wire: str, authorization: dict[str, str], signature: str, *, chain_id: int) -> str:
    """Returns the ``Authorization`` value that pays an evm challenge with a signed authorization."""
    challenge = parse_mpp_challenge(wire)
    payload = {"type": "authorization", **authorization, "signature": signature}
    source = f"did:pkh:eip155:{chain_id}:{authorization['from']}"
    return Credential(challenge=challenge.to_echo(), payload=payload, source=source).to_authorization()


def x402_credential(
    wire: str, index: int, authorization: Mapping[str, str], signature: str, *, identifier: str | None = None
) -> str:
    """Returns the ``PAYMENT-SIGNATURE`` value that pays x402 terms; the terms are echoed unchanged.

    ``identifier`` names the payment where the server offers the ``payment-identifier`` extension.
    """
    required = decode_json_header(wire)
    payload: JsonObject = {
        "x402Version": X402_VERSION,
        "accepted": accepted_terms(required, index),
        "payload": {"signature": signature, "authorization": dict[str, JsonValue](authorization)},
    }
    for optional in ("resource", "extensions"):
        if required.get(optional) is not None:
            payload[optional] = required[optional]
    extensions = payload.get("extensions")
    if identifier is not None and isinstance(extensions, dict):
        append_payment_identifier_to_extensions(extensions, identifier)
    return encode_json_header(payload)


def payment_identifier(key: str) -> str:
    """Returns the identifier of a payment, derived from its key: always the same for the same key."""
    return "pay_" + hashlib.sha256(key.encode()).hexdigest()[:40]
