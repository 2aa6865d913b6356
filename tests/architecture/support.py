"""Reading the source as a test does."""

import ast
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TypeVar

from tests.support import ROOT

PACKAGE = ROOT / "src" / "waystation"
LAYERS = ("api", "workflows", "activities")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def sources() -> list[Path]:
    """Every Python file that is shipped."""
    folders = [PACKAGE, *(ROOT / layer for layer in LAYERS)]
    return [*sorted(path for folder in folders for path in folder.rglob("*.py")), ROOT / "worker.py"]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


Breach = TypeVar("Breach")


def breaches(rule: Callable[[Path], Iterable[Breach]], paths: Iterable[Path]) -> dict[str, list[Breach]]:
    """What a rule finds, by file. A test for each of the files would cost more than the rule."""
    return {name_of(path): found for path in paths if (found := list(rule(path)))}


def called(node: ast.AST) -> str:
    """The last name of what a call calls."""
    if not isinstance(node, ast.Call):
        return ""
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""
