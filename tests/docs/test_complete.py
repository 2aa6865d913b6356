"""Whatever there is, is documented; whatever is documented, there is."""

import ast
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import typer
from fastapi.routing import APIWebSocketRoute
from prometheus_client import REGISTRY
from pydantic_core import PydanticUndefined

from api.main import create_app
from tests.docs.refusals import refusal_rules
from tests.docs.support import first_codes, page, rows
from tests.support import ROOT
from waystation.browser_guard import Code
from waystation.cli.main import app
from waystation.models.events import EventType
from waystation.models.sessions import SessionLimits
from waystation.models.webhooks import WEBHOOK_TYPES
from waystation.settings import MoneySettings, Settings, WalletSettings

# Command line


def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    # By attributes, not types: typer brings a click of its own.
    if hasattr(group, "commands"):
        for name, command in group.commands.items():
            yield from commands(command, f"{path} {name}")
    else:
        yield path, group


def options_of(command: Any) -> list[str]:
    return [
        max(parameter.opts, key=len)
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.name != "help"
    ]


COMMANDS = dict(commands(typer.main.get_command(app), "waystation"))


def described(path: str) -> str:
    """What docs/cli.md says of a command: from its row to the next command's."""
    parts = re.split(r"^\| `(?=waystation )", page("cli.md"), flags=re.MULTILINE)
    return next((part for part in parts if re.match(rf"{re.escape(path)}[` ]", part)), "")


def test_the_commands_are_found() -> None:
    assert {"waystation dev", "waystation session start", "waystation storage prune"} <= set(COMMANDS)
    assert "--on-busy" in options_of(COMMANDS["waystation session send"])


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_is_documented(path: str) -> None:
    text = described(path)
    assert text, f"docs/cli.md has no row for {path}"
    assert [option for option in options_of(COMMANDS[path]) if option not in text] == []


def test_no_command_is_documented_that_does_not_exist() -> None:
    documented = {code for code in first_codes(page("cli.md")) if code.startswith("waystation ")}
    assert [c for c in documented if not any(c == p or c.startswith(f"{p} ") for p in COMMANDS)] == []


def test_every_option_that_is_documented_exists() -> None:
    known = {"--help"} | {
        option
        for command in COMMANDS.values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    assert set(re.findall(r"--[a-z][a-z-]+", page("cli.md"))) - known == set()


# Settings


def documented_settings() -> dict[str, str]:
    """Variable to default, as docs/settings.md has them."""
    return {
        cells[0].strip("`"): cells[1].strip("`")
        for cells in rows(page("settings.md"))
        if cells[0].startswith("`WAYSTATION_")
    }


def shown(default: Any) -> str:
    if default is None or default in ((), {}) or default is PydanticUndefined:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:.10g}" if isinstance(default, (int, float)) else str(default)


FIELDS = (
    {
        f"WAYSTATION_{name.upper()}": field.default
        for name, field in Settings.model_fields.items()
        if name not in ("limits", "money", "wallet")
    }
    | {f"WAYSTATION_{name.upper()}": field.default for name, field in MoneySettings.model_fields.items()}
    | {
        f"WAYSTATION_WALLET_{name.upper()}": field.default
        for name, field in WalletSettings.model_fields.items()
    }
    | {
        f"WAYSTATION_LIMITS__{name.upper()}": field.default
        for name, field in SessionLimits.model_fields.items()
    }
)


@pytest.mark.parametrize("variable", FIELDS)
def test_every_setting_is_documented_with_its_default(variable: str) -> None:
    documented = documented_settings()
    assert variable in documented
    default = "none" if documented[variable] == "[]" else documented[variable]
    assert default == shown(FIELDS[variable])


def test_no_setting_is_documented_that_does_not_exist() -> None:
    from waystation.agents import llm

    known = {*FIELDS, llm.MODEL_VARIABLE, llm.NAME_VARIABLE, llm.INSTRUCTIONS_VARIABLE}
    assert set(documented_settings()) - known == set()


# Routes


def routes() -> set[str]:
    api = create_app(Settings())
    found = {
        f"{method.upper()} {path}" for path, methods in api.openapi()["paths"].items() for method in methods
    }
    return found | {f"WS {path}" for path in _sockets(api.routes)}


