"""What a person approves, and what was done, in lines. What is approved is all that the digest covers. Pure.

Amounts come before the words of a seller, so that words written from right to left don't move them.
"""

import json
from collections.abc import Iterator
from datetime import datetime

from pydantic import BaseModel

from waystation.models.approvals import ApprovalKind, WaitingApproval
from waystation.models.base import JsonObject
from waystation.models.payments import Offer, PaidRequestView
from waystation.models.purchases import Cart, CartFulfillment, CartLine, CartTotal
from waystation.models.questions import QuestionView, as_asked
from waystation.models.trail import AuditTrail


def cart_lines(cart: Cart, digest: str) -> Iterator[str]:
    """Yields a cart as the seller states it; amounts are in minor units."""
    yield f"Checkout {cart.checkout_id} at {cart.seller}, paid to {cart.payee}. Amounts are in minor units."
    for line in cart.lines:
        yield from _line(line, cart.currency)
    for choice in cart.fulfillment:
        yield _fulfillment(choice, cart.currency)
    if cart.ship_to is not None:
        yield "  Sent to:"
        yield from _fields(cart.ship_to)
    for code in cart.discount_codes:
        yield f"  Discount code: {code}"
    yield from _totals(cart.totals, cart.currency, "  ")
    yield f"  To pay: {'not stated' if cart.total is None else cart.total} {cart.currency}"
    yield f"Digest {digest}"


def terms_lines(view: PaidRequestView, offer: Offer) -> Iterator[str]:
    """Yields the terms of a paid request."""
    yield f"{view.method} {view.url}"
    yield f"  {offer.price.amount} {offer.price.currency}, paid to {offer.payee} ({offer.rail})"
    yield f"  Realm: {offer.realm}"
    if view.body_sha256 is not None:
        yield f"  SHA-256 of the body in base64: {view.body_sha256}"
    yield f"Digest {view.terms_digest}"


def question_lines(view: QuestionView) -> Iterator[str]:
    """Yields what is asked, with all that the digest covers."""
    asked = as_asked(view.asked)
    yield f"{asked.question_id}  {asked.kind}, asked by {view.agent}"
    yield f"  {asked.prompt}"
    if asked.tool is not None:
        yield f"  Tool: {asked.tool}"
        yield f"  Arguments: {json.dumps(asked.arguments, ensure_ascii=False, sort_keys=True)}"
        if asked.editable:
            yield "  Whoever approves may change the arguments."
    for choice in asked.choices:
        yield f"  - {choice.value}" + (f": {choice.label}" if choice.label else "")
    if asked.answer_schema is not None:
        yield f"  Schema: {json.dumps(asked.answer_schema, ensure_ascii=False)}"
    yield f"  May answer: {', '.join([*asked.answerers.roles, *asked.answerers.ids])}"
    if view.deadline is not None:
        yield f"  Until {view.deadline:%Y-%m-%d %H:%M:%S} UTC"
    yield f"  Digest {view.digest}"
    if view.outcome is not None:
        by = view.outcome.actor.id if view.outcome.actor else "nobody"
        yield f"  {view.outcome.outcome} by {by}: {json.dumps(view.outcome.value, ensure_ascii=False)}"


def approval_lines(one: WaitingApproval) -> Iterator[str]:
    """Yields what waits for approval, in short, and what decides on it."""
    where = f" in {one.session_id}" if one.session_id else ""
    yield f"{one.since:%Y-%m-%d %H:%M:%S}  {one.kind} {one.id}{where}, for {one.agent or 'nobody known'}"
    if one.question is not None:
        asked = as_asked(one.question.asked)
        yield f"  {asked.tool} {json.dumps(asked.arguments, ensure_ascii=False, sort_keys=True)}"
    elif one.purchase is not None and one.purchase.cart is not None:
        cart = one.purchase.cart
        yield f"  {'not stated' if cart.total is None else cart.total} {cart.currency} to {cart.payee}"
    elif one.payment is not None and one.payment.offer is not None:
        price = one.payment.offer.price
        yield f"  {price.amount} {price.currency} to {one.payment.offer.payee}"
    yield f"  Digest {one.digest}"
    if one.kind == ApprovalKind.TOOL:
        yield f"  waystation session answer {one.session_id} {one.id} --approve"
    else:
        yield f"  waystation {one.kind} approve {one.id}"


def trail_lines(trail: AuditTrail) -> Iterator[str]:
    """Yields the entries of a trail, and what has been answered again since the last of its kind."""
    for entry in trail.entries:
        yield f"{entry.seq:>3}  {_step(entry.time, entry.actor, entry.action, entry.detail)}"
    for again in trail.repeated:
        step = _step(again.first, again.actor, again.action, again.detail)
        yield f"  +  {step}  times={again.count}  last={again.last:%H:%M:%S.%f}"


def _step(time: datetime, actor: str, action: str, detail: JsonObject) -> str:
    said = "  ".join(f"{name}={value}" for name, value in detail.items())
    return f"{time:%H:%M:%S.%f}  {actor:<12} {action:<28} {said}"


def _line(line: CartLine, currency: str) -> Iterator[str]:
    each = "" if line.unit_amount is None else f", {line.unit_amount} {currency} each"
    part = "" if line.parent_id is None else f", part of {line.parent_id}"
    yield f"  {line.quantity} x {line.item_id}{each}: {line.name or line.item_id} (line {line.line_id}{part})"
    yield from _totals(line.totals, currency, "      ")


def _fulfillment(choice: CartFulfillment, currency: str) -> str:
    items = f" for {', '.join(choice.item_ids)}" if choice.item_ids else ""
    return f"  {choice.amount} {currency} for {choice.type} {choice.id}{items}: {choice.title}"


def _totals(totals: tuple[CartTotal, ...], currency: str, indent: str) -> Iterator[str]:
    for total in totals:
        yield f"{indent}{total.amount:>10} {currency}  {total.label} ({total.type})"


def _fields(model: BaseModel, of: str = "") -> Iterator[str]:
    for name, value in model:
        words = f"{of}{name.replace('_', ' ')}"
        if isinstance(value, BaseModel):
            yield from _fields(value, f"{words} ")
        elif value is not None:
            yield f"    {words}: {value}"
