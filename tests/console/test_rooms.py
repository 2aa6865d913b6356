"""Little room: what stands side by side on a narrow, low or crowded screen keeps apart and can be read."""

from typing import Any

from playwright.async_api import Page, ViewportSize, expect

from tests.console.people import Console
from tests.console.test_access import violations
from tests.console.test_attention import bell
from tests.console.test_chat import PHONE, TARGETS
from tests.console.test_questions import card_of, pose
from tests.console.test_streaming import ready
from tests.world.stack import KEYS

TITLE = "Where is my parcel from the shop in Bristol? It should have come on Monday, and nobody answers"
NARROW: ViewportSize = {"width": 320, "height": 640}
LOW: ViewportSize = {"width": 844, "height": 390}
WIDE: ViewportSize = {"width": 1280, "height": 800}
OVERLAPS = """
(selector) => {
  const apart = (a, b) => a.right <= b.left + 1 || b.right <= a.left + 1
    || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
  const shown = [...document.querySelectorAll(selector)].filter(one => one.checkVisibility());
  const boxes = shown.map(one => [one.textContent, one.getBoundingClientRect()]);
  const wrong = boxes.filter(([, box]) => box.left < 0 || box.right > innerWidth).map(([text]) => text);
  boxes.forEach(([text, box], at) => boxes.slice(at + 1).forEach(([other, its]) => {
    if (!apart(box, its)) wrong.push(`${text} over ${other}`);
  }));
  return [shown.length, wrong];
}
"""
TEXT_LEFT = """
(selector) => {
  const range = document.createRange();
  range.selectNodeContents(document.querySelector(selector));
  return Math.round(range.getBoundingClientRect().left);
}
"""
HEIGHT = "one => one.clientHeight"
SIDEWAYS = "one => one.scrollWidth - one.clientWidth"


async def apart(page: Page, selector: str, at_least: int) -> None:
    count, wrong = await page.evaluate(OVERLAPS, selector)
    assert count >= at_least
    assert wrong == []


async def test_the_parts_of_a_session_keep_apart(console: Console) -> None:
    session = await console.session(title=TITLE)
    await session.send("tokens=8 rate=0 think=20")
    order: dict[str, Any] = {
        "question_id": "q",
        "prompt": f"{TITLE}. Which parcel do you mean, and since when?",
    }
    await pose(console, session, order, {**order, "question_id": "r"})
    ada = await console.page(
        f"/sessions/{session.id}?detail=work",
        await console.token("client", session.id, "Ada"),
        **{**PHONE, "viewport": NARROW},
    )
    await ready(ada)
    olga = await console.page(
        f"/sessions/{session.id}", await console.token("operator", session.id, "Olga"), viewport=WIDE
    )
    await ready(olga)
    await expect(ada.locator(".company")).to_have_text("Olga reads this.")
    await expect(ada.locator(".people .all")).to_have_text("2")
    await apart(ada, ".session-head :is(.back, h1, .state > *, .people, .more)", 6)
    assert await violations(ada) == []

    # What an operator may press leaves a long title little room: it is cut, and whole once it is looked at.
    title = olga.get_by_role("heading", level=1)
    await apart(olga, ".session-head :is(h1, .state > *, .people, .actions button, fieldset)", 9)
    assert await title.evaluate("one => one.scrollWidth > one.clientWidth && one.clientHeight < 30")
    assert TITLE in str(await title.get_attribute("title"))
    await expect(title).to_have_attribute("tabindex", "0")
    await title.focus()
    assert await title.evaluate("one => one.scrollWidth <= one.clientWidth")
    await apart(olga, ".session-head :is(h1, .state > *, .people, .actions button, fieldset)", 9)
    assert await violations(olga) == []

    # On its side a phone has one line for what is asked.
    await ada.set_viewport_size(LOW)
    asks = ada.locator(".asks")
    await expect(asks.locator("p").filter(visible=True)).to_have_count(1)
    await expect(asks).to_contain_text("1 of 2")
    assert await asks.evaluate(HEIGHT) < 60
    assert await ada.locator(".log").evaluate(HEIGHT) > 180
    assert await ada.evaluate(TARGETS) == []
    await asks.get_by_role("button", name="Show").first.click()
    await expect(card_of(ada).first).to_be_focused()

    # What waits in all sessions is read from its beginning.
    await ada.evaluate("location.hash = '#/sessions'")
    await bell(ada)
    await expect(ada.get_by_role("heading", name="Waiting for you")).to_be_in_viewport()
    await expect(ada.get_by_role("button", name="Close", exact=True)).to_be_focused()
    await expect(ada.get_by_role("dialog").get_by_role("link").first).to_be_in_viewport()
    assert await ada.evaluate(TARGETS) == []
    await ada.go_back()
    await ready(ada)

    # The lines below the transcript begin where what is said begins.
    await ada.set_viewport_size(WIDE)
    await expect(ada.locator(".company")).to_have_text("Olga reads this.")
    begin = await ada.evaluate(TEXT_LEFT, ".asks > p > span")
    assert await ada.evaluate(TEXT_LEFT, ".company > p") == begin
    assert await ada.evaluate(TEXT_LEFT, ".from-agent > .text") == begin
    assert round((await ada.locator("#message").bounding_box() or {"x": 0})["x"]) == begin

    # What is folded is passed over by the keyboard, and can be copied once it is open.
    reasoning = ada.locator(".reasoning summary")
    await reasoning.focus()
    await ada.keyboard.press("Tab")
    assert await ada.evaluate("document.activeElement.closest('.message')") is None
    await reasoning.focus()
    await ada.keyboard.press("Enter")
    await ada.keyboard.press("Tab")
    await expect(ada.get_by_role("button", name="Copy message")).to_be_focused()

    # No placeholder makes the field higher.
    await olga.set_viewport_size(NARROW)
    await olga.get_by_role("button", name="Note", exact=True).click()
    await expect(olga.locator("#message")).to_have_attribute("placeholder", "Write a note for staff")
    assert await olga.locator("#message").evaluate(HEIGHT) < 45
    await apart(olga, ".composer :is(textarea, button)", 3)

    # The bar is one row, with everything that an operator of all sessions has in it.
    grace = await console.page("/sessions", KEYS["operator"], **{**PHONE, "viewport": NARROW})
    await expect(grace.get_by_role("heading", name="Sessions")).to_be_visible()
    await apart(grace, ".bar :is(nav a, button)", 5)
    assert await grace.locator(".bar").evaluate(HEIGHT) < 60
    assert await grace.evaluate(TARGETS) == []
    # A title that is whole is no stop of the keyboard.
    short = await console.session()
    await grace.evaluate("(id) => { location.hash = `#/sessions/${id}`; }", short.id)
    await expect(grace.get_by_role("heading", name="demo", level=1)).to_have_attribute("tabindex", "-1")


