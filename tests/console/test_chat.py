"""What everybody expects of a chat: on a desktop and on a phone, with a mouse, a finger and a keyboard."""

from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.console.people import Console, until
from tests.console.test_streaming import IDLE, LONGER, ask, ready
from waystation.client import Session
from waystation.demo.wire import Wire

DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
LANDSCAPE: dict[str, Any] = {**PHONE, "viewport": {"width": 800, "height": 360}}
devices = pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])

NOT_DRAWN = """
() => {
  const log = document.querySelector('.log').getBoundingClientRect();
  return [...document.querySelectorAll('.log > .column > *')].filter(one => {
    const { top, bottom } = one.getBoundingClientRect();
    const child = one.querySelector('.text') ?? one.firstElementChild;
    return bottom > log.top && top < log.bottom && !child?.checkVisibility({ contentVisibilityAuto: true });
  }).length;
}
"""
AT_END = """
() => {
  const log = document.querySelector('.log');
  return log.scrollHeight > 2 * log.clientHeight && log.scrollHeight - log.scrollTop - log.clientHeight < 2;
}
"""
TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
TARGETS = """
() => [...document.querySelectorAll('button, select, summary, input, textarea, nav a, .modes label, .back')]
  .filter(one => one.checkVisibility() && !one.closest('.visually-hidden') && getComputedStyle(one).opacity !== '0')
  .map(one => [one.textContent || one.id, one.getBoundingClientRect()])
  .filter(([, box]) => box.width < 44 || box.height < 44)
  .map(([name, box]) => `${name}: ${box.width} x ${box.height}`)
"""


async def write(console: Console, session: Session, *texts: str) -> None:
    """Messages that arrive whole."""
    items = [
        {"n": number, "type": "message.completed", "message_id": f"w{number}", "data": {"text": text}}
        for number, text in enumerate(texts, 1)
    ]
    body = {"writer": "chronicle", "items": items}
    answer = await console.stack.call("agent", "POST", f"/sessions/{session.id}/events", body)
    assert answer.status_code == 200, answer.text


async def shown(console: Console, session: Session, device: dict[str, Any]) -> Page:
    page = await console.page(f"/sessions/{session.id}", context=await console.context(**device))
    await ready(page)
    return page


@devices
async def test_after_a_reload_nothing_on_the_screen_is_blank(
    console: Console, device: dict[str, Any]
) -> None:
    """Least of all when the last message is tall, so that heights of those before it were estimates."""
    session = await console.session()
    tall = "\n\n".join(f"Paragraph {number} of a long answer. " * 6 for number in range(60))
    await write(console, session, *(f"Message {number}." for number in range(40)), tall)
    page = await shown(console, session, device)
    for _ in range(3):
        await until(page, AT_END)
        await page.evaluate(TWO_FRAMES)
        assert await page.evaluate(NOT_DRAWN) == 0
        await page.reload()
        await ready(page)


async def test_interrupting_is_chosen_for_one_message(console: Console) -> None:
    session = await console.session()
    page = await shown(console, session, DESKTOP)
    await ask(page, "tokens=2000 rate=30")
    await until(page, LONGER, 60)
    await page.get_by_text("Interrupt", exact=True).click()
    await ask(page, "tokens=2001 rate=30")
    await expect(page.locator(".notice.strong")).to_contain_text("interrupted by a new message")
    await expect(page.get_by_role("radio", name="Queue")).to_be_checked()
    await ask(page, "tokens=3 rate=0")
    await expect(page.locator(".from-user").last).to_contain_text("Waiting its turn")


@devices
async def test_what_is_sent_is_seen_by_who_has_scrolled_up(console: Console, device: dict[str, Any]) -> None:
    session = await console.session()
    await write(console, session, *(f"Message {number}." for number in range(60)))
    page = await shown(console, session, device)
    await until(page, AT_END)
    await page.locator(".log").evaluate("log => { log.scrollTop = 0; }")
    await expect(page.get_by_role("button", name="Newest")).to_be_visible()
    await ask(page, "tokens=3 rate=0")
    await expect(page.locator(".from-user")).to_be_in_viewport()


@devices
async def test_what_did_not_arrive_is_sent_again_by_itself_once(
    console: Console, device: dict[str, Any]
) -> None:
    session = await console.session()
    wire = Wire(console.stack.ports[0])
    await wire.mend()
    try:
        context = await console.context(**device)
        page = await console.page(f"/sessions/{session.id}", context=context, url=wire.url)
        await ready(page)
        wire.cut()
        await expect(page.locator(".connection")).to_have_text("Offline")
        await ask(page, "tokens=3 rate=0")
        problem = page.locator(".session-view > .problem")
        await expect(problem).to_contain_text("can't be reached")
        await wire.mend()
        await expect(page.locator(".from-user")).to_have_count(1)
        await expect(problem).to_be_hidden()
        await expect(page.get_by_label("Message", exact=True)).to_have_value("")
        await until(page, IDLE)
        assert len([one for one in (await session.load()).messages if one.actor.role == "user"]) == 1
    finally:
        await wire.close()


