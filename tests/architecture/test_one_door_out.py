"""Requests to hosts that agents or sellers name leave by one door, buyer/networks.py."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.support import PACKAGE, breaches, name_of, sources, tree
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


def clients(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in MAKES_REQUESTS
            and ast.unparse(node.func.value) == "httpx"
        ):
            yield f"{node.lineno}: httpx.{node.func.attr}"


def is_a_sellers(path: Path) -> bool:
    return path.is_relative_to(PACKAGE) and path.relative_to(PACKAGE).parts[0] in A_SELLERS_OWN


def test_no_other_module_makes_a_client() -> None:
    found = breaches(clients, [path for path in sources() if not is_a_sellers(path)])
    assert found.keys() == {name_of(path) for path in {THE_DOOR, *NAMED_BY_THE_OPERATOR}}
