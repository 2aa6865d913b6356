"""``waystation webhooks …``."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, TypeVar

import typer

from waystation.client import Client
from waystation.client.webhooks import Webhooks
from waystation.models.webhooks import DEFAULT_OVERLAP_SECONDS, MAX_DELIVERIES_IN_PAGE, MAX_OVERLAP_SECONDS
from waystation.terminal import say, say_model

webhooks_app = typer.Typer(no_args_is_help=True, help="Send news to other systems.")

T = TypeVar("T")

WebhookArgument = Annotated[str, typer.Argument(help="The webhook's id.")]
DeliveryArgument = Annotated[str, typer.Argument(help="The delivery's id (its webhook-id).")]
Description = Annotated[str | None, typer.Option(help="What it is for.")]
Details = Annotated[
    bool | None,
    typer.Option("--details/--no-details", help="Whether messages carry what agents and users wrote."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]


new_client: Callable[[], Client] = Client
"""How commands get their client; the command line's entry point replaces it with its own."""


def _run(work: Callable[[Webhooks], Coroutine[object, None, T]]) -> T:
    async def whole() -> T:
        async with new_client() as client:
            return await work(Webhooks(client))

    return asyncio.run(whole())


@webhooks_app.command("create")
def create(
    url: Annotated[str, typer.Argument(help="Where messages are sent.")],
    event: Annotated[list[str], typer.Option(help="A type, a family such as 'turn.*', or '*'; repeat it.")],
    description: Description = None,
    details: Details = None,
    webhook_id: Annotated[
        str | None, typer.Option("--id", help="The webhook's id; choosing it makes repeating safe.")
    ] = None,
) -> None:
    """Create a webhook and print it with its secret, which is shown this once."""
    created = _run(
        lambda webhooks: webhooks.create(
            url, events=event, description=description or "", details=bool(details), webhook_id=webhook_id
        )
    )
    say_model(created)


@webhooks_app.command("list")
def list_webhooks(as_json: AsJson = False) -> None:
    """Print all webhooks."""
    listed = _run(lambda webhooks: webhooks.list())
    if as_json:
        say_model(listed)
        return
    if not listed.webhooks:
        say("There is no webhook.")
    for one in listed.webhooks:
        why = f" ({one.disabled_because})" if one.disabled_because else ""
        say(f"{one.webhook_id}  {one.status}{why}  {one.url}  {' '.join(one.events)}  {one.waiting} waiting")


@webhooks_app.command("show")
def show(webhook_id: WebhookArgument) -> None:
    """Print a webhook, without its secret."""
    say_model(_run(lambda webhooks: webhooks.webhook(webhook_id)))


@webhooks_app.command("change")
def change(
    webhook_id: WebhookArgument,
    url: Annotated[str | None, typer.Option(help="Where messages are sent.")] = None,
    event: Annotated[list[str] | None, typer.Option(help="A type; repeat it. Replaces all.")] = None,
    description: Description = None,
    details: Details = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Whether anything is sent.")
    ] = None,
) -> None:
    """Change, disable or enable a webhook."""
    changed = _run(
        lambda webhooks: webhooks.change(
            webhook_id,
            url=url,
            events=event or None,
            description=description,
            details=details,
            enabled=enabled,
        )
    )
    say_model(changed)


@webhooks_app.command("delete")
def delete(webhook_id: WebhookArgument) -> None:
    """Delete a webhook; what waits is never sent."""
    say_model(_run(lambda webhooks: webhooks.delete(webhook_id)))


@webhooks_app.command("rotate")
def rotate(
    webhook_id: WebhookArgument,
    overlap_seconds: Annotated[
        int, typer.Option(help="For how long the earlier secret signs too.", min=0, max=MAX_OVERLAP_SECONDS)
    ] = DEFAULT_OVERLAP_SECONDS,
) -> None:
    """Make a new secret and print it, this once."""
    say_model(_run(lambda webhooks: webhooks.rotate(webhook_id, overlap_seconds=overlap_seconds)))


@webhooks_app.command("test")
def test(webhook_id: WebhookArgument) -> None:
    """Send a webhook.test."""
    say_model(_run(lambda webhooks: webhooks.test(webhook_id)))


@webhooks_app.command("deliveries")
def deliveries(
    webhook_id: WebhookArgument,
    limit: Annotated[int, typer.Option(help="How many.", min=1, max=MAX_DELIVERIES_IN_PAGE)] = 20,
    status: Annotated[str | None, typer.Option(help="Only 'waiting', 'delivered' or 'failed'.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what waits and what was delivered or given up, newest first."""
    page = _run(lambda webhooks: webhooks.deliveries(webhook_id, limit=limit, status=status))
    if as_json:
        say_model(page)
        return
    for one in page.deliveries:
        last = one.attempts[-1] if one.attempts else None
        how = "" if last is None else f"  {last.error or last.status} in {last.milliseconds} ms"
        say(f"{one.time:%Y-%m-%d %H:%M:%S}  {one.delivery_id}  {one.type}  {one.status}{how}")


@webhooks_app.command("redeliver")
def redeliver(webhook_id: WebhookArgument, delivery_id: DeliveryArgument) -> None:
    """Deliver again what was delivered or given up."""
    say_model(_run(lambda webhooks: webhooks.redeliver(webhook_id, delivery_id)))
