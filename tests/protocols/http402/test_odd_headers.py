"""Header values that nobody sends in good faith: each is read as documented, or refused as documented."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.odd import ANYTHING, BROKEN_JSON, TEXTS, altered
from waystation.foreign_json import MAX_NESTING
from waystation.models.base import JsonObject
from waystation.models.payments import Rail
from waystation.protocols import http402
from waystation.protocols.http402.wire import decode_base64

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECRET, REALM = "s" * 32, "api.test"
ADDRESS = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
SCOPE = http402.RequestScope("POST", "/reports", "a=1", b"{}")
MAX_PROBLEM_CHARACTERS = 64


def encoded(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode()


def blobs(value: dict[str, Any]) -> st.SearchStrategy[str]:
    """Base64 of JSON in one of the ways in which it comes, of something that isn't, or no base64."""
    variants = st.sampled_from([str, lambda text: text.rstrip("="), lambda text: text.translate(OTHER)])
    strange = ANYTHING | BROKEN_JSON | st.binary(max_size=60)
    documents = weighted(altered(value), strange).map(encoded)
    return weighted(st.builds(lambda text, variant: variant(text), documents, variants), TEXTS)


def weighted(usual: st.SearchStrategy[Any], rare: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 7).flatmap(lambda number: usual if number else rare)


OTHER = str.maketrans("-_", "+/")
STRIPE_TERMS = {
    "amount": "50",
    "currency": "usd",
    "externalId": "order-1",
    "methodDetails": {"networkId": "bn_1", "paymentMethodTypes": ["card"]},
}
EVM_TERMS = {
    "amount": "50",
    "currency": ADDRESS,
    "recipient": ADDRESS,
    "methodDetails": {"chainId": 84532, "credentialTypes": ["authorization"]},
}
X402_ANSWER = {
    "x402Version": 2,
    "resource": {"url": "https://api.test/"},
    "extensions": {"payment-identifier": {"info": {"required": False}, "schema": {}}},
}
X402_TERMS = {
    "scheme": "exact",
    "network": "eip155:84532",
    "amount": "1000",
    "asset": ADDRESS,
    "payTo": ADDRESS,
    "maxTimeoutSeconds": 60,
    "extra": {"name": "USDC", "version": "2"},
}


def parameter(usual: str) -> st.SearchStrategy[str]:
    return weighted(st.just(usual), TEXTS)


@st.composite
def mpp_headers(draw: st.DrawFn) -> str:
    method = draw(st.sampled_from(["stripe", "evm"]))
    parameters = {
        "id": draw(parameter("c1")),
        "realm": draw(parameter(REALM)),
        "method": draw(parameter(method)),
        "intent": draw(parameter("charge")),
        "request": draw(blobs(STRIPE_TERMS if method == "stripe" else EVM_TERMS)),
        "expires": draw(parameter("2026-11-22T13:00:00Z")),
        "header": draw(parameter("Authorization")),
        "opaque": draw(blobs({"nonce": "n"})),
        "description": draw(TEXTS),
    }
    left_out = draw(weighted(st.just(set()), st.sets(st.sampled_from(list(parameters)))))
    quoted = draw(weighted(st.just(True), st.just(False)))
    joined = ", ".join(
        f'{name}="{value}"' if quoted else f"{name}={value}"
        for name, value in parameters.items()
        if name not in left_out
    )
    before = draw(st.sampled_from(["", 'Bearer realm="a, b", ', ", ,", "Payment ", '"', "\\"]))
    return f"{before}Payment {joined}" + draw(st.sampled_from(["", ",", '"', ', Basic realm="x"', "\\"]))


X402_HEADERS = blobs({**X402_ANSWER, "accepts": [X402_TERMS, {**X402_TERMS, "amount": "7"}]})

HEADERS = st.lists(
    st.tuples(st.sampled_from(["WWW-Authenticate", "www-authenticate"]), mpp_headers())
    | st.tuples(st.sampled_from(["PAYMENT-REQUIRED", "payment-required"]), X402_HEADERS),
    max_size=3,
)


@given(HEADERS)
def test_every_offer_that_is_read_can_be_paid_and_is_read_again_as_the_same(
    headers: list[tuple[str, str]],
) -> None:
    parsed = http402.parse_offers(headers, now=NOW)
    assert len(parsed.offers) + len(parsed.refused) <= http402.MAX_CANDIDATES + http402.MAX_OFFERS
    for offer in parsed.offers:
        assert offer.price.amount > 0
        assert offer.expires_at is None or offer.expires_at > NOW
        again = http402.read_offer(offer.wire, offer.wire_index, mpp=offer.rail is not Rail.X402_EXACT)
        assert again == offer
        if offer.rail is Rail.X402_EXACT:
            assert 0 < http402.x402_timeout_seconds(offer.wire, offer.wire_index) <= 86_400
            header = http402.x402_credential(offer.wire, offer.wire_index, {}, "0x", identifier="p" * 20)
            assert http402.decode_json_header(header)["accepted"]
            continue
        assert http402.credential_header(offer.wire) in ("authorization", "payment-authorization")
        if offer.rail is Rail.MPP_STRIPE:
            assert http402.stripe_credential(offer.wire, "spt_1").startswith("Payment ")
        else:
            chain_id, token = http402.split_evm_asset(offer.price.currency)
            assert http402.parse_address(token) == token
            nonce = http402.mpp_evm_nonce(offer.challenge_id, offer.realm)
            signed = {"from": ADDRESS, "nonce": nonce}
            assert http402.evm_credential(offer.wire, signed, "0x", chain_id=chain_id).startswith("Payment ")


