"""The command line: ``waystation --help``."""

import asyncio
import importlib
import logging
import os
import sys
import traceback
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from waystation.cli import money as money_cli
from waystation.cli import webhooks as webhooks_cli
from waystation.cli.conformance import conformance_app
from waystation.cli.door import Door
from waystation.cli.questions import Wanted, answer, print_approvals, print_questions
from waystation.cli.sign import sign_app
from waystation.cli.storage import storage_app
from waystation.client import Client
from waystation.dev.local import (
    APPROVER_KEY,
    DEFAULT_STATE_FOLDER,
    command_name,
    read_agent_environment,
    read_dev_environment,
)
from waystation.ending import end_within
from waystation.errors import StartError, WaystationError
from waystation.models.questions import QuestionKind
from waystation.models.sessions import OnBusy
from waystation.models.urls import MAX_PORT
from waystation.redaction import install_redaction
from waystation.surrogates import mend
from waystation.terminal import complain, prepare_terminal, say, say_json, say_model

STATE_VARIABLE = "WAYSTATION_STATE"
AGENT_ENDS_WITHIN_SECONDS = 10.0
"""What docs/operations.md promises, whether Temporal answers or not."""


T = TypeVar("T")
app = typer.Typer(
    cls=Door,
    no_args_is_help=True,
    add_completion=False,
    help="Durable sessions for AI agents, and agents that can pay.",
)
session_app = typer.Typer(no_args_is_help=True)
app.add_typer(session_app, name="session")
app.add_typer(storage_app, name="storage")
app.add_typer(sign_app, name="sign")
app.add_typer(conformance_app, name="conformance")


@app.callback()
def _every_command() -> None:
    prepare_terminal()
    for argument in sys.argv[1:]:
        # Python keeps bytes that aren't UTF-8 as halves of surrogate pairs, which nothing can send or store.
        if not argument.isprintable() and mend(argument) != argument:
            raise StartError(f"{mend(argument)!r} is not text in UTF-8; write it in UTF-8.")


_state: ContextVar[Path] = ContextVar("state", default=DEFAULT_STATE_FOLDER)


def server_folder() -> Path:
    """Returns the folder that holds ``workflows``, ``activities``, ``api`` and ``worker.py``.

    In a wheel it is inside this package, so that their names can't clash with anyone else's; in a checkout it
    is the root.
    """
    here = Path(__file__).resolve().parent.parent
    for folder in (here / "_server", here.parent.parent):
        if (folder / "worker.py").is_file() and (folder / "api" / "main.py").is_file():
            return folder
    raise StartError("the server's files are not installed; use: pip install 'waystation[server]'")


def _enter_server() -> None:
    folder = str(server_folder())
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    install_redaction()


# Processes


@app.command()
def dev(
    agent: Annotated[
        list[str], typer.Option(help="An agent to run alongside the demo's, as module:attribute.")
    ] = [],  # noqa: B006
    state: Annotated[
        Path, typer.Option(help="Where everything is kept.", envvar=STATE_VARIABLE)
    ] = DEFAULT_STATE_FOLDER,
    port: Annotated[int, typer.Option(help="The API's port.", min=1, max=MAX_PORT)] = 8470,
    temporal_port: Annotated[int, typer.Option(help="Temporal's port.", min=1, max=MAX_PORT)] = 7470,
    sandbox_port: Annotated[
        int | None,
        typer.Option(
            help="The first of the sandbox's three ports; without it they are chosen once, and kept.",
            min=1,
            max=MAX_PORT - 2,
        ),
    ] = None,
    temporal_ui_port: Annotated[
        int | None,
        typer.Option(
            help="The port of Temporal's web page; without it another one at each start.",
            min=1,
            max=MAX_PORT,
        ),
    ] = None,
    no_sandbox: Annotated[
        bool,
        typer.Option("--no-sandbox", help="Leave out the processor, shop and paid API."),
    ] = False,
) -> None:
    """Run everything on this machine: Temporal, worker, API, agents, sandbox. No account, no Docker."""
    from waystation.dev.processes import Dev

    _log()
    running = Dev(
        state,
        port,
        temporal_port,
        agent,
        server_folder(),
        sandbox=not no_sandbox,
        sandbox_port=sandbox_port,
        temporal_ui_port=temporal_ui_port,
    )
    asyncio.run(running.run())


@app.command()
def worker() -> None:
    """Run a worker for workflows and their activities."""
    _enter_server()
    importlib.import_module("worker").main()


