"""Reading the source as a test does."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

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
