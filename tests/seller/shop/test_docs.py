"""docs/selling.md says what is there, and its example sells."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.seller.shop.agent import ADDRESS, BUYER, Agent, total
from tests.support import ROOT, free_port
from tests.world.sandbox import Processor
from tests.world.uvicorn import running_uvicorn
from waystation.sandbox.catalog import Stockroom
from waystation.sandbox.shop import Behaviour
from waystation.sandbox.shop import Shop as ShopMerchant
from waystation.sandbox.troubles import Trouble
from waystation.seller import Merchant, SellerSettings, SqliteStore
from waystation.seller.shop.mount import Seller
from waystation.seller.shop.routes import acp_router

TEXT = (ROOT / "docs" / "selling.md").read_text()


def test_the_page_shows_the_example_as_it_is() -> None:
    shown = re.search(r"<!-- file: (\S+) -->\n```python\n(.*?)\n```", TEXT, re.DOTALL)
    assert shown is not None
    assert (ROOT / shown[1]).read_text().rstrip() == shown[2]


def test_the_page_names_every_setting_and_method() -> None:
    methods = [name for name in vars(Merchant) if not name.startswith("_")]
    for name in [*SellerSettings.model_fields, *methods]:
        assert f"| `{name}` |" in TEXT, name
    for name in (*Behaviour.model_fields, *Trouble.model_fields["kind"].annotation.__args__):  # type: ignore[union-attr]
        assert name in TEXT, name


def test_the_page_names_every_route(tmp_path: Path) -> None:
    settings = SellerSettings(
        base_url="https://shop.example",
        merchant_id="profile_test_shop",
        merchant_name="Shop",
        stripe_secret_key=SecretStr("sk_test_shop"),
        api_keys={},
    )
    seller = Seller(ShopMerchant(Stockroom(tmp_path / "s.db"), "x"), settings, SqliteStore(tmp_path / "k.db"))
    for route in acp_router(seller).routes:
        assert f"{route.path}" in TEXT, route.path  # type: ignore[attr-defined]


@pytest.fixture
async def tea_shop(tmp_path: Path, seller_processor: Processor) -> AsyncIterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "SHOP_URL": url,
        "SHOP_DB": str(tmp_path / "tea.db"),
        "STRIPE_API_BASE": seller_processor.url,
    }
    async with running_uvicorn(
        "examples.shop_minimal:app", tmp_path, health="/.well-known/acp.json", port=port, env=environment
    ):
        yield url


async def test_the_example_sells(tea_shop: str, seller_processor: Processor) -> None:
    async with Agent(tea_shop, seller_processor.url, api_key="agent-key") as agent:
        feed = (await agent.send("GET", "/feeds/catalog/products")).json()
        tea = feed["products"][0]["variants"][0]["id"]
        session = await agent.create((tea, 3), buyer=BUYER, fulfillment_details={"address": ADDRESS})
        assert (session["status"], total(session)) == ("ready_for_payment", 3100)
        token = await agent.token(3100, seller="profile_test_tea")
        done = (await agent.complete(session["id"], token)).json()
        assert done["status"] == "completed"
        assert done["order"]["permalink_url"].startswith(tea_shop)
