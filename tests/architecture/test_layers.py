"""Imports go one way, and pure parts are pure."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.support import LAYERS, PACKAGE, imports, name_of, sources
from tests.support import ROOT

MAY_IMPORT = {
    "api": {"api", "workflows", "activities", "waystation"},
    "workflows": {"workflows", "activities", "waystation"},
    "activities": {"activities", "waystation"},
    "waystation": {"waystation"},
    "worker": {"workflows", "activities", "waystation"},
}
OURS = {*LAYERS, "waystation", "worker"}
IO_LIBRARIES = {
    "aiohttp", "aioboto3", "aiosqlite", "boto3", "botocore", "fastapi", "httpx", "httpx2", "mpp",
    "prometheus_client",
    "pydantic_settings", "redis", "requests", "socket", "sqlite3", "sse_starlette", "starlette", "stripe",
    "subprocess", "uvicorn", "websockets", "x402",
}  # fmt: skip
PURE = {
    "workflows.session.log": {"temporalio", "asyncio"},
    **{
        f"workflows.{path.parent.name}.rules": {"temporalio"}
        for path in (ROOT / "workflows").glob("*/rules.py")
    },
}


def layer_of(path: Path) -> str:
    return "waystation" if PACKAGE in path.parents else path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    mine = {module.split(".")[0] for module in imports(path)} & OURS
    assert mine - MAY_IMPORT[layer_of(path)] == set()


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").rglob("*.py")), ids=name_of)
def test_workflows_import_no_library_that_does_io(path: Path) -> None:
    assert {module.split(".")[0] for module in imports(path, for_types_too=False)} & IO_LIBRARIES == set()


def loaded_by(module: str) -> set[str]:
    """The top-level modules that importing one loads, seen in a process of its own."""
    script = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(result.stdout.split())


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_load_no_framework(module: str) -> None:
    path = ROOT / f"{module.replace('.', '/')}.py"
    assert {name.split(".")[0] for name in imports(path)} & (PURE[module] | IO_LIBRARIES) == set()


def test_models_load_no_framework() -> None:
    modules = ", ".join(f"waystation.models.{path.stem}" for path in (PACKAGE / "models").glob("[a-z]*.py"))
    assert loaded_by(modules) & {"temporalio", "fastapi", "starlette", "redis", "stripe", "httpx"} == set()


def test_protocols_import_no_framework() -> None:
    for path in (PACKAGE / "protocols").rglob("[a-z]*.py"):
        names = {name.split(".")[0] for name in imports(path, for_types_too=False)}
        # The payment protocols' own libraries parse and encode; their clients are used elsewhere.
        assert names & (IO_LIBRARIES - {"mpp", "x402"} | {"temporalio"}) == set(), name_of(path)


def test_clients_need_no_temporal() -> None:
    loaded = loaded_by("waystation.client, waystation.client.transcript, waystation.errors")
    assert loaded & {"temporalio", "fastapi", "redis", "typer", "pydantic_settings"} == set()
