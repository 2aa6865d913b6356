"""Rules that hold for all of the source."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.support import (
    PACKAGE,
    breaches,
    called,
    name_of,
    sources,
    tree,
)
from tests.support import ROOT

MAX_FUNCTION_LINES = 55
MONEY_MODULE = re.compile(
    r"(^|_)(money|mandates?|purchases?|payments?|paid|checkouts?|acp|http402|spt|receipts?|carts?)(_|$)"
)
_UNIT_OF_TIME = re.compile(r"(^|_)(seconds|ms)$", re.IGNORECASE)

# Money


def money_modules() -> list[Path]:
    return [path for path in sources() if MONEY_MODULE.search(path.stem)]


def floats(path: Path) -> Iterator[int]:
    """The lines that use a float for anything that isn't a time by its name."""
    times: set[ast.AST] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.arg | ast.Assign | ast.AnnAssign) and all(map(_is_time, _names(node))):
            times.update(ast.walk(node))
        elif isinstance(node, ast.arguments):
            given = [*node.posonlyargs, *node.args][-len(node.defaults) :] if node.defaults else []
            pairs = [
                *zip(given, node.defaults, strict=True),
                *zip(node.kwonlyargs, node.kw_defaults, strict=True),
            ]
            times.update(default for argument, default in pairs if default and _is_time(argument.arg))
    for node in ast.walk(tree(path)):
        constant = isinstance(node, ast.Constant) and isinstance(node.value, float)
        name = isinstance(node, ast.Name) and node.id == "float"
        if (constant or name) and node not in times:
            yield node.lineno  # type: ignore[attr-defined]


def _names(node: ast.arg | ast.Assign | ast.AnnAssign) -> list[str]:
    if isinstance(node, ast.arg):
        return [node.arg]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id if isinstance(target, ast.Name) else "" for target in targets]


def _is_time(name: str) -> bool:
    return _UNIT_OF_TIME.search(name) is not None


def test_the_money_modules_are_found() -> None:
    assert PACKAGE / "models" / "money.py" in money_modules()


@pytest.mark.parametrize("path", money_modules(), ids=name_of)
def test_money_knows_no_floats(path: Path) -> None:
    assert list(floats(path)) == []


def test_money_does_not_divide() -> None:
    nodes = ast.walk(tree(PACKAGE / "models" / "money.py"))
    assert [n.lineno for n in nodes if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div)] == []


# Workflows


def inline_policies(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        name = called(node)
        if name == "RetryPolicy":
            yield f"{node.lineno}: RetryPolicy"  # type: ignore[attr-defined]
        elif name in ("timedelta", "sleep") and isinstance(node, ast.Call):
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            # Zero is no duration, but something to compare with.
            if any(isinstance(value, ast.Constant) and value.value for value in given):
                yield f"{node.lineno}: {name}"


POLICIES = [ROOT / "workflows" / "policies.py", PACKAGE / "workflow" / "policies.py"]
WORKFLOWS = [
    path for policies in POLICIES for path in sorted(policies.parent.rglob("*.py")) if path != policies
]


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_timeouts_and_retries_are_in_policies_alone(path: Path) -> None:
    assert list(inline_policies(path)) == []


def test_no_workflow_makes_a_local_activity_but_those_that_began_with_them() -> None:
    """Where a query came with the task, a replay has their results in another order: docs/decisions/0010."""
    makers = [
        f"{name_of(path)}: {function.name}"
        for path in WORKFLOWS
        for function in ast.walk(tree(path))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        if any("local_activity" in (called(node) or "") for node in ast.walk(function))
    ]
    assert makers == ["workflows/calls.py: _once_local"]


@pytest.mark.parametrize("path", POLICIES, ids=name_of)
def test_every_policy_says_why(path: Path) -> None:
    """A string follows each, or the last of several that stand together."""
    body = tree(path).body
    undocumented: list[str] = []
    for node, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        explained = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        together = (
            isinstance(following, ast.Assign | ast.AnnAssign) and following.lineno - 1 == node.end_lineno
        )
        if not explained and not together:
            undocumented.append(ast.unparse(node).split(" ")[0])
    assert undocumented == []


# Everywhere


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            documented = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
            start = body[1].lineno if documented and len(body) > 1 else body[0].lineno
            yield node.name, (node.end_lineno or start) - start + 1


def long_functions(path: Path) -> Iterator[tuple[str, int]]:
    return ((name, lines) for name, lines in functions(path) if lines > MAX_FUNCTION_LINES)


def test_functions_fit_a_screen() -> None:
    assert breaches(long_functions, sources()) == {}


def sdk() -> list[Path]:
    """What people import from: the package itself and its models."""
    return [*sorted(PACKAGE.glob("[a-z]*.py")), *sorted((PACKAGE / "models").glob("[a-z]*.py"))]


@pytest.mark.parametrize("path", sdk(), ids=name_of)
def test_public_names_of_the_sdk_say_what_they_are(path: Path) -> None:
    assert ast.get_docstring(tree(path))
    undocumented = [
        node.name
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
    ]
    assert undocumented == []


def checks_digits(path: Path) -> Iterator[int]:
    checks = {"isdigit", "isdecimal", "isnumeric"}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and called(node) in checks:
            yield node.lineno


def test_whole_numbers_in_text_are_read_in_one_way() -> None:
    """``whole_numbers.py`` says why ``str.isdigit`` is no check for a number."""
    assert breaches(checks_digits, sources()) == {}


PRINTING = re.compile(
    r"(print|(typer|click)\.(echo|secho|confirm|prompt|echo_via_pager)|traceback\.print_\w+|rich\.print"
    r"|sys\.(__)?(stdout|stderr)(__)?\.(buffer\.)?write(lines)?|(rich\.console\.)?Console)"
)
PRINTERS = {
    ("typer", "echo"),
    ("typer", "confirm"),
    ("typer", "prompt"),
    ("rich", "print"),
    ("rich.console", "Console"),
}
DOORS = {PACKAGE / "terminal.py", PACKAGE / "rich_console.py"}
"""They clean what they print: no other file may reach a terminal."""


def prints(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and PRINTING.fullmatch(ast.unparse(node.func)):
            yield f"{node.lineno}: {ast.unparse(node.func)}"
        if isinstance(node, ast.ImportFrom) and PRINTERS & {(node.module, name.name) for name in node.names}:
            yield f"{node.lineno}: {ast.unparse(node)}"


def test_everything_printed_goes_through_a_door() -> None:
    assert breaches(prints, sources()).keys() == {name_of(door) for door in DOORS}


SECRET = re.compile(
    r"\b(?:sk|rk|pk)_live_[A-Za-z0-9]{8,}|\bsk-[A-Za-z0-9_-]{20,}|\bsk_test_[A-Za-z0-9]{20,}|\bwhsec_(?=[A-Za-z]*[0-9])[A-Za-z0-9]{16,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{30,}|\bxox[bp]-[A-Za-z0-9-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|\beyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\."
)


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        return []
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


def test_no_file_holds_what_looks_like_a_secret() -> None:
    paths = tracked() or sources()
    texts = ((path, path.read_text(errors="replace")) for path in paths if path.is_file())
    assert [name_of(path) for path, text in texts if SECRET.search(text)] == []


def test_the_pattern_finds_secrets() -> None:
    assert SECRET.search("key = 'sk_live_" + "0123456789abcdef'")
    assert SECRET.search("AKIA" + "ABCDEFGHIJKLMNOP")
    assert not SECRET.search("sk-secret, sk_test_123")
