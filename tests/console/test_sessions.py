"""The list of sessions: filters in the address, a search, whom a session waits for, and that it is live."""

import json
import re
import uuid
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.console.people import Console
from tests.console.test_access import lead, violations
from tests.console.test_questions import pose
from tests.world.stack import KEYS
from waystation.client import Session

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}


def row_of(page: Page, session: Session) -> Any:
    return page.locator(".rows li", has=page.locator(f'a[href="#/sessions/{session.id}"]'))


async def asked(console: Console, title: str, audience: dict[str, object]) -> Session:
    session = await console.session(title=title)
    grace = {"id": "grace", "role": "user", "name": "Grace"}
    joined = await console.stack.call(
        "service", "POST", f"/sessions/{session.id}/participants", {"actor": grace}
    )
    assert joined.status_code == 200
    await pose(console, session, {"question_id": "q", "prompt": "Your size?", "audience": audience})
    return session


@pytest.mark.parametrize(
    "screen",
    [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone", marks=pytest.mark.thorough)],
)
async def test_whom_a_session_waits_for_and_what_was_said_last(
    console: Console, screen: dict[str, Any]
) -> None:
    word = f"w{uuid.uuid4().hex[:9]}"
    session = await asked(console, f"Shirt {word}", {"ids": ["grace"]})
    talking = await console.session(title=f"Talk {word}", message="tokens=3 rate=0")
    page = await console.page("/mandates", **screen)
    await lead(page, f"/sessions?q={word}")
    await expect(row_of(page, session).locator(".pill")).to_have_text("waits for Grace")
    await expect(row_of(page, talking).locator(".last-line")).to_have_text(re.compile("^demo: "))
    await expect(page.get_by_role("status")).to_have_text("2 sessions")
    await expect(page.locator(".rows li").first).to_contain_text(f"Talk {word}")
    # Live: it changes without a reload, and moves to the top.
    await session.close()
    await expect(row_of(page, session).locator(".pill")).to_have_text("closed")
    await expect(page.locator(".rows li").first).to_contain_text(f"Shirt {word}")
    assert await violations(page) == []
    wide = await page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0
    if screen is PHONE:
        heights = await page.locator(".filter-chips button").evaluate_all(
            "(all) => all.map((one) => one.getBoundingClientRect().height)"
        )
        assert min(heights) >= 44
        # One row, in which what is chosen comes first.
        chips = page.locator(".filter-chips")
        await chips.get_by_role("button", name="Closed").tap()
        await expect(chips.get_by_role("button").first).to_have_text("Closed")
        await expect(page.get_by_role("status")).to_have_text("1 session")
        assert await chips.evaluate("one => one.clientHeight") < 60
        assert await violations(page) == []
        assert await page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0


async def test_filters_are_in_the_address_and_a_step_back_undoes_one(console: Console) -> None:
    word = f"w{uuid.uuid4().hex[:9]}"
    waits = await asked(console, f"Shirt {word}", {"roles": ["operator"]})
    idle = await console.session(title=f"Other {word}")
    page = await console.page("/mandates", KEYS["operator"])
    await lead(page, f"/sessions?q={word}")
    rows = page.locator(".rows li")
    await expect(rows).to_have_count(2)
    await page.get_by_role("button", name="Waits for me").click()
    await expect(rows).to_have_count(1)
    await expect(row_of(page, waits).locator(".pill")).to_have_text("waits for you")
    assert page.url.endswith(f"#/sessions?q={word}&mine=1")
    await expect(page.get_by_role("button", name="Waits for me")).to_be_focused()
    await expect(page.get_by_role("button", name="Waits for me")).to_have_attribute("aria-pressed", "true")
    await page.go_back()
    await expect(rows).to_have_count(2)
    await page.get_by_role("button", name="Idle").click()
    await expect(row_of(page, idle)).to_be_visible()
    await expect(rows).to_have_count(1)
    await page.reload()
    await expect(rows).to_have_count(1)
    await page.get_by_role("button", name="Clear").click()
    await expect(page.get_by_label("Search")).to_have_value("")
    assert page.url.endswith("#/sessions")


@pytest.mark.thorough
async def test_with_the_keyboard_alone(console: Console) -> None:
    word = f"w{uuid.uuid4().hex[:9]}"
    first = await console.session(title=f"First {word}")
    await console.session(title=f"Second {word}")
    page = await console.page("/sessions", KEYS["operator"])
    await expect(page.locator(".rows li").first).to_be_visible()
    await page.keyboard.press("/")
    await expect(page.get_by_label("Search")).to_be_focused()
    await page.keyboard.type(word)
    await expect(page.locator(".rows li")).to_have_count(2)
    await page.keyboard.press("Tab")
    for key in ("j", "j", "k", "j"):
        await page.keyboard.press(key)
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(f"#/sessions/{first.id}$"))


@pytest.mark.thorough
async def test_a_store_that_can_not_search_says_what_to_do(console: Console) -> None:
    page = await console.page("/sessions", KEYS["operator"])
    problem = {"code": "search-unavailable", "status": 501, "title": "", "detail": "Register those: …"}
    await page.route(
        "**/sessions?*",
        lambda route: route.fulfill(
            status=501, body=json.dumps(problem), content_type="application/problem+json"
        ),
    )
    await page.get_by_role("button", name="Failed").click()
    await expect(page.get_by_role("status")).to_have_text("Register those: …")
    await page.unroute_all(behavior="wait")
