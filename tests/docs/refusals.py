"""Every rule that money is refused by, read from the source.

Any call with a parameter ``rule`` counts (exceptions, models, functions), and the code of every failure that
a workflow passes on. What can't be read raises, so that no new way to state a rule goes unseen.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from tests.support import ROOT
from waystation.models.commerce import CheckoutStatus
from waystation.models.mandates import MandateStatus

FOLDERS = ("workflows", "activities", "src/waystation")
ENDED = "api/gateways/ended.py"
"""The one place of the API that refuses by a rule."""
WITHOUT = ("sandbox", "demo", "seller", "session", "webhooks")
"""Folders of other parties, and of sessions and webhooks, whose codes are documented elsewhere."""
FAMILIES = {
    "mandate_": set(get_args(MandateStatus)) - {"active"},
    "checkout_": {str(status) for status in CheckoutStatus if status.is_terminal} - {"completed"},
    "already_": {"committed", "released"},
}
"""Rules that end with a status."""
RULE = re.compile(r"[a-z]+(_[a-z0-9]+)*|Allowance[A-Za-z]+")
"""Types of decisions that are refused are named otherwise; the API has a code for each."""
PASSED_ON = re.compile(r"(\w+\.)*(rule|code|type)( if .*)?|rule|error\.code|\*(cause\.details|problem)")
"""Expressions that hand on a rule which was stated, and is found, elsewhere."""


class Module:
    """One file, its functions, and what its names may hold."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree = ast.parse(path.read_text())
        self.calls = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]

    def assigned(self, name: str) -> Iterator[ast.expr]:
        """Yields what a name is set to anywhere in the file."""
        for node in ast.walk(self.tree):
            match node:
                case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                    yield value
                case ast.Assign(targets=[ast.Tuple(elts=[ast.Name(id=found), *_])], value=value) if (
                    found == name
                ):
                    yield value
                case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value) if found == name:
                    yield value


def modules() -> list[Module]:
    """Returns the files that may refuse money."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    kept = [path for path in paths if not set(path.relative_to(ROOT).parts) & set(WITHOUT)]
    return [Module(path) for path in (*kept, ROOT / ENDED)]


def refusal_rules() -> set[str]:
    """Returns every rule of purchases, paid requests, allowances and mandates.

    Raises:
        AssertionError: A rule is stated in a way that this module doesn't read.
    """
    read = modules()
    takers = {name for module in read for name in _takers(module.tree)}
    constants = {name: text for module in read for name, text in _constants(module.tree)}
    found: set[str] = set()
    for module in read:
        for call in module.calls:
            stated = _stated(call, takers)
            if stated is not None:
                found |= _values(stated, module, constants)
        found |= _returned_by_checks(module.tree)
    return {rule for rule in found if RULE.fullmatch(rule)}


def paywall_slugs() -> set[str]:
    """Returns every kind of problem that a paywall answers with."""
    found: set[str] = set()
    for path in sorted((ROOT / "src/waystation/seller/paywall").glob("*.py")):
        module = Module(path)
        for call in module.calls:
            if _called(call) in ("TurnedAway", "problem_response") and not isinstance(
                call.args[0], ast.Attribute
            ):
                found |= {str(ast.literal_eval(call.args[0]))}
    return found


def _takers(tree: ast.AST) -> Iterator[str]:
    """Yields whatever is called with a rule first, or by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            fields = {
                f.target.id
                for f in node.body
                if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)
            }
            inits = [f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]
            if "rule" in fields or any("rule" in _parameters(init) for init in inits):
                yield node.name
        elif isinstance(node, ast.FunctionDef) and _parameters(node)[:1] == ["rule"]:
            yield node.name


def _parameters(function: ast.FunctionDef) -> list[str]:
    return [one.arg for one in (*function.args.args, *function.args.kwonlyargs)]


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str() as text)):
                yield name, text
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=str() as text)):
                yield name, text


def _stated(call: ast.Call, takers: set[str]) -> ast.expr | None:
    """Returns the rule that a call states, if it states one."""
    name = _called(call)
    by_name = next((word.value for word in call.keywords if word.arg == "rule"), None)
    if name in takers:
        return by_name or (call.args[0] if call.args else None)
    if name == "ApplicationError" and len(call.args) > 1:  # the code, which workflows pass on
        return call.args[1]
    if name == "CallFailure" and ast.unparse(call.args[0]).endswith("_REFUSED"):  # kinds passed on by code
        return call.args[1]
    if name == "refusal" and call.args:  # the type of a refused update, which is an allowance's rule
        return call.args[0]
    return None


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else str(getattr(call.func, "attr", ""))


def _values(stated: ast.expr, module: Module, constants: dict[str, str]) -> set[str]:
    match stated:
        case ast.Constant(value=str() as text):
            return {text}
        case ast.Constant(value=None):
            return set()
        case ast.JoinedStr(values=[ast.Constant(value=str() as family), ast.FormattedValue()]):
            return {f"{family}{status}" for status in FAMILIES[family]}
        case ast.Name(id=name) if name in constants:
            return {constants[name]}
        case ast.Name(id=name) if any(True for _ in module.assigned(name)):
            return {text for value in module.assigned(name) for text in _texts(value, constants)}
    text = ast.unparse(stated)
    assert PASSED_ON.fullmatch(text), f"{module.path}:{stated.lineno}: which rule is {text}?"
    return set()


def _texts(value: ast.expr, constants: dict[str, str]) -> Iterator[str]:
    for node in ast.walk(value):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Name) and node.id in constants:
            yield constants[node.id]


def _returned_by_checks(tree: ast.AST) -> set[str]:
    """Returns the rules that ``problem_of_…`` functions return, each with its message."""
    return {
        str(node.value.elts[0].value)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name.startswith("problem_of_")
        for node in ast.walk(function)
        if isinstance(node, ast.Return)
        and isinstance(node.value, ast.Tuple)
        and isinstance(node.value.elts[0], ast.Constant)
    }
