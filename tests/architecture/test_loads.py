"""What a process loads when it starts. Which room may import which is checked by `make lint`."""

import subprocess
import sys

import pytest

from tests.architecture.support import PACKAGE
from tests.support import ROOT

WALLET = {"eth_account", "eth_keys", "py_ecc", "web3"}
PAYING = WALLET | {"stripe", "mpp", "x402"}


def loaded_by(modules: str) -> set[str]:
    """The top-level modules that importing some loads, seen in a process of its own."""
    script = f"import sys, {modules}; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(result.stdout.split())


@pytest.mark.parametrize(
    ("modules", "never"),
    [
        (
            ", ".join(f"waystation.models.{path.stem}" for path in (PACKAGE / "models").glob("[a-z]*.py")),
            # httpx is there: what parses a URL must be what sends the request.
            {"temporalio", "fastapi", "starlette", "redis", "stripe"},
        ),
        (
            "waystation.client, waystation.sync, waystation.errors",
            {"temporalio", "fastapi", "redis", "typer", "pydantic_settings"} | PAYING,
        ),
        ("waystation.agent", {"fastapi", "redis", "typer"} | PAYING),
        ("waystation.cli.main", {"temporalio", "fastapi", "redis"} | PAYING),
        ("api.main", PAYING),
        ("worker", WALLET),
        ("waystation.seller", {"temporalio"} | WALLET),
    ],
    ids=["models", "client", "agent", "cli", "api", "worker", "seller"],
)
def test_it_loads_no_more_than_it_needs(modules: str, never: set[str]) -> None:
    assert loaded_by(modules) & never == set()


def test_the_wallet_is_what_loads_the_wallets_libraries() -> None:
    assert "eth_account" in loaded_by("waystation.buyer.wallet")
