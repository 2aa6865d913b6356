"""A browser and a whole Waystation with its sandbox, started for all tests here and ended after them."""

import json
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright

from tests.console.people import Console, open_console
from tests.world.money_stack import MoneyStack, running_money_stack
from tests.world.temporal import TemporalServer, running_temporal

AGENTS = (
    "waystation.agents.demo:agent",
    "waystation.agents.demo:researcher",
    "waystation.agents.shopper:agent",
    "tests.agent.asking:agent",
    "tests.agent.asking:helper",
)
CUSTOMERS_PAGE = "http://shop.localhost"
"""Another origin, whose pages may call the API."""
TEMPORAL_WEB = "http://temporal.localhost:8233/"
LIMITS = '{"park_after_seconds": 1}'
CHROMIUM = shutil.which("chromium")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")


@pytest.fixture(scope="package")
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on the PATH")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield browser
        await browser.close()


@pytest.fixture(scope="package")
async def temporal_server_of_console(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[TemporalServer]:
    """Of its own: two stacks on one server would share the workers' task queue, and not the keys."""
    async with running_temporal(tmp_path_factory.mktemp("console-temporal")) as server:
        yield server


@pytest.fixture(scope="package")
async def town(
    browser: Browser, temporal_server_of_console: TemporalServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[MoneyStack]:
    folder = tmp_path_factory.mktemp("console")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASKING_BEGUN", str(folder / "begun.txt"))
        settings = {
            "limits": LIMITS,
            "allowed_origins": json.dumps([CUSTOMERS_PAGE]),
            "temporal_web_url": TEMPORAL_WEB,
        }
        async with running_money_stack(folder, temporal_server_of_console, *AGENTS, **settings) as stack:
            yield stack


@pytest.fixture
async def console(browser: Browser, town: MoneyStack) -> AsyncIterator[Console]:
    async with open_console(browser, town) as console:
        yield console
