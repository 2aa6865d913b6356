"""``waystation mandate …``, ``waystation purchase …``, ``… payment …`` and ``… allowance …``."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, TypeVar

import typer
from pydantic import ValidationError

from waystation.cli.statements import cart_lines, terms_lines, trail_lines
from waystation.client import Client
from waystation.client.payments import Payments
from waystation.client.purchases import Buying
from waystation.malformed import what_is_wrong
from waystation.models.mandates import MandateTerms
from waystation.models.payments import PaidRequestView
from waystation.models.purchases import PurchaseView
from waystation.models.trail import AuditTrail
from waystation.terminal import complain, confirm, say, say_model

mandate_app = typer.Typer(no_args_is_help=True, help="Grant, show and revoke mandates.")
allowance_app = typer.Typer(no_args_is_help=True, help="Show and settle allowances.")
payment_app = typer.Typer(no_args_is_help=True, help="Show and decide on paid requests (HTTP 402).")
purchase_app = typer.Typer(no_args_is_help=True, help="Show and decide on purchases.")

T = TypeVar("T")

MandateArgument = Annotated[str, typer.Argument(help="The mandate's id.")]
PurchaseArgument = Annotated[str, typer.Argument(help="The purchase's id.")]
AllowanceArgument = Annotated[str, typer.Argument(help="The allowance's id.")]
PaymentArgument = Annotated[str, typer.Argument(help="The paid request's id.")]
Reason = Annotated[str, typer.Option(help="Why, for the trail.")]

MAX_DAYS: Final = 36_500
"""The longest mandate that a command grants: a hundred years."""

new_client: Callable[[], Client] = Client
"""How commands get their client; the command line's entry point replaces it with its own."""


def _run(work: Callable[[Buying], Coroutine[object, None, T]]) -> T:
    return _call(lambda client: work(Buying(client)))


def _pay(work: Callable[[Payments], Coroutine[object, None, T]]) -> T:
    return _call(lambda client: work(Payments(client)))


def _call(work: Callable[[Client], Coroutine[object, None, T]]) -> T:
    async def whole() -> T:
        async with new_client() as client:
            return await work(client)

    return asyncio.run(whole())


@mandate_app.command("create")
def mandate_create(
    owner: Annotated[str, typer.Option(help="Who grants it: your own id at the API.")],
    agent: Annotated[str, typer.Option(help="The agent that may spend.")],
    cap: Annotated[int, typer.Option(help="The most it may spend, in minor units (cents).")],
    seller: Annotated[list[str], typer.Option(help="An allowed seller's origin; repeat it, or '*' for any.")],
    payment_method: Annotated[list[str], typer.Option(help="A saved payment method's id; tried in order.")],
    currency: Annotated[str, typer.Option(help="ISO 4217 in lower case.")] = "usd",
    days: Annotated[int, typer.Option(help="How long it is valid.", min=1, max=MAX_DAYS)] = 30,
    per_payment_cap: Annotated[int | None, typer.Option(help="The maximum for one payment.")] = None,
    approval_threshold: Annotated[
        int, typer.Option(help="Above this a person approves each cart; 0 means always.")
    ] = 0,
    mandate_id: Annotated[
        str | None, typer.Option("--id", help="The mandate's id; choosing it makes repeating safe.")
    ] = None,
) -> None:
    """Grant a mandate and print it."""
    try:
        terms = MandateTerms.model_validate(
            {
                "owner": owner,
                "agent": agent,
                "cap": {"amount": cap, "currency": currency},
                "per_payment_cap": per_payment_cap,
                "approval_threshold": approval_threshold,
                "valid_until": datetime.now(UTC) + timedelta(days=days),
                "sellers": seller,
                "payment_methods": payment_method,
            }
        )
    except ValidationError as error:
        complain(what_is_wrong(error)[0])
        raise typer.Exit(1) from error
    say_model(_run(lambda buying: buying.grant(terms, mandate_id=mandate_id)))


@mandate_app.command("show")
def mandate_show(mandate_id: MandateArgument) -> None:
    """Print terms and balance."""
    say_model(_run(lambda buying: buying.mandate(mandate_id)))


@mandate_app.command("revoke")
def mandate_revoke(mandate_id: MandateArgument, reason: Reason = "") -> None:
    """Revoke a mandate."""
    say_model(_run(lambda buying: buying.revoke(mandate_id, reason=reason)))


@purchase_app.command("show")
def purchase_show(purchase_id: PurchaseArgument) -> None:
    """Print a purchase with its cart."""
    say_model(_run(lambda buying: buying.purchase(purchase_id)))