RECEIPT = {
    "status": "success",
    "timestamp": "2026-11-22T12:00:00Z",
    "reference": "pi_1",
    "method": "stripe",
}
SETTLED = {"success": True, "transaction": "0x1", "network": "eip155:1", "errorReason": "insufficient_funds"}


@given(blobs(RECEIPT), blobs(SETTLED), st.sampled_from(list(Rail)))
def test_every_receipt_is_read_or_none(mpp: str, x402: str, rail: Rail) -> None:
    headers = [("Payment-Receipt", mpp), ("PAYMENT-RESPONSE", x402)]
    receipt = http402.parse_receipt(headers, rail)
    if receipt is not None:
        assert receipt.rail is rail
        assert type(receipt).model_validate_json(receipt.model_dump_json()) == receipt
    reason = http402.parse_settlement_failure(headers)
    assert reason is None or 0 < len(reason) <= MAX_PROBLEM_CHARACTERS


PROBLEM = {"type": http402.PROBLEM_BASE + "payment-expired"}


@given(altered(PROBLEM).map(lambda value: json.dumps(value).encode()) | BROKEN_JSON | st.binary(max_size=60))
def test_every_body_has_a_problems_slug_or_none(body: bytes) -> None:
    slug = http402.problem_slug(body)
    assert slug is None or len(slug) <= MAX_PROBLEM_CHARACTERS


@given(st.binary(max_size=60), st.sampled_from(["", "=", "==", "\n"]))
def test_bytes_come_back_from_either_alphabet_padded_or_not(raw: bytes, after: str) -> None:
    for text in (base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()):
        assert decode_base64(text) == decode_base64(text.rstrip("=")) == raw
    with pytest.raises(ValueError, match=r"(?i)base64|padding|only.*data|characters"):
        decode_base64(base64.b64encode(raw).decode().rstrip("=") + "!" + after)


@given(st.dictionaries(TEXTS, ANYTHING, max_size=3))
def test_an_object_comes_back_from_its_header_or_has_no_canonical_form(value: JsonObject) -> None:
    try:
        read = http402.decode_json_header(http402.encode_json_header(value))
    except http402.WireError:
        assert any(abs(number) >= 2**53 for number in _integers(value))
    else:
        assert read == value


def _integers(value: object) -> list[int]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [value] if isinstance(value, int) else []
    return own + [number for one in inner for number in _integers(one)]


# The seller's side


def issued(nonce: str) -> str:
    return http402.issue_mpp_challenge(
        secret_key=SECRET,
        realm=REALM,
        method="stripe",
        request=STRIPE_TERMS,
        scope=SCOPE,
        expires_at=NOW + timedelta(minutes=5),
        nonce=nonce,
    )


def bound(nonce: str) -> JsonObject:
    return http402.bind_x402_terms(
        dict(X402_TERMS),
        secret_key=SECRET,
        realm=REALM,
        scope=SCOPE,
        expires_at=NOW + timedelta(minutes=5),
        nonce=nonce,
    )


MPP_CREDENTIAL = json.loads(
    base64.urlsafe_b64decode(http402.stripe_credential(issued("n"), "spt_1").split()[1] + "==")
)
X402_CREDENTIAL = {
    "x402Version": 2,
    "accepted": bound("n"),
    "payload": {"signature": "0x1", "authorization": {"from": ADDRESS}},
    "extensions": {"payment-identifier": {"info": {"id": "p" * 20}}},
}


@given(blobs(MPP_CREDENTIAL))
def test_a_credential_is_of_our_challenge_or_refused(blob: str) -> None:
    try:
        redeemed = http402.read_mpp_credential(f"Payment {blob}", secret_key=SECRET, realm=REALM, scope=SCOPE)
    except (http402.MalformedCredential, http402.InvalidChallenge):
        return
    assert (redeemed.id, redeemed.terms) == (MPP_CREDENTIAL["challenge"]["id"], STRIPE_TERMS)
    assert redeemed.expires_at == NOW + timedelta(minutes=5)


@given(blobs(X402_CREDENTIAL))
def test_an_x402_payment_is_of_our_terms_or_refused(blob: str) -> None:
    try:
        redeemed = http402.read_x402_credential(blob, secret_key=SECRET, realm=REALM, scope=SCOPE)
    except (http402.MalformedCredential, http402.InvalidChallenge):
        return
    challenge = X402_CREDENTIAL["accepted"]["extra"]["challenge"]
    assert (redeemed.id, redeemed.terms) == (challenge["id"], X402_TERMS)
    assert redeemed.expires_at == NOW + timedelta(minutes=5)


@given(st.text(max_size=20), st.text(max_size=20), st.binary(max_size=20), TEXTS)
def test_a_credential_counts_for_its_own_request_alone(
    path: str, query: str, body: bytes, nonce: str
) -> None:
    other = http402.RequestScope("POST", path, query, body)
    credential = http402.stripe_credential(issued("n"), "spt_1")
    x402 = encoded({**X402_CREDENTIAL, "accepted": bound(nonce)})
    for scope in (SCOPE, other):
        for read, header in (
            (http402.read_mpp_credential, credential),
            (http402.read_x402_credential, x402),
        ):
            if scope == SCOPE:
                assert read(header, secret_key=SECRET, realm=REALM, scope=scope).payload
                continue
            with pytest.raises(http402.InvalidChallenge):
                read(header, secret_key=SECRET, realm=REALM, scope=scope)


def test_the_bound_of_nesting_holds_for_headers() -> None:
    deep: JsonObject = {}
    for _ in range(MAX_NESTING):
        deep = {"a": deep}
    with pytest.raises(http402.WireError):
        http402.decode_json_header(http402.encode_json_header(deep))