@app.command()
def api() -> None:
    """Run the HTTP API."""
    _enter_server()
    _log()
    importlib.import_module("api.main").main()


@app.command()
def agent(
    references: Annotated[list[str], typer.Argument(help="Agents as module:attribute.")],
    state: Annotated[
        Path,
        typer.Option(help="The state folder of a 'waystation dev' to run beside.", envvar=STATE_VARIABLE),
    ] = DEFAULT_STATE_FOLDER,
) -> None:
    """Run agents in this process."""
    from waystation.agent import Agent, serve

    _log()
    os.environ.update(read_agent_environment(state, os.environ))
    sys.path.insert(0, str(Path.cwd()))
    agents = []
    for reference in references:
        found = _load(reference)
        if not isinstance(found, Agent):
            raise StartError(f"'{reference}' is not a waystation.Agent.")
        agents.append(found)
    asyncio.run(serve(*agents, told_to_end=lambda: end_within(AGENT_ENDS_WITHIN_SECONDS)))


def _load(reference: str) -> object:
    """Returns what ``module:attribute`` refers to. The exit code says that trying again would not help."""
    module, _, attribute = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute or "agent")
    except WaystationError:
        raise
    except Exception as error:
        if not isinstance(error, AttributeError | ModuleNotFoundError):
            complain(traceback.format_exc())
        raise StartError(
            f"can't load the agent '{reference}' ({type(error).__name__}: {error}). "
            "Give it as module:attribute; modules in this folder are found too."
        ) from error


@app.command()
def demo() -> None:
    """Show sessions, purchases and paid requests on real parts, in about a minute."""
    from waystation.demo import run_demo

    raise typer.Exit(asyncio.run(run_demo(server_folder())))


# Sessions


@session_app.callback()
def session(
    context: typer.Context,
    state: Annotated[
        Path, typer.Option(help="The state folder of a 'waystation dev' to talk to.", envvar=STATE_VARIABLE)
    ] = DEFAULT_STATE_FOLDER,
) -> None:
    """Start, watch and control sessions."""
    context.obj = state


def _client(context: typer.Context, *, decides: bool = False) -> Client:
    """``decides``: with ``waystation dev`` running, as the approver, for a service decides for nobody."""
    if decides and not os.environ.get("WAYSTATION_API_KEY"):
        return _approver(context.obj)
    return _service(context.obj)


def _service(state: Path) -> Client:
    if not os.environ.get("WAYSTATION_API_KEY"):
        known = read_dev_environment(state)
        known.pop(APPROVER_KEY, None)
        os.environ.update({**known, **os.environ})
    if not os.environ.get("WAYSTATION_API_KEY"):
        raise StartError(
            f"there is no 'waystation dev' in {state.resolve().parent}: run this in its folder, "
            "or set WAYSTATION_API_KEY and WAYSTATION_URL."
        )
    return Client()


# Money and webhooks


def _keep_state(
    state: Annotated[
        Path, typer.Option(help="The state folder of a 'waystation dev' to talk to.", envvar=STATE_VARIABLE)
    ] = DEFAULT_STATE_FOLDER,
) -> None:
    _state.set(state)


for _name, _app in (
    ("mandate", money_cli.mandate_app),
    ("purchase", money_cli.purchase_app),
    ("payment", money_cli.payment_app),
    ("allowance", money_cli.allowance_app),
    ("webhooks", webhooks_cli.webhooks_app),
):
    _app.callback()(_keep_state)
    app.add_typer(_app, name=_name)


def _money_client() -> Client:
    """Returns a client that, with ``waystation dev`` running, acts as the approver, not as the service."""
    if os.environ.get("WAYSTATION_API_KEY"):
        return Client()
    return _approver(_state.get())


def _approver(state: Path) -> Client:
    known = read_dev_environment(state)
    if APPROVER_KEY not in known:
        raise StartError(
            f"there is no 'waystation dev' in {state.resolve().parent}: run this in its folder, "
            "or set WAYSTATION_API_KEY and WAYSTATION_URL."
        )
    return Client(os.environ.get("WAYSTATION_URL") or known["WAYSTATION_URL"], known[APPROVER_KEY])


money_cli.new_client = _money_client
webhooks_cli.new_client = lambda: _service(_state.get())


SessionArgument = Annotated[str, typer.Argument(help="The session's id.")]


