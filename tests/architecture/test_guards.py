"""No way into a workflow is without its guard (workflows/guards.py)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.support import name_of, tree
from tests.support import ROOT

GUARDS = {"init": "starting", "signal": "drop_unless", "update": "answering", "run": "ending"}


def unguarded(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        decorators = [ast.unparse(one).partition("(")[0] for one in node.decorator_list]
        for way, guard in GUARDS.items():
            if f"workflow.{way}" in decorators and decorators != [f"workflow.{way}", guard]:
                yield node.name


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").rglob("*.py")), ids=name_of)
def test_every_handler_has_its_guard(path: Path) -> None:
    assert list(unguarded(path)) == []
