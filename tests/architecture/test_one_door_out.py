"""Requests to hosts that agents or sellers name leave by one door, buyer/networks.py."""

import ast
from pathlib import Path

import pytest

from tests.architecture.support import PACKAGE, name_of, sources, tree
from tests.support import ROOT

MAKES_REQUESTS = {
    "AsyncClient", "Client", "AsyncHTTPTransport", "HTTPTransport", "request", "stream",
    "get", "post", "put", "patch", "delete", "head", "options",
}  # fmt: skip
THE_DOOR = PACKAGE / "buyer" / "networks.py"
NAMED_BY_THE_OPERATOR = {
    PACKAGE / "buyer" / "wallet.py",  # the chain's endpoint
    PACKAGE / "stripe_http.py",  # the processor
    PACKAGE / "client" / "client.py",  # our own API
    ROOT / "worker.py",  # our own API
}
A_SELLERS_OWN = ("seller", "sandbox", "demo", "dev")


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_no_other_module_makes_a_client(path: Path) -> None:
    if path == THE_DOOR or path in NAMED_BY_THE_OPERATOR:
        return
    if path.is_relative_to(PACKAGE) and path.relative_to(PACKAGE).parts[0] in A_SELLERS_OWN:
        return
    made = [
        f"{node.lineno}: httpx.{node.func.attr}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "httpx"
        and node.func.attr in MAKES_REQUESTS
    ]
    assert made == []