@session_app.command("start")
def session_start(
    context: typer.Context,
    agent: Annotated[str, typer.Argument(help="The agent's name.")] = "demo",
    session_id: Annotated[
        str | None, typer.Option("--id", help="The session's id; choosing it makes this idempotent.")
    ] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="The first message.")] = None,
    title: Annotated[str | None, typer.Option(help="A title for lists.")] = None,
) -> None:
    """Start a session and print its id."""

    async def work() -> None:
        async with _client(context) as client:
            session = await client.start(agent, session_id=session_id, message=message, title=title)
            say(session.id)

    asyncio.run(work())


@session_app.command("send")
def session_send(
    context: typer.Context,
    session_id: SessionArgument,
    text: str,
    on_busy: Annotated[
        OnBusy, typer.Option(help="What happens to the message while a turn runs.")
    ] = OnBusy.QUEUE,
) -> None:
    """Send a message."""

    async def work() -> None:
        async with _client(context) as client:
            sent = await client.attach(session_id).send(text, on_busy=on_busy)
            say_model(sent, indent=None)

    asyncio.run(work())


@session_app.command("stop")
def session_stop(context: typer.Context, session_id: SessionArgument) -> None:
    """Stop the agent and print the outcome."""

    async def work() -> None:
        async with _client(context) as client:
            say_model(await client.attach(session_id).stop(), indent=None)

    asyncio.run(work())


@session_app.command("steer")
def session_steer(context: typer.Context, session_id: SessionArgument, text: str) -> None:
    """Steer the running turn and print whether the steer was consumed or queued."""

    async def work() -> None:
        async with _client(context) as client:
            say_model(await client.attach(session_id).steer(text), indent=None)

    asyncio.run(work())


@session_app.command("questions")
def session_questions(
    context: typer.Context,
    session_id: SessionArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one question per line.")] = False,
) -> None:
    """Print what the agent has asked and nobody has answered."""

    async def work() -> None:
        async with _client(context) as client:
            await print_questions(client.attach(session_id), as_json=as_json)

    asyncio.run(work())


@session_app.command("answer")
def session_answer(
    context: typer.Context,
    session_id: SessionArgument,
    question_id: Annotated[str, typer.Argument(help="The question's id.")],
    value: Annotated[
        str | None, typer.Argument(help="The answer; read as JSON where no text is asked for.")
    ] = None,
    as_json: Annotated[str | None, typer.Option("--json", help="The answer as JSON.")] = None,
    approve: Annotated[
        bool, typer.Option("--approve", help="Approve; you are shown what, and asked.")
    ] = False,
    reject: Annotated[str | None, typer.Option(help="Reject, with this reason.")] = None,
    digest: Annotated[
        str | None, typer.Option(help="The digest of what you have seen; without it you are shown it.")
    ] = None,
) -> None:
    """Answer a question; the first valid answer counts."""
    wanted = Wanted(value, as_json, approve=approve, reject=reject)

    async def work() -> None:
        async with _client(context, decides=True) as client:
            view = await client.attach(session_id).question(question_id)
        async with _client(context, decides=view.kind is QuestionKind.APPROVAL) as client:
            await answer(client.attach(session_id), view, wanted, digest)

    asyncio.run(work())


@app.command()
def approvals(
    session_id: Annotated[str | None, typer.Option("--session", help="Only of this session.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    state: Annotated[
        Path, typer.Option(help="The state folder of a 'waystation dev' to talk to.", envvar=STATE_VARIABLE)
    ] = DEFAULT_STATE_FOLDER,
) -> None:
    """Print what waits for a person's approval: tools, carts, paid requests."""
    _state.set(state)

    async def work() -> None:
        async with _money_client() as client:
            await print_approvals(client, session_id, as_json=as_json)

    asyncio.run(work())


@session_app.command("replay")
def session_replay(
    context: typer.Context,
    session_id: SessionArgument,
    after: Annotated[int, typer.Option(help="Events after this seq.")] = 0,
) -> None:
    """Print the durable events, one JSON object per line."""

    async def work() -> None:
        async with _client(context) as client:
            cursor, more = after, True
            while more:
                page = await client.attach(session_id).replay(after=cursor)
                for event in page.events:
                    say_json(event.to_wire())
                cursor, more = page.next_after, page.more

    asyncio.run(work())


@session_app.command("tail")
def session_tail(context: typer.Context, session_id: SessionArgument) -> None:
    """Follow a session live; it continues when you leave."""
    from waystation.cli.tail import tail

    async def work() -> None:
        async with _client(context) as client:
            await tail(client.attach(session_id))

    try:
        asyncio.run(work())
    except KeyboardInterrupt:
        say()
        say(
            f"Left {session_id}; the agent keeps running. "
            f"To return: {command_name()} session tail {session_id}"
        )
