"""For everyone: with a keyboard, a screen reader, a phone, in light and dark."""

from typing import Any, Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.console.people import Console, until
from tests.console.test_money import ask_for_books
from tests.console.test_streaming import IDLE, ask, ready

SERIOUS = ("serious", "critical")
BESIDE = """
() => [...document.querySelectorAll('button, a, input, select, textarea, summary')]
  .filter(one => one.checkVisibility({ visibilityProperty: true }))
  .filter(one => !one.closest('.visually-hidden, .skip, pre, table, .filter-chips'))
  .filter(one => {
    const { left, right } = one.getBoundingClientRect();
    return left < -1 || right > innerWidth + 1;
  })
  .map(one => one.outerHTML.slice(0, 160))
"""
"""What can be pressed and lies beside the page, where nobody finds it; a row that scrolls is found."""
FOCUSED = "document.activeElement.textContent || document.activeElement.id"


async def violations(page: Page) -> list[tuple[str, Any]]:
    if not await page.evaluate("'axe' in window"):  # loading it takes longer than running it
        await page.evaluate(Axe().axe_script)
    found = await page.evaluate("axe.run({resultTypes: ['violations']})")
    beside = await page.evaluate(BESIDE)
    return [("beside the page", beside)] * bool(beside) + [
        (one["id"], [node["html"][:160] for node in one["nodes"]])
        for one in found["violations"]
        if one["impact"] in SERIOUS
    ]


async def press(page: Page, name: str) -> None:
    """Presses a button of a session's header, which is behind another on small screens."""
    more = page.get_by_role("button", name="More", exact=True)
    if await more.is_visible():
        await more.click()
    await page.get_by_role("button", name=name, exact=True).click()


async def lead(page: Page, path: str) -> None:
    """Shows another view in the same page, as a link does."""
    await page.evaluate(
        "(path) => { window.left = document.getElementById('main'); location.hash = `#${path}`; }", path
    )
    await until(page, "() => document.getElementById('main') !== window.left")


# Both schemes and both widths; neither changes what the other does.
@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), pytest.param("dark", 390, marks=pytest.mark.slow)]
)
async def test_axe_finds_nothing_serious(
    console: Console, scheme: Literal["light", "dark"], width: int
) -> None:
    talk, purchase_id, _ = await ask_for_books(console)
    session = await console.session(title="Accessible")
    await session.send(
        "Hello **there**",
        data={"tokens": 20, "rate": 0, "spawn": 2, "tool": "search", "think": 3, "retry": 5},
    )
    context = await console.context(color_scheme=scheme, viewport={"width": width, "height": 800})
    anonymous = await context.new_page()
    await anonymous.goto(f"{console.stack.url}/")
    await expect(anonymous.get_by_label("Token")).to_be_visible()
    assert await violations(anonymous) == []
    await anonymous.close()
    page = await console.page("/mandates", context=context)
    await expect(page.get_by_role("heading", name="Money")).to_be_visible()
    for path in (
        "/sessions",
        f"/sessions/{session.id}",
        f"/sessions/{talk.session.id}",
        f"/purchases/{purchase_id}",
        "/purchases/none",
        "/approvals",
        "/mandates",
        "/nowhere",
    ):
        await lead(page, path)
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        if path == f"/sessions/{session.id}":
            await until(page, IDLE)
            await press(page, "Timeline")
            await page.locator(".reasoning summary, .tool summary").first.click()
            await press(page, "Take over")
            await page.get_by_role("dialog").get_by_role("button", name="Take over").click()
            await expect(page.locator(".session-head .pill")).to_have_text("you speak")
            await context.set_offline(True)
            await expect(page.locator(".connection")).to_have_text("Offline")
            assert await violations(page) == [], "offline"
            await context.set_offline(False)
            await ready(page)
            await press(page, "Phone")
            await expect(page.get_by_role("img", name="QR code")).to_be_visible()
            assert await violations(page) == [], "phone"
            await page.get_by_role("button", name="Close").click()
            await press(page, "Release")
            await page.get_by_role("dialog").get_by_role("button", name="Release").click()
            await expect(page.locator(".session-head .pill")).to_have_text("idle")
        else:
            await expect(page.get_by_text("Loading …")).to_have_count(0)
        assert await violations(page) == [], path
        wide = await page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, f"{path} scrolls sideways"


