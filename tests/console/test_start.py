"""The start page of `waystation dev`."""

from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from tests.console.people import Console
from tests.console.test_access import violations
from tests.console.test_money import APPROVE
from tests.console.test_sign_in import SIZES
from tests.console.test_streaming import ready

TEMPORAL = "http://127.0.0.1:8233"


async def start_page(console: Console, **options: Any) -> Page:
    """As it is beside `waystation dev`, which says where everything is."""
    context = await console.context(**options)
    sandbox = console.stack.sandbox
    places = {part.replace("-", "_"): sandbox.url(part) for part in ("shop", "paid-api", "processor")}

    async def say(route: Route) -> None:
        await route.fulfill(json={"places": {"api": console.stack.url, "temporal_ui": TEMPORAL, **places}})

    await context.route("**/dev/places", say)
    page = await console.page("/start", context=context)
    await expect(page.get_by_role("heading", name="Agents that run")).to_be_visible()
    return page


@pytest.mark.parametrize("options", SIZES)
async def test_it_shows_what_runs_and_starts_a_session(console: Console, options: dict[str, Any]) -> None:
    page = await start_page(console, **options)
    await expect(page.locator(".start .plain").first).to_contain_text("demo: 1 process")
    addresses = page.locator(".facts dd")
    await expect(addresses).to_have_text(
        [
            console.stack.url,
            TEMPORAL,
            *(console.stack.sandbox.url(one) for one in ("shop", "paid-api", "processor")),
        ]
    )
    assert await violations(page) == []
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(wide) <= 0
    await page.get_by_label("Agent", exact=True).select_option("demo")
    await page.get_by_label("First message").fill("tokens=3 rate=0")
    await page.get_by_role("button", name="Start", exact=True).click()
    await expect(page.locator(".from-agent")).to_have_count(1)


@pytest.mark.parametrize(
    ("who", "role", "heading"),
    [
        ("A customer", "client", "Sessions"),
        ("An operator", "operator", "Sessions"),
        ("An approver", "approver", "Inbox"),
    ],
)
async def test_each_link_is_one_person(console: Console, who: str, role: str, heading: str) -> None:
    page = await start_page(console)
    async with page.context.expect_page() as opened:
        await page.get_by_role("link", name=who, exact=True).click()
    other = await opened.value
    await expect(other.get_by_role("heading", level=1)).to_have_text(heading)
    await expect(other.locator(".who-am-i > span")).to_have_attribute("title", f"test-{role} ({role})")


async def test_an_agent_buys_with_sandbox_money_once_it_is_approved(console: Console) -> None:
    page = await start_page(console)
    await page.get_by_role("button", name="Buy a book at the shop").click()
    await ready(page)
    await page.get_by_role("button", name=APPROVE).click()
    await expect(page.locator(".log .card .pill")).to_have_text("completed")


async def test_without_dev_there_is_no_such_page(console: Console) -> None:
    page = await console.page("/start")
    await expect(page.get_by_role("alert")).to_have_text("This page is only there with waystation dev.")
    await expect(page.get_by_role("heading", level=2)).to_have_count(0)
