"""The ACP shapes against the specification's own schemas and examples, and the rules by properties."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.seller.shop.agent import NO_SPEC, SPEC, check
from waystation.protocols import acp
from waystation.protocols.acp import TERMINAL_STATUSES, TRANSITIONS, CheckoutStatus, TotalType
from waystation.protocols.acp import dialects as acp_dialects
from waystation.protocols.acp.totals import problems_of_totals
from waystation.protocols.acp.webhooks import InvalidSignatureError, sign_webhook, verify_webhook
from waystation.seller.shop import pricing
from waystation.seller.shop.merchant import (
    Basket,
    Quote,
    QuotedDiscount,
    QuotedFee,
    QuotedLine,
    QuotedOption,
)

with_spec = pytest.mark.skipif(SPEC is None, reason=NO_SPEC)

SHAPES: dict[str, type[acp.AcpModel]] = {
    "CheckoutSession": acp.CheckoutSession,
    "Order": acp.Order,
    "DiscoveryResponse": acp.Discovery,
    "Error": acp.ErrorBody,
    "ProductsResponse": acp.FeedProducts,
    "FeedMetadata": acp.FeedMetadata,
    "AuthenticationResult": acp.AuthenticationResult,
    "CheckoutSessionCompleteRequest": acp.CheckoutCompleteRequest,
}


def _shape_of(document: dict[str, Any]) -> str | None:
    """Which shape an object of an example is, by the fields that only that one has."""
    marks = {
        "CheckoutSession": {"status", "line_items", "totals", "currency"},
        "Order": {"checkout_session_id", "permalink_url"},
        "DiscoveryResponse": {"api_base_url", "transports"},
        "Error": {"type", "code", "message"},
        "ProductsResponse": {"products"},
        "AuthenticationResult": {"outcome"},
        "CheckoutSessionCompleteRequest": {"payment_data"},
    }
    return next((shape for shape, fields in marks.items() if fields <= document.keys()), None)


def _documents(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _documents(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _documents(inner)


def _examples() -> list[tuple[str, str, dict[str, Any]]]:
    found = []
    for file in sorted((Path(SPEC) / "examples").rglob("*.json")) if SPEC else []:
        for index, document in enumerate(_documents(json.loads(file.read_text()))):
            shape = _shape_of(document)
            if shape is not None:
                without_notes = {key: value for key, value in document.items() if key[0] not in "$_"}
                found.append((f"{file.stem}-{index}", shape, without_notes))
    return found


def _fits_the_schema(document: Any, shape: str) -> bool:
    file = "schema.feed.json" if shape in ("ProductsResponse", "FeedMetadata") else None
    try:
        check(document, shape, file or "schema.agentic_checkout.json")
    except AssertionError:
        return False
    return True


@with_spec
def test_every_valid_example_is_read_and_written_back_as_it_was() -> None:
    valid = [one for one in _examples() if _fits_the_schema(one[2], one[1])]
    assert len(valid) > 30
    for name, shape, document in valid:
        model = acp.read(SHAPES[shape], json.dumps(document), name)
        # Shapes that purchases share (buyer, address, 3DS result) have no way to the wire of their own.
        wire = model.model_dump(mode="json", exclude_none=True, context={"reveal_credentials": True})
        assert wire == document, name
        assert not isinstance(model, acp.AcpModel) or model.wire() == document, name
        if isinstance(model, acp.CheckoutSession):
            assert problems_of_totals(model) == (), name


@with_spec
def test_complete_requests_of_the_examples_are_understood() -> None:
    shape = "CheckoutSessionCompleteRequest"
    requests = [one[2] for one in _examples() if one[1] == shape and _fits_the_schema(one[2], shape)]
    assert len(requests) >= 3
    for document in requests:
        read = acp_dialects.read_complete_request(document)
        assert read.payment_data.instrument is not None
        assert read.wire() == document


@with_spec
@pytest.mark.parametrize("shape", ["CheckoutSession", "Order", "Error"])
def test_what_the_schema_refuses_the_models_refuse(shape: str) -> None:
    """Dropping a required field or breaking a type must be noticed by both."""
    documents = [one[2] for one in _examples() if one[1] == shape and _fits_the_schema(one[2], shape)]
    document = max(documents, key=len)
    noticed = 0
    for field, value in document.items():
        broken = [{key: one for key, one in document.items() if key != field}, {**document, field: 7}]
        if isinstance(value, list):
            broken.append({**document, field: [*value, 7]})
        for candidate in broken:
            if _fits_the_schema(candidate, shape):
                continue
            noticed += 1
            with pytest.raises(acp.ProtocolViolationError):
                acp.read(SHAPES[shape], json.dumps(candidate), shape)
    assert noticed >= len(document)


def test_violations_name_places_and_never_values() -> None:
    body = {
        "payment_data": {
            "instrument": {"type": "card", "credential": {"type": "spt", "token": ["spt_secret"]}}
        }
    }
    with pytest.raises(acp.ProtocolViolationError) as caught:
        acp_dialects.read_complete_request(body)
    assert caught.value.problems[0][0] == "$.payment_data.instrument.credential.token"
    assert "spt_secret" not in str(caught.value)
    with pytest.raises(acp.ProtocolViolationError, match="not a JSON"):
        acp.read_session('{"id": NaN}')
    with pytest.raises(acp.ProtocolViolationError, match="larger than"):
        acp.read_session("x" * (acp.MAX_BODY_BYTES + 1))


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "file:///etc/passwd", "//x", "http://", "https://a b"]
)
def test_links_for_people_lead_to_the_web(url: str) -> None:
    with pytest.raises(acp.ProtocolViolationError, match="URL"):
        acp.read(acp.Link, json.dumps({"type": "faq", "url": url}), "the link")


def test_requests_are_written_as_clients_write_them() -> None:
    request = acp.CheckoutCreateRequest(
        line_items=(acp.RequestedItem(id="a"), acp.RequestedItem(id="b", quantity=2)), currency="usd"
    )
    assert request.wire() == {
        "line_items": [{"id": "a"}, {"id": "b", "quantity": 2}],
        "currency": "usd",
        "capabilities": {},
    }
    assert acp_dialects.read_create_request(request.wire()) == request
    check(
        acp.CheckoutCreateRequest(line_items=(acp.RequestedItem(id="a"),), currency="usd").wire(),
        "CheckoutSessionCreateRequest",
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["line_items", "items", "item", "id", "quantity", "currency", "buyer", "discounts", "codes",
                 "coupons", "payment_data", "instrument", "token", "type", "shipping", "option_id",
                 "selected_fulfillment_options", "fulfillment_address", "fulfillment_option_id"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)  # fmt: skip


@given(json_values)
def test_no_request_breaks_the_reader(value: Any) -> None:
    for reader in (
        acp_dialects.read_create_request,
        acp_dialects.read_update_request,
        acp_dialects.read_complete_request,
        acp_dialects.read_cancel_request,
        acp_dialects.read_cart_request,
        acp_dialects.older_option_id,
    ):
        with contextlib.suppress(acp.ProtocolViolationError):
            reader(value)


# Statuses


def test_every_status_is_in_the_table_and_terminal_ones_lead_nowhere() -> None:
    assert set(TRANSITIONS) == set(CheckoutStatus)
    for status in CheckoutStatus:
        assert (not TRANSITIONS[status]) == (status in TERMINAL_STATUSES)
        assert status not in TRANSITIONS[status] or not status.is_terminal


@given(st.sampled_from(CheckoutStatus), st.sampled_from(CheckoutStatus))
def test_a_reader_never_sees_a_terminal_status_left(before: CheckoutStatus, after: CheckoutStatus) -> None:
    if before.is_terminal:
        assert acp.may_be_seen_after(before, after) == (before is after)
    elif after in TRANSITIONS[before] or after is before:
        assert acp.may_be_seen_after(before, after)


# Sums

amounts = st.integers(min_value=0, max_value=10**9)


@st.composite
def priced(draw: st.DrawFn) -> tuple[Basket, Quote]:
    lines = draw(
        st.lists(
            st.builds(
                lambda unit, quantity, off, tax, kind: QuotedLine(
                    item_id="i",
                    name="Item",
                    unit_amount=unit,
                    quantity=quantity,
                    discount=min(off, unit * quantity),
                    tax=tax,
                    fulfilled_by=kind,
                ),
                amounts,
                st.integers(1, 50),
                amounts,
                amounts,
                st.sampled_from(["shipping", "digital"]),
            ),
            min_size=1,
            max_size=5,
        )
    )
    options = draw(
        st.lists(
            st.builds(
                lambda kind, option_id, amount, tax: QuotedOption(
                    type=kind, id=option_id, title="Option", amount=amount, tax=tax
                ),
                st.sampled_from(["shipping", "digital", "local_delivery"]),
                st.sampled_from(["a", "b", "c"]),
                amounts,
                amounts,
            ),
            max_size=3,
            unique_by=lambda option: option.id,
        )
    )
    subtotal = sum(line.base_amount - line.discount for line in lines)
    off = draw(st.integers(0, subtotal))
    coupon = acp.Coupon(id="c", name="Coupon", amount_off=off, currency="usd")
    fees = (QuotedFee(text="Fee", amount=draw(amounts)),) if draw(st.booleans()) else ()
    quote = Quote(
        lines=tuple(lines),
        options=tuple(options),
        fees=fees,
        discounts=(QuotedDiscount(code="C", coupon=coupon, amount=off),),
    )
    picks = tuple(
        acp.SelectedFulfillmentOption(type=option.type, option_id=option.id, item_ids=())
        for option in options
        if draw(st.booleans())
    )
    basket = Basket(items=(acp.RequestedItem(id="i"),), currency="usd", selected_options=picks)
    return basket, quote


def _session(basket: Basket, quote: Quote) -> acp.Cart:
    return acp.Cart(
        id="c", line_items=pricing.line_items(quote), currency="usd", totals=pricing.totals(basket, quote)
    )


@given(priced())
def test_what_the_kit_adds_up_adds_up(case: tuple[Basket, Quote]) -> None:
    cart = _session(*case)
    assert problems_of_totals(cart) == ()
    assert pricing.total_amount(*case) >= 0
    check(cart.wire(), "Cart", "schema.cart.json")


@given(priced(), st.sampled_from(TotalType), st.integers(1, 10**6), st.data())
def test_a_total_that_was_tampered_with_is_noticed(
    case: tuple[Basket, Quote], kind: TotalType, extra: int, data: st.DataObject
) -> None:
    cart = _session(*case)
    places = [index for index, one in enumerate(cart.totals) if one.type is TotalType.TOTAL]
    places += [index for index, one in enumerate(cart.totals) if one.type is kind]
    place = data.draw(st.sampled_from(places))
    changed = cart.totals[place].model_copy(update={"amount": cart.totals[place].amount + extra})
    # A subtotal may be stated before or after discounts; raised to the other reading it is no lie,
    # and the total that is paid stays as it was.
    base = next(one.amount for one in cart.totals if one.type is TotalType.ITEMS_BASE_AMOUNT)
    assume(not (changed.type is TotalType.SUBTOTAL and changed.amount == base))
    totals = (*cart.totals[:place], changed, *cart.totals[place + 1 :])
    assert problems_of_totals(cart.model_copy(update={"totals": totals})) != ()
    doubled = cart.model_copy(update={"totals": (*cart.totals, cart.totals[-1])})
    assert problems_of_totals(doubled) != ()


def test_a_tampered_line_is_noticed() -> None:
    quote = Quote(lines=(QuotedLine(item_id="i", name="Item", unit_amount=500, quantity=2),))
    cart = _session(Basket(items=(acp.RequestedItem(id="i"),), currency="usd"), quote)
    line = cart.line_items[0].model_copy(update={"quantity": 3})
    problems = problems_of_totals(cart.model_copy(update={"line_items": (line,)}))
    assert problems == (("$.line_items[0].totals", "items_base_amount is not unit_amount times quantity"),)


# Signatures


@given(st.permutations(["t", "v1", "v1", "v0", "junk", "", "v1=00"]), st.integers(0, 2**40))
def test_one_signature_that_fits_suffices(names: list[str], now: int) -> None:
    good, bad = sign_webhook("new", b"{}", now), sign_webhook("unknown", b"{}", now)
    signatures = iter([good.partition(",")[2], bad.partition(",")[2].upper().replace("V1", "v1")])
    parts = [f"t={now}" if name == "t" else next(signatures) if name == "v1" else name for name in names]
    for joint in (",", ", "):
        assert verify_webhook(["old", "new"], b"{}", joint.join(parts), now) == now
        with pytest.raises(InvalidSignatureError):
            verify_webhook("old", b"{}", joint.join(parts), now)


@given(st.binary(max_size=200), st.text(min_size=1, max_size=40), st.integers(0, 2**40))
def test_signatures(body: bytes, secret: str, now: int) -> None:
    header = sign_webhook(secret, body, now)
    assert jsonschema.Draft202012Validator({"pattern": r"^t=\d+,v1=[a-fA-F0-9]{64}$"}).is_valid(header)
    assert verify_webhook(secret, body, header, now) == now
    assert verify_webhook(["older", secret], body, header, now + 300) == now
    wrong = [
        (secret, body + b"x", header, now),
        (secret + "x", body, header, now),
        (secret, body, header, now + 301),
        (secret, body, header, now - 301),
        (secret, body, header.replace(f"t={now}", f"t={now + 1}"), now),
        (secret, body, None, now),
        (secret, body, header.replace("v1=", "v0="), now),
        (secret, body, header.replace("v1=", "v1=00"), now),
        (secret, body, header.partition(",")[2], now),
        (secret, body, f"{header},t={now}", now),
        ("", body, header, now),
        ([], body, header, now),
    ]
    for secrets, content, given_header, moment in wrong:
        with pytest.raises(InvalidSignatureError):
            verify_webhook(secrets, content, given_header, moment)