@pytest.mark.thorough
async def test_a_new_view_has_the_focus(console: Console) -> None:
    """Otherwise a screen reader says nothing, and Tab begins at the top of the page."""
    page = await console.page("/sessions")
    await expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
    await page.get_by_role("link", name="Money").press("Enter")
    await expect(page.get_by_role("heading", name="Money")).to_be_visible()
    await expect(page.get_by_role("main")).to_be_focused()


async def test_everything_is_done_by_keyboard(console: Console) -> None:
    session = await console.session()
    page = await console.page("/sessions")
    row = page.locator(f'a[href="#/sessions/{session.id}"]')
    await expect(row).to_be_visible()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await row.focus()
    await page.keyboard.press("Enter")
    await ready(page)

    async def reach(name: str) -> None:
        for _ in range(30):
            await page.keyboard.press("Tab")
            if await page.evaluate(FOCUSED) == name:
                return
        raise AssertionError(f"no Tab leads to {name}")

    await reach("message")
    await page.keyboard.type("tokens=2000 rate=30")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("second line")
    await page.keyboard.press("Enter")
    await expect(page.locator(".from-user .text")).to_have_text("tokens=2000 rate=30\nsecond line")
    await expect(page.get_by_role("button", name="Stop")).to_be_visible()
    await reach("Stop")
    outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "the focus is visible"
    await page.keyboard.press("Enter")
    await until(page, IDLE)


@pytest.mark.thorough
async def test_whole_messages_are_announced_and_no_tokens(console: Console) -> None:
    session = await console.session()
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    log = page.get_by_role("log")
    assert await log.get_attribute("aria-live") == "off"
    await page.evaluate(
        """() => {
          window.announced = [];
          const note = node => window.announced.push(node.textContent);
          new MutationObserver(records => records.forEach(record => record.addedNodes.forEach(note)))
            .observe(document.querySelector('.session-view > [role=status]:last-child'), {childList: true});
        }"""
    )
    await ask(page, "tokens=40 rate=40")
    await until(page, IDLE)
    await until(page, "() => window.announced.length >= 2")
    announced = await page.evaluate("window.announced")
    assert [words for words in announced if words.startswith("demo: A durable session")] == [announced[-1]]
    assert len(announced) <= 4


async def test_it_continues_on_the_phone_that_reads_the_code(console: Console) -> None:
    import zxingcpp

    session = await console.session()
    other = await console.session()
    await session.send("tokens=5 rate=0")
    laptop = await console.page(f"/sessions/{session.id}")
    await ready(laptop)
    await laptop.get_by_role("button", name="Phone").click()
    code = laptop.get_by_role("img", name="QR code")
    path = str(await code.locator("path").get_attribute("d"))
    side = int(str(await code.get_attribute("viewBox")).split()[2])
    pixels = bytearray(b"\xff" * (side * side))
    for module in path.split("M")[1:]:
        x, y = module.split("h")[0].split()
        pixels[int(y) * side + int(x)] = 0
    [read] = zxingcpp.read_barcodes(memoryview(bytes(pixels)).cast("B", (side, side)), is_pure=True)  # type: ignore[call-overload]
    assert read.text.startswith(f"{console.stack.url}/#/sessions/{session.id}?token=")
    assert await violations(laptop) == []
    phone = await (await console.context(viewport={"width": 390, "height": 800})).new_page()
    await phone.goto(read.text)
    await ready(phone)
    await expect(phone.locator(".from-agent")).to_contain_text("A durable session keeps")
    await ask(phone, "tokens=3 rate=0")
    await expect(laptop.locator(".from-user")).to_have_count(2)
    await phone.evaluate("(id) => { location.hash = `#/sessions/${id}`; }", other.id)
    await expect(phone.locator(".problem[role=alert]")).to_contain_text("may read here")