async def test_a_word_about_the_connection_goes_when_it_is_back(console: Console) -> None:
    session = await console.session()
    wire = Wire(console.stack.ports[0])
    await wire.mend()
    try:
        page = await console.page(f"/sessions/{session.id}", url=wire.url)
        await ready(page)
        wire.cut()
        await expect(page.locator(".connection")).to_have_text("Offline")
        await page.get_by_role("button", name="Take over").click()
        problem = page.locator(".session-view > .problem")
        await expect(problem).to_contain_text("can't be reached")
        await wire.mend()
        await ready(page)
        await expect(problem).to_be_hidden()
    finally:
        await wire.close()


async def test_no_line_crosses_the_page_after_a_change_of_views(console: Console) -> None:
    page = await console.page("/sessions")
    await expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
    await page.get_by_role("link", name="Mandates").press("Enter")
    await expect(page.get_by_role("main")).to_be_focused()
    assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "none"


async def test_an_answer_shows_the_same_time_live_and_after_a_reload(console: Console) -> None:
    session = await console.session()
    page = await shown(console, session, DESKTOP)
    await ask(page, "tokens=60 rate=25")
    await until(page, LONGER, 60)
    await until(page, IDLE)
    times = "() => [...document.querySelectorAll('.message time')].map(one => one.dateTime)"
    live = await page.evaluate(times)
    await page.reload()
    await ready(page)
    assert await page.evaluate(times) == live
    assert len(set(live)) == len(live) == 2


@pytest.mark.parametrize("device", [PHONE, LANDSCAPE], ids=["upright", "on its side"])
async def test_a_phone_has_one_row_of_header_and_targets_for_fingers(
    console: Console, device: dict[str, Any]
) -> None:
    session = await console.session(title="A session with quite a long title that needs its room")
    await session.send("Hello", data={"tokens": 20, "rate": 0, "tool": "search", "think": 3})
    page = await shown(console, session, device)
    await until(page, IDLE)
    await expect(page.get_by_role("navigation")).to_be_hidden()
    head, log = [await page.locator(part).bounding_box() for part in (".session-head", ".log")]
    assert head
    assert log
    assert head["y"] == 0
    assert head["height"] < 60
    assert log["height"] > 0.5 * device["viewport"]["height"]
    assert await page.evaluate(TARGETS) == []
    await page.get_by_role("button", name="More").click()
    assert await page.evaluate(TARGETS) == []
    await page.get_by_role("button", name="Timeline").click()
    await expect(page.get_by_role("region", name="Timeline")).to_be_visible()
    await expect(page.get_by_role("button", name="Timeline")).to_be_hidden()
    assert await page.evaluate(TARGETS) == []
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(wide) <= 0
    await page.get_by_role("link", name="Sessions").click()
    await expect(page.get_by_role("navigation")).to_be_visible()
    assert await page.evaluate(TARGETS) == []


async def test_headings_are_in_order(console: Console) -> None:
    session = await console.session()
    await write(console, session, "# One\n\n## Two\n\n### Three\n\n- [ ] a\n- [x] b")
    await session.send("Hello", data={"tokens": 20, "rate": 0, "spawn": 2, "tool": "search"})
    page = await shown(console, session, DESKTOP)
    await until(page, IDLE)
    await page.locator(".tool summary").first.click()
    await page.evaluate(Axe().axe_script)
    found = await page.evaluate("axe.run({runOnly: ['heading-order', 'page-has-heading-one', 'list']})")
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []


async def test_keys_write_stop_and_move(console: Console) -> None:
    session = await console.session()
    await write(console, session, *(f"Message {number}." for number in range(30)))
    page = await shown(console, session, DESKTOP)
    field = page.get_by_label("Message", exact=True)
    await page.keyboard.press("/")
    await expect(field).to_be_focused()
    await page.keyboard.type("tokens=2000 rate=30 /jk?")
    await page.keyboard.press("Enter")
    await until(page, LONGER, 60)
    await page.keyboard.press("Escape")
    await until(page, IDLE)
    await expect(page.locator(".notice.strong")).to_contain_text("Stopped by test-client")
    await page.locator(".log").focus()
    await page.keyboard.press("k")
    at = "document.activeElement.dataset.key"
    last = await page.evaluate(at)
    await page.keyboard.press("k")
    before = await page.evaluate(at)
    assert before != last
    await page.keyboard.press("j")
    assert await page.evaluate(at) == last
    await page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Keys")
    await expect(keys).to_be_visible()
    await keys.get_by_role("checkbox").uncheck()
    await keys.get_by_role("button", name="Close").click()
    await page.locator(".log").focus()
    await page.keyboard.press("/")
    await expect(field).not_to_be_focused()
    await page.keyboard.press("?")
    await expect(keys).to_be_hidden()
    await page.get_by_role("button", name="Keys").click()
    await keys.get_by_role("checkbox").check()
    await keys.get_by_role("button", name="Close").click()
    await page.locator(".log").focus()
    await page.keyboard.press("/")
    await expect(field).to_be_focused()


async def test_a_link_skips_to_the_message_field(console: Console) -> None:
    session = await console.session()
    page = await shown(console, session, DESKTOP)
    await page.get_by_role("main").focus()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the message field")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    assert page.url.endswith(f"#/sessions/{session.id}")
