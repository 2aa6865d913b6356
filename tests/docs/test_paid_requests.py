"""docs/paid-requests.md names everything that can be set, sent, called and answered."""

import re
from pathlib import Path
from typing import get_args

from fastapi import FastAPI
from fastapi.routing import APIRoute

from waystation.models.payments import FINAL_PAID_REQUEST_STATUSES, PaidRequestStatus, Rail
from waystation.sandbox.paid_api import create_app
from waystation.settings import WalletSettings
from waystation.stripe_http import open_stripe

TEXT = (Path(__file__).parents[2] / "docs" / "paid-requests.md").read_text()


def test_every_setting_of_the_wallet_is_documented() -> None:
    for name in WalletSettings.model_fields:
        assert f"WAYSTATION_WALLET_{name.upper()}" in TEXT


def test_every_final_status_and_rail_is_documented() -> None:
    assert set(get_args(PaidRequestStatus)) >= FINAL_PAID_REQUEST_STATUSES
    for word in (*FINAL_PAID_REQUEST_STATUSES, *Rail):
        assert f"`{word}`" in TEXT


def test_every_route_of_the_sandbox_api_is_documented(tmp_path: Path) -> None:
    processor, _ = open_stripe("sk_test_x", api_base="http://127.0.0.1:1")
    app: FastAPI = create_app(tmp_path, processor=processor)
    paths = [route.path for route in app.routes if isinstance(route, APIRoute)]
    priced = [path for path in paths if path.startswith("/v1/")]
    assert len(priced) == 7
    for path in priced:
        assert re.search(rf"`(GET|POST) {re.escape(path)}[`?]", TEXT), path


def test_every_module_and_test_that_is_named_exists() -> None:
    root = Path(__file__).parents[2]
    for path in re.findall(r"`(tests/[\w/]+\.py)", TEXT):
        assert (root / path).exists(), path
    for module in re.findall(r"python -m ([\w.]+)", TEXT):
        name = module.replace(".", "/")
        files = [
            folder / end for folder in (root, root / "src") for end in (f"{name}.py", f"{name}/__main__.py")
        ]
        assert any(file.exists() for file in files), module
