"""``waystation conformance …``: tries an implementation of the agents' socket against docs/ingest.md."""

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

import typer

from waystation.terminal import complain, say, say_json

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from waystation.conformance.report import Report

conformance_app = typer.Typer(
    no_args_is_help=True, help="Try an implementation of the agents' socket against its specification."
)

Only = Annotated[list[str], typer.Option(help="Test only the requirement of this number; may be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@conformance_app.command("agent")
def conformance_agent(
    command: Annotated[
        str | None, typer.Option(help="The command that starts the agent; without it, you start it.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="Where to play the API, as the agent's WAYSTATION_URL; by default any port."),
    ] = None,
    temporal: Annotated[
        str | None, typer.Option(help="The address of a Temporal server; by default one is started.")
    ] = None,
    name: Annotated[str, typer.Option(help="The name under which the agent takes turns.")] = "conformance",
    no_encryption: Annotated[
        bool, typer.Option("--no-encryption", help="Leave out the encryption of payloads, and its test.")
    ] = False,
    only: Only = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Try an agent in any language: plays the API and Temporal's side for it."""
    from waystation.conformance.agents import Wishes, try_agents

    wishes = Wishes(name, command, url, temporal, not no_encryption, tuple(only))
    _print(_tried(try_agents(wishes, complain)), as_json=as_json)


@conformance_app.command("api")
def conformance_api(
    url: Annotated[str, typer.Option(help="The API's address.", envvar="WAYSTATION_URL")],
    key: Annotated[
        str,
        typer.Option(help="A key with the role 'service'.", envvar="WAYSTATION_API_KEY", show_envvar=True),
    ],
    with_temporal: Annotated[
        bool,
        typer.Option("--with-temporal", help="Also hold turns in Temporal, at TEMPORAL_ADDRESS; tests more."),
    ] = False,
    only: Only = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Try an API: a scripted agent writes to it, in sessions of its own that are closed in the end."""
    from waystation.conformance.apis import try_api

    work = try_api(url, key, with_temporal=with_temporal, only=tuple(only), tell=complain)
    _print(_tried(work), as_json=as_json)


def _tried(work: "Coroutine[None, None, Report]") -> "Report":
    from temporalio.runtime import Runtime, TelemetryConfig

    # Its core would log to standard output, where the report goes.
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=None)))
    return asyncio.run(work)


def _print(report: "Report", *, as_json: bool) -> None:
    if as_json:
        say_json(json.dumps(report.as_json(), ensure_ascii=False))
    else:
        for line in report.lines():
            say(line)
    raise typer.Exit(report.exit_code)
