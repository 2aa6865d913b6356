"""Operators hand a session over to each other and to the agent; what they say among themselves stays so."""

from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.console.people import Console, until
from tests.console.test_access import press, violations
from tests.console.test_chat import DESKTOP, PHONE, TARGETS
from tests.console.test_streaming import IDLE, ask, ready
from waystation.client import Session

SECRET = "She is on the watch list"


async def at(console: Console, session: Session, role: str, name: str, device: dict[str, Any]) -> Page:
    page = await console.page(
        f"/sessions/{session.id}", await console.token(role, session.id, name), **device
    )
    await ready(page)
    return page


async def write_note(page: Page, text: str) -> None:
    await page.get_by_role("button", name="Note", exact=True).click()
    await page.locator("#message").fill(text)
    await page.get_by_role("button", name="Add note").click()
    await expect(page.locator(".staff-note", has_text=text)).to_be_visible()


async def test_two_operators_a_customer_and_an_agent(console: Console) -> None:
    """One at a desk in the light, one with a phone in the dark."""
    session = await console.session()
    ada = await at(console, session, "client", "Ada", PHONE)
    olga = await at(console, session, "operator", "Olga", {**DESKTOP, "color_scheme": "light"})
    await ask(ada, "tokens=5 rate=0")
    await until(ada, IDLE)
    await expect(ada.locator(".company")).to_have_text("Olga reads this.")

    await expect(olga.locator(".hint")).to_have_text("Take over to speak here.")
    await write_note(olga, SECRET)
    await olga.locator("#message").fill("Half a note")
    await olga.reload()
    await ready(olga)
    await expect(olga.get_by_role("button", name="Note", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    await expect(olga.locator("#message")).to_have_value("Half a note")
    await olga.locator("#message").fill("")

    await press(olga, "Take over")
    await olga.get_by_label("Reason").fill(SECRET)
    assert await violations(olga) == []
    await olga.keyboard.press("Enter")
    await expect(olga.locator(".session-head .pill")).to_have_text("you speak")
    await expect(olga.locator(".notice", has_text=SECRET)).to_be_visible()
    await expect(olga.get_by_role("button", name="Send", exact=True)).to_be_enabled()
    await expect(ada.locator(".company")).to_have_text("Olga is with you.")
    await ask(ada, "Where is my order?")
    await expect(ada.locator(".queue").get_by_role("button")).to_have_text(["Edit", "Withdraw"])
    bob = await at(console, session, "client", "Bob", DESKTOP)
    await expect(bob.locator(".queue li p")).to_have_text("Ada: Where is my order?")
    await expect(bob.locator(".queue").get_by_role("button")).to_have_text(["Withdraw"])
    await expect(olga.locator(".from-user").last).to_contain_text("Where is my order?")
    await expect(olga.locator(".queue")).to_be_hidden()

    pete = await at(console, session, "operator", "Pete", {**PHONE, "color_scheme": "dark"})
    await press(pete, "Take over")
    await expect(pete.get_by_role("heading", name="Olga has this session")).to_be_visible()
    assert await violations(pete) == []
    assert await pete.evaluate(TARGETS) == []
    await pete.get_by_role("button", name="Take over from Olga").click()
    await expect(olga.locator(".session-head .pill")).to_have_text("Pete speaks")
    await expect(olga.get_by_role("log").get_by_text("Pete has taken over from you")).to_be_visible()
    await expect(olga.locator("#message")).to_be_disabled()
    await expect(ada.locator(".company")).to_have_text("Pete is with you.")

    await pete.locator("#message").fill("Shipped")
    await pete.get_by_role("button", name="Suggest a reply").click()
    suggested = pete.locator(".suggestion .value")
    await expect(suggested).to_contain_text("Shipped")
    await expect(olga.locator(".suggestion")).to_be_hidden()
    assert await violations(pete) == []
    assert await pete.evaluate(TARGETS) == []
    words = await suggested.inner_text()
    await pete.get_by_role("button", name="Note", exact=True).click()
    await pete.locator("#message").fill("Only for Olga")
    await pete.get_by_role("button", name="Use").click()
    await expect(pete.locator(".session-view > .problem")).to_contain_text("Add your note first")
    await expect(pete.locator("#message")).to_have_value("Only for Olga")
    await pete.locator("#message").fill("")
    await pete.get_by_role("button", name="Use").click()
    await expect(pete.locator("#message")).to_have_value(words)
    await expect(suggested).to_be_hidden()
    assert words not in await ada.locator("body").inner_text(), "it isn't sent by itself"
    await pete.get_by_role("button", name="Suggest a reply").click()
    await expect(suggested).to_contain_text(words, use_inner_text=True)
    await pete.get_by_role("button", name="Dismiss").click()
    await expect(suggested).to_be_hidden()
    await expect(pete.locator("#message")).to_have_value(words)
    await pete.get_by_role("button", name="Send", exact=True).click()
    await expect(ada.locator(".from-operator")).to_contain_text(words)
    await expect(ada.get_by_role("log").get_by_text("Pete answered in the agent's")).to_be_visible()

    await press(pete, "Release")
    await pete.get_by_label("Let the agent answer now").check()
    await pete.get_by_role("dialog").get_by_role("button", name="Release").click()
    await expect(pete.get_by_role("dialog").get_by_role("alert")).to_contain_text("Write a note")
    await pete.get_by_label("Note to the agent").fill("tokens=4 rate=0")
    await pete.get_by_role("dialog").get_by_role("button", name="Release").click()
    await expect(pete.locator(".staff-note", has_text="tokens=4")).to_be_visible()
    await expect(ada.locator(".from-agent")).to_have_count(2)
    await expect(ada.locator(".company")).to_contain_text("reads this")

    text = await ada.locator("body").text_content() or ""
    for kept in (SECRET, "Half a note", "tokens=4", "suggest", "for staff"):
        assert kept not in text, kept
    await expect(ada.get_by_role("button", name="Note", exact=True)).to_have_count(0)


@pytest.mark.thorough
async def test_who_is_a_customer_too_speaks_as_the_operator(console: Console) -> None:
    session = await console.session()
    tokens = [await console.token(role, session.id, "Olga") for role in ("client", "operator")]
    olga = await console.page(f"/sessions/{session.id}", *tokens, **DESKTOP)
    namesake = await console.page(f"/sessions/{session.id}", tokens[0], **DESKTOP)
    await ready(olga)
    await ready(namesake)
    await press(olga, "Take over")
    await olga.keyboard.press("Enter")
    await expect(olga.locator(".hint")).to_have_text("You speak in the agent's place.")
    await expect(namesake.locator(".hint")).to_contain_text("Olga answers in the agent's place")
    await ask(olga, "A person speaks")
    await expect(namesake.locator(".from-operator")).to_contain_text("A person speaks")


@pytest.mark.thorough
async def test_an_empty_session_offers_what_the_agent_does(console: Console) -> None:
    session = await console.session()
    ada = await at(console, session, "client", "Ada", PHONE)
    begin = ada.get_by_role("group", name="Begin with")
    await expect(begin.get_by_role("button")).to_have_count(3)
    assert await ada.evaluate(TARGETS) == []
    assert await violations(ada) == []
    await begin.get_by_role("button", name="tool=search tokens=30").click()
    await expect(ada.locator(".from-user .text")).to_have_text("tool=search tokens=30")
    await expect(begin).to_be_hidden()
    await until(ada, IDLE)


@pytest.mark.thorough
async def test_who_looks_after_a_session_is_in_its_header_and_in_the_list(console: Console) -> None:
    session = await console.session(title="A lost parcel")
    page = await console.page(f"/sessions/{session.id}", **DESKTOP)
    await ready(page)
    await press(page, "Assign")
    await page.get_by_role("dialog").get_by_role("button", name="Assign").click()
    await expect(page.get_by_text("you look after it")).to_be_visible()
    await page.goto(f"{console.stack.url}/#/sessions")
    await page.get_by_role("button", name="I look after").click()
    row = page.locator(".rows li", has_text="A lost parcel")
    await expect(row).to_contain_text("you look after it")
    assert "assignee=test-operator" in page.url
    await page.get_by_role("button", name="Unassigned").click()
    await expect(page.get_by_role("status")).to_have_text("Nothing found.")
    await page.get_by_role("button", name="Unassigned").click()
    await row.get_by_role("link").click()
    await ready(page)
    await press(page, "Assign")
    await page.get_by_label("Operator", exact=True).select_option("Somebody else …")
    await page.get_by_label("Their id").fill("zoe")
    await page.get_by_role("dialog").get_by_role("button", name="Assign").click()
    await expect(page.get_by_text("zoe looks after it")).to_be_visible()
    await press(page, "Assign")
    await page.get_by_label("Operator", exact=True).select_option("Nobody")
    await page.get_by_role("dialog").get_by_role("button", name="Assign").click()
    await expect(page.get_by_text("zoe looks after it")).to_have_count(0)
    await page.goto(f"{console.stack.url}/#/sessions?assignee=zoe")
    await page.get_by_role("button", name="Looked after by: zoe").click()
    await page.get_by_role("button", name="Unassigned").click()
    await expect(row).to_be_visible()
    assert page.url.endswith("#/sessions?unassigned=1")