@purchase_app.command("approve")
def purchase_approve(
    purchase_id: PurchaseArgument,
    digest: Annotated[
        str | None, typer.Option(help="The digest of the cart you have seen; without it you are asked.")
    ] = None,
) -> None:
    """Approve the cart."""
    seen = digest or _seen_cart(_run(lambda buying: buying.purchase(purchase_id)))
    say_model(_run(lambda buying: buying.approve(purchase_id, seen)))


@purchase_app.command("reject")
def purchase_reject(purchase_id: PurchaseArgument, reason: Reason = "") -> None:
    """Reject the cart; everything is undone."""
    say_model(_run(lambda buying: buying.reject(purchase_id, reason=reason)))


@purchase_app.command("cancel")
def purchase_cancel(purchase_id: PurchaseArgument, reason: Reason = "") -> None:
    """Stop a purchase, if it is not too late."""
    say_model(_run(lambda buying: buying.cancel(purchase_id, reason=reason)))


@purchase_app.command("audit")
def purchase_audit(
    purchase_id: PurchaseArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole trail as JSON.")] = False,
) -> None:
    """Print every step of a purchase."""
    trail = _run(lambda buying: buying.audit(purchase_id))
    _print_trail(trail, as_json)


@payment_app.command("show")
def payment_show(payment_id: PaymentArgument) -> None:
    """Print a paid request with its terms and its response."""
    say_model(_pay(lambda payments: payments.payment(payment_id)))


@payment_app.command("approve")
def payment_approve(
    payment_id: PaymentArgument,
    digest: Annotated[
        str | None, typer.Option(help="The digest of the terms you have seen; without it you are asked.")
    ] = None,
) -> None:
    """Approve the terms."""
    seen = digest or _seen_terms(_pay(lambda payments: payments.payment(payment_id)))
    say_model(_pay(lambda payments: payments.approve(payment_id, seen)))


@payment_app.command("reject")
def payment_reject(payment_id: PaymentArgument, reason: Reason = "") -> None:
    """Reject the terms; nothing is paid."""
    say_model(_pay(lambda payments: payments.reject(payment_id, reason=reason)))


@payment_app.command("cancel")
def payment_cancel(payment_id: PaymentArgument, reason: Reason = "") -> None:
    """Stop a paid request, if nothing has been sent yet."""
    say_model(_pay(lambda payments: payments.cancel(payment_id, reason=reason)))


@payment_app.command("audit")
def payment_audit(
    payment_id: PaymentArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole trail as JSON.")] = False,
) -> None:
    """Print every step of a paid request."""
    _print_trail(_pay(lambda payments: payments.audit(payment_id)), as_json)


@allowance_app.command("show")
def allowance_show(allowance_id: AllowanceArgument) -> None:
    """Print how much of an allowance is spent and held."""
    say_model(_pay(lambda payments: payments.allowance(allowance_id)))


@allowance_app.command("settle")
def allowance_settle(allowance_id: AllowanceArgument, reason: Reason = "") -> None:
    """End an allowance: what was spent is committed, the rest is returned."""
    say_model(_pay(lambda payments: payments.settle(allowance_id, reason=reason)))


@allowance_app.command("audit")
def allowance_audit(
    allowance_id: AllowanceArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole trail as JSON.")] = False,
) -> None:
    """Print every payment and step of an allowance."""
    _print_trail(_pay(lambda payments: payments.allowance_audit(allowance_id)), as_json)


def _print_trail(trail: AuditTrail, as_json: bool) -> None:
    if as_json:
        say_model(trail)
        return
    for line in trail_lines(trail):
        say(line)


def _seen_terms(view: PaidRequestView) -> str:
    """Shows the terms, asks, and returns the digest of what was shown."""
    if view.offer is None or view.terms_digest is None:
        complain(f"the paid request is {view.status}; there are no terms yet")
        raise typer.Exit(1)
    for line in terms_lines(view, view.offer):
        say(line)
    confirm("Approve exactly this?")
    return view.terms_digest


def _seen_cart(view: PurchaseView) -> str:
    """Shows the cart, asks, and returns the digest of what was shown."""
    if view.cart is None or view.digest is None:
        complain(f"the purchase is {view.status}; there is no cart yet")
        raise typer.Exit(1)
    for line in cart_lines(view.cart, view.digest):
        say(line)
    confirm("Approve exactly this?")
    return view.digest