async def test_titles_and_words_of_any_length_stay_within_the_page(console: Console) -> None:
    session = await console.session()
    word = "x" * 300
    titles = "How would you like us to contact you about the delivery?", f"To whom, {word}?"
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "how": {"title": titles[0], "type": "string"},
            "who": {"title": titles[1], "enum": ["Ada", "Grace"], "description": word},
        },
        "required": ["how", "who"],
    }
    form = {"question_id": "f", "kind": "form", "prompt": word, "schema": schema}
    tool = {
        "question_id": "t",
        "kind": "approval",
        "prompt": "Run it?",
        "tool": "run",
        "arguments": {word: 5},
    }
    await pose(console, session, form, tool)
    ada = await console.page(
        f"/sessions/{session.id}", await console.token("client", session.id, f"Ada-{'a' * 60}"), **PHONE
    )
    await ready(ada)
    asked, approval = card_of(ada).first, card_of(ada).last
    log = ada.locator(".log")
    assert await log.evaluate(SIDEWAYS) <= 0
    # Whoever approves sees the value, whatever its name is.
    assert await approval.locator(".facts dd").first.evaluate("one => one.clientWidth") > 100
    await asked.get_by_role("textbox").fill("By telephone")
    await asked.get_by_label("Ada", exact=True).check()
    await asked.get_by_role("button", name="Answer").click()
    values = asked.locator(".facts dd")
    await expect(values).to_have_text(["By telephone", "Ada"])
    assert await values.evaluate_all("all => Math.min(...all.map(one => one.clientWidth))") > 100
    assert await log.evaluate(SIDEWAYS) <= 0
    # Notices name people, and repeat their reasons.
    olga = await console.page(f"/sessions/{session.id}", KEYS["operator"], **PHONE)
    await ready(olga)
    await olga.get_by_role("button", name="More").click()
    await olga.get_by_role("button", name="Take over").click()
    await olga.get_by_label("Reason, for staff only").fill(word)
    await olga.get_by_role("dialog").get_by_role("button", name="Take over").click()
    await expect(olga.locator(".notice", has_text=word)).to_be_visible()
    assert await olga.locator(".log").evaluate(SIDEWAYS) <= 0
