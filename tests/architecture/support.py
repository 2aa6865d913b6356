"""Reading the source as a test does."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.support import ROOT

PACKAGE = ROOT / "src" / "waystation"
LAYERS = ("api", "workflows", "activities")


# Rules that are broken now, and how to mend it; a rule that is kept again must leave this list.
KNOWN_FLOATS = {
    "activities/checkouts.py": "keep the time at which an address ends in a small class, in nanoseconds",
}
KNOWN_INLINE_TIMES = {
    "workflows/order_events.py": "UNBOUND_LIFETIME belongs into policies.py",
    "workflows/purchase.py": "the shortest poll pause belongs into policies.py",
    "workflows/purchase_payment.py": "the shortest poll pause belongs into policies.py",
}


def expecting(paths: Iterable[Path], known: Mapping[str, str]) -> list[ParameterSet]:
    """The files as test parameters, those with a known fault expected to fail."""
    return [
        pytest.param(
            path,
            id=name_of(path),
            marks=[pytest.mark.xfail(reason=known[name_of(path)], strict=True)]
            if name_of(path) in known
            else [],
        )
        for path in paths
    ]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def sources() -> list[Path]:
    """Every Python file that is shipped."""
    folders = [PACKAGE, *(ROOT / layer for layer in LAYERS)]
    return [*sorted(path for folder in folders for path in folder.rglob("*.py")), ROOT / "worker.py"]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path, *, for_types_too: bool = True) -> Iterator[str]:
    """The modules that a file imports, also inside functions."""
    skipped = set() if for_types_too else set(_type_checking(tree(path)))
    for node in ast.walk(tree(path)):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _type_checking(module: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(module):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from ast.walk(node)


def called(node: ast.AST) -> str:
    """The last name of what a call calls."""
    if not isinstance(node, ast.Call):
        return ""
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""
