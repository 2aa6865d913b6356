"""What the documentation shows works: code compiles, frames parse, links lead somewhere, doctests run."""

import ast
import doctest
import importlib
import inspect
import json
import pkgutil
import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import waystation
from tests.docs.support import DOCS, PAGES, blocks, name_of, page
from tests.support import ROOT
from waystation.agent import Agent, SubAgent, Turn
from waystation.client import Client, Session
from waystation.models.events import Event
from waystation.models.ingest import AgentFrame
from waystation.models.socket import Command

CODE = [
    pytest.param(code, id=f"{name_of(path)}-{number}")
    for path in PAGES
    for number, code in enumerate(blocks(path.read_text(), "python"), 1)
]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(waystation.__path__, "waystation.")
    if not module.name.endswith(("__main__", "._child")) and "._server" not in module.name
)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("code", CODE)
def test_python_code_compiles(code: str) -> None:
    compile(code, "<docs>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("code", [p for p in CODE if "import" in p.values[0]])
def test_what_python_code_imports_is_there(code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("name", MODULES)
def test_doctests_run(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def public(owner: type) -> list[str]:
    return [
        f"{owner.__name__}.{name}"
        for name, member in vars(owner).items()
        if not name.startswith("_") and inspect.isroutine(member)
    ]


SDK = {name: owner for owner in (Client, Session, Agent, SubAgent, Turn) for name in public(owner)}


@pytest.mark.parametrize("name", SDK)
def test_every_method_that_users_call_has_a_docstring(name: str) -> None:
    assert inspect.getdoc(getattr(SDK[name], name.partition(".")[2]))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_load(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(path.parent))
    importlib.import_module(path.stem)


@pytest.mark.parametrize("text", [t for t in blocks(page("ingest.md"), "json") if '"op"' in t])
def test_frames_that_are_shown_are_frames(text: str) -> None:
    TypeAdapter(AgentFrame).validate_json(text)


def test_commands_that_are_shown_are_commands() -> None:
    shown = [line for code in blocks(page("http-api.md"), "json") for line in code.splitlines()]
    parsed = [TypeAdapter(Command).validate_json(line) for line in shown if '"op"' in line]
    assert {command.op for command in parsed} == {"send", "withdraw", "stop", "steer", "approve", "answer"}


def test_the_event_that_is_shown_is_an_event() -> None:
    text = json.loads(blocks(page("events.md"), "json")[0])
    assert json.loads(Event.model_validate(text).to_wire()) == text


def _anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        file, _, anchor = target.partition("#")
        if "://" in target:
            continue
        where = (path.parent / file).resolve() if file else path
        if not where.exists() or (anchor and anchor not in _anchors(where.read_text())):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_files_that_are_named_exist(path: Path) -> None:
    folders = "api|workflows|activities|src|tests|examples|console|benchmarks"
    named = re.findall(rf"`((?:{folders})/[\w/.-]+)`", path.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [path.name for path in DOCS.glob("*.md") if f"docs/{path.name}" not in readme] == []
