"""Which agents there are: when a session is started, and when nobody answers."""

import uuid
from typing import Any

import pytest
from playwright.async_api import Route, expect

from tests.console.people import Console, until
from tests.console.test_access import violations
from tests.console.test_sign_in import SIZES
from tests.console.test_streaming import ask, ready


@pytest.mark.parametrize("options", SIZES)
async def test_a_session_is_started_with_an_agent_that_is_known(
    console: Console, options: dict[str, Any]
) -> None:
    nobody = f"nobody-{uuid.uuid4().hex[:8]}"
    await console.session(nobody)
    page = await console.page("/sessions", **options)
    picker = page.get_by_label("Agent", exact=True)
    await until(page, "() => document.querySelectorAll('#agent option').length > 3")
    offered = await picker.locator("option").all_inner_texts()
    assert offered[-1] == "Another …"
    assert offered.index("shopper") < offered.index(f"{nobody} (not running)"), "those that run come first"
    assert await violations(page) == []
    await picker.select_option("shopper")
    await page.get_by_label("First message").fill("Hello")
    await page.get_by_role("button", name="New session").click()
    await expect(page.locator(".from-agent")).to_contain_text("Tell me in the data")
    await page.go_back()
    await expect(page.get_by_label("Agent", exact=True)).to_have_value("shopper")


@pytest.mark.parametrize("options", SIZES)
async def test_an_agent_that_nobody_runs_is_said_to_be_absent(
    console: Console, options: dict[str, Any]
) -> None:
    nobody = f"nobody-{uuid.uuid4().hex[:8]}"
    page = await console.page("/sessions", **options)
    await page.get_by_label("Agent", exact=True).select_option("Another …")
    await page.get_by_label("Name of the agent").fill(nobody)
    await page.get_by_label("First message").fill("Is anybody there?")
    await page.get_by_role("button", name="New session").click()
    absent = page.locator(".absent")
    await expect(absent).to_contain_text(f"No process runs the agent {nobody}. Start one: waystation agent")
    await expect(absent).to_contain_text("Your message is kept.")
    assert await violations(page) == []
    # A customer can't start one, and isn't told how.
    session_id = page.url.rsplit("/", 1)[-1]
    customer = await console.page(
        f"/sessions/{session_id}", await console.token("client", session_id, "Ada"), **options
    )
    await expect(customer.locator(".absent")).to_have_text(
        f"{nobody} is not available right now. Your message is kept, and answered later."
    )
    await page.get_by_role("button", name="Stop").click()
    await expect(absent).to_be_hidden()


@pytest.mark.thorough
async def test_an_agent_that_works_quietly_is_not_said_to_be_absent(console: Console) -> None:
    nobody = f"nobody-{uuid.uuid4().hex[:8]}"
    session = await console.session(nobody)
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    processes = 1

    async def pretend(route: Route) -> None:
        await route.fulfill(json={"name": nobody, "processes": processes, "last_seen": None})

    await page.route("**/agent", pretend)
    async with page.expect_response("**/agent"):
        await ask(page, "Think about it.")
    await expect(page.locator(".from-user")).to_have_count(1)
    assert await page.locator(".absent").is_hidden()
    # Its only process ends meanwhile: that is noticed too.
    processes = 0
    await expect(page.locator(".absent")).to_be_visible()
    processes = 1
    await expect(page.locator(".absent")).to_be_hidden()
