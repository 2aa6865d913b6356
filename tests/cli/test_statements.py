"""What a person sees before "Approve exactly this?": all that the digest covers, and nothing but that."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from tests.test_plain_text import dangerous
from waystation.cli.statements import cart_lines, terms_lines, trail_lines
from waystation.models.commerce import Address, FulfillmentDetails
from waystation.models.payments import Offer, PaidRequestView
from waystation.models.purchases import Cart, CartFulfillment, CartLine, CartTotal
from waystation.models.trail import AuditTrail
from waystation.plain_text import clean_line
from workflows.purchase.carts import cart_digest

DIGEST = "sha256:" + "0" * 64
CART = Cart(
    checkout_id="checkout_7",
    seller="https://shop.example.com",
    payee="acct_7",
    currency="usd",
    lines=(
        CartLine(
            line_id="line_7",
            item_id="item_7",
            name="The Tides",
            quantity=41,
            unit_amount=1201,
            totals=(CartTotal(type="subtotal", label="Line subtotal", amount=2402),),
            parent_id="bundle_7",
        ),
    ),
    totals=(CartTotal(type="total", label="Everything", amount=3003),),
    total=3003,
    fulfillment=(
        CartFulfillment(
            type="shipping", id="ship_7", title="By bicycle", amount=601, item_ids=("item_7", "item_8")
        ),
    ),
    ship_to=FulfillmentDetails(
        name="Ada",
        phone_number="+15550100",
        email="ada@example.com",
        address=Address(
            name="Ada L.",
            line_one="1 Main Street",
            line_two="Flat 2",
            city="Springfield",
            state="OR",
            country="US",
            postal_code="97477",
            company="Engines",
        ),
    ),
    discount_codes=("TIDE10", "SPRING"),
)
ESCAPES = "\x1b[2J\x1b[H  Total  1 usd\nApprove exactly this? [y/N]: \r\u202e\u2066\x9b1A"


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value of a model with the place it stands at."""
    if isinstance(value, BaseModel):
        for name, part in value:
            yield from leaves(part, f"{path}.{name}")
    elif isinstance(value, tuple):
        assert value, f"{path} is empty: give it a value, so that this test covers it"
        for part in value:
            yield from leaves(part, path)
    else:
        assert value is not None, f"{path} is missing: give it a value, so that this test covers it"
        yield path, value


@pytest.mark.parametrize(("path", "value"), list(leaves(CART)))
def test_every_value_of_the_cart_is_shown(path: str, value: object) -> None:
    shown = "\n".join(cart_lines(CART, DIGEST))
    assert re.search(rf"(?<!\w){re.escape(str(value))}(?!\w)", shown), path


def test_the_digest_is_shown() -> None:
    assert list(cart_lines(CART, DIGEST))[-1].endswith(DIGEST)


def hostile(value: Any) -> Any:
    """The same JSON, with escape sequences and line ends behind every text."""
    if isinstance(value, dict):
        return {name: part if name in ("seller", "type") else hostile(part) for name, part in value.items()}
    if isinstance(value, list):
        return [hostile(part) for part in value]
    return value + ESCAPES if isinstance(value, str) and "@" not in value else value


def test_no_text_of_the_seller_adds_a_line_or_moves_the_cursor() -> None:
    cart = Cart.model_construct(**dict(Cart.model_validate(hostile(CART.model_dump(mode="json")))))
    assert cart_digest(cart) != cart_digest(CART)
    printed = [clean_line(line) for line in cart_lines(cart, DIGEST)]
    assert len(printed) == len(list(cart_lines(CART, DIGEST)))
    assert [line for line in printed if dangerous(line) or "\n" in line] == []


def test_every_term_of_a_paid_request_is_shown() -> None:
    view = PaidRequestView.model_validate(
        {
            "payment_id": "p",
            "status": "awaiting_approval",
            "final": False,
            "url": "https://api.example.com/report",
            "method": "POST",
            "terms_digest": DIGEST,
            "body_sha256": "b" * 64,
            "updated_at": "2026-01-01T00:00:00Z",
            "offer": {
                "rail": "mpp-stripe",
                "challenge_id": "c",
                "realm": "reports",
                "price": {"amount": 51, "currency": "usd"},
                "payee": "profile_7",
                "expires_at": None,
                "wire": "w",
            },
        }
    )
    assert isinstance(view.offer, Offer)
    shown = "\n".join(terms_lines(view, view.offer))
    for value in (
        view.url, view.method, view.body_sha256, view.terms_digest, view.offer.rail, view.offer.realm,
        view.offer.payee, "51 usd",
    ):  # fmt: skip
        assert str(value) in shown


def test_what_was_only_counted_so_far_is_shown_behind_the_entries() -> None:
    at = "2026-01-01T10:00:0{}Z"
    entry = {
        "seq": 1, "time": at.format(1), "actor": "seller", "action": "checkout.read",
        "detail": {"status": "in_progress"}, "previous": "p", "hash": "h",
    }  # fmt: skip
    again = {
        "actor": "seller", "action": "checkout.read", "detail": {"status": "in_progress"}, "count": 7,
        "first": at.format(2), "last": at.format(9),
    }  # fmt: skip
    trail = AuditTrail.model_validate({"purchase_id": "p", "entries": [entry], "repeated": [again]})
    first, counted = trail_lines(trail)
    assert first.startswith("  1  10:00:01.000000  seller")
    assert counted.startswith("  +  10:00:02.000000  seller")
    assert counted.endswith("status=in_progress  times=7  last=10:00:09.000000")