def _sockets(routes: list[Any]) -> Iterator[str]:
    for route in routes:
        if isinstance(route, APIWebSocketRoute):
            yield route.path
        else:
            inner = getattr(route, "original_router", None) or getattr(route, "router", None)
            yield from _sockets(getattr(inner, "routes", []) or [])


def sections() -> dict[str, str]:
    parts = re.split(r"^### `([A-Z]+ [^`]+)`$", page("http-api.md"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_sockets_are_found() -> None:
    assert {"WS /ingest", "WS /sessions/{session_id}/socket"} <= routes()


@pytest.mark.parametrize("route", sorted(routes()))
def test_every_route_is_documented_with_an_example(route: str) -> None:
    section = sections().get(route)
    assert section is not None, f"docs/http-api.md has no section ### `{route}`"
    if route != "WS /ingest":  # it has a page of its own
        assert "```sh" in section or "curl $" in section


def test_no_route_is_documented_that_does_not_exist() -> None:
    assert set(sections()) - routes() == set()


# Events


def test_every_event_type_is_documented() -> None:
    assert {str(kind) for kind in EventType} - first_codes(page("events.md")) == set()


def test_no_event_type_is_documented_that_does_not_exist() -> None:
    families = {str(kind).split(".")[0] for kind in EventType}
    documented = {code for code in first_codes(page("events.md")) if code.split(".")[0] in families}
    assert {code for code in documented if "." in code} - {str(kind) for kind in EventType} == set()


# Webhooks


def test_every_webhook_type_is_documented_and_no_other() -> None:
    table = page("webhooks.md").partition("## What is sent")[2].partition("## What is promised")[0]
    documented = {code for row in rows(table) for code in re.findall(r"`([a-z]+\.[a-z_]+)`", row[0])}
    assert documented == {str(kind) for kind in WEBHOOK_TYPES}


# Problem codes


def trees(folder: str) -> Iterator[ast.AST]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield from ast.walk(ast.parse(path.read_text()))


def _text(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def problem_codes() -> set[str]:
    """Every code that the API can answer with, read from its source."""
    codes: set[str | None] = set()
    for node in trees("api"):
        match node:
            case ast.Call():
                codes.update(_text(k.value) for k in node.keywords if k.arg == "code")
                if isinstance(node.func, ast.Attribute) and node.func.attr == "fence":
                    codes.update(map(_text, node.args))
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                codes.update(
                    _text(value)
                    for target, value in zip(names, values, strict=False)
                    if isinstance(target, ast.Name) and target.id == "code"
                )
            case ast.AnnAssign(target=ast.Name(id="code"), value=value):
                codes.add(_text(value))
            case ast.AnnAssign(target=ast.Name(id="_REFUSALS"), value=ast.Dict(values=values)):
                codes.update(_text(v.elts[1]) for v in values if isinstance(v, ast.Tuple))
    return {code for code in codes if code} | {"not-found", "method-not-allowed"} | set(get_args(Code))


def turn_codes() -> set[str]:
    """Every code with which a turn can fail or be retried."""
    codes: set[str | None] = set()
    for node in trees("workflows"):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "AttemptFailedError":
                codes.add(_text(node.args[0]))
            elif node.func.id == "TurnEnded":
                codes.update(_text(k.value) for k in node.keywords if k.arg == "code")
    return {code for code in codes if code}


def test_the_codes_are_found() -> None:
    assert {
        "unknown-session",
        "session-busy",
        "wrong-cursor",
        "internal-error",
        "turn-over",
    } <= problem_codes()
    assert {"agent_lost", "turn_not_started"} <= turn_codes()


def test_every_problem_code_is_documented() -> None:
    assert (problem_codes() | turn_codes()) - first_codes(page("errors.md")) == set()


def test_no_problem_code_is_documented_that_does_not_exist() -> None:
    documented = {
        code for code in first_codes(page("errors.md")) if re.fullmatch(r"[a-z]+([-_][a-z]+)*", code)
    }
    assert documented - problem_codes() - turn_codes() - refusal_rules() == set()


# Metrics


def test_every_metric_is_documented() -> None:
    import api.metrics

    assert api.metrics
    known = {metric.name for metric in REGISTRY.collect() if metric.name.startswith("waystation_")}
    documented = {code.removesuffix("_total") for code in first_codes(page("operations.md"))}
    assert known - documented == set()
