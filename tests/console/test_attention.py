"""People are told what waits for them: in the bar, in the tab's title, by its icon, and by notifications."""

import asyncio
from typing import Any, Literal

import pytest
from playwright.async_api import BrowserContext, Page, Request, expect

from tests.console.people import Console, until
from tests.console.test_access import violations
from tests.console.test_money import ask_for_books
from tests.console.test_questions import pose
from waystation.client import Session

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
ICON = "() => document.querySelector('link[rel=icon]').href.split('/').pop()"
NOTED = """
window.noted = [];
window.asked = 0;
class Noted extends EventTarget {
  constructor(title, options) { super(); window.noted.push([title, options.body]); window.latest = this; }
  static permission = 'default';
  static async requestPermission() { window.asked += 1; return (Noted.permission = 'granted'); }
  close() {}
}
window.Notification = Noted;
document.hasFocus = () => false;
delete window.PushManager;
"""
"""Chromium without a head shows no notifications, and has no push service."""
SECONDS_UNTIL = """
([words, begun]) => new Promise(resolve => {
  const counts = () => !document.getElementById('badge').hidden;
  const look = () => document.title.startsWith(words) && counts() === words.startsWith('(');
  const observer = new MutationObserver(() => look() && resolve((Date.now() - begun) / 1000));
  observer.observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
  if (look()) resolve((Date.now() - begun) / 1000);
})
"""


async def icon_is(page: Page, name: str) -> None:
    await until(page, f"(name) => ({ICON})() === name", name)


async def bell(page: Page) -> None:
    await page.get_by_role("button", name="What waits").click()


@pytest.mark.alone
async def test_whoever_is_asked_is_told_within_a_second(console: Console) -> None:
    session = await console.session(title="Order 17")
    page = await console.page("/sessions", await console.token("client", session.id, "Ada"))
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sessions")
    begun = await page.evaluate("Date.now()")
    told = asyncio.create_task(page.evaluate(SECONDS_UNTIL, ["(1) Which size?", begun]))
    await pose(console, session, {"question_id": "q", "prompt": "Which size?"})
    assert await told < 1
    begun = await page.evaluate("Date.now()")
    told = asyncio.create_task(page.evaluate(SECONDS_UNTIL, ["Sessions", begun]))
    await session.answer("q", "42")
    assert await told < 1


@pytest.mark.parametrize(
    ("scheme", "device"),
    [("light", {}), pytest.param("dark", PHONE, marks=pytest.mark.slow)],
    ids=["desktop", "phone"],
)
async def test_what_waits_is_counted_named_and_led_to(
    console: Console, scheme: Literal["light", "dark"], device: dict[str, Any]
) -> None:
    session, other = await console.session(title="Order 17"), await console.session()
    token = await console.token("client", session.id, "Ada")
    page = await console.page("/sessions", token, color_scheme=scheme, **device)
    stranger = await console.page("/sessions", await console.token("client", other.id, "Eve"))
    await expect(page).to_have_title("Sessions · Waystation")
    await icon_is(page, "icon.svg")
    await pose(
        console,
        session,
        {"question_id": "size", "prompt": "Which\u202e size?", "expires_in_seconds": 3600},
        {"question_id": "who", "prompt": "Who pays?", "audience": {"roles": ["operator"]}},
    )
    await expect(page.locator("#badge")).to_have_text("1 waiting for you")
    await expect(page).to_have_title("(1) Which size? · Waystation")
    await icon_is(page, "icon-dot.svg")
    await bell(page)
    dialog = page.get_by_role("dialog", name="Waiting for you")
    link = dialog.get_by_role("link", name="Which size?")
    await expect(link).to_contain_text("A question · test-agent · just now · 59 min")
    await expect(dialog.get_by_role("link")).to_have_count(1)
    for other_scheme in ("dark" if scheme == "light" else "light", scheme):
        await page.emulate_media(color_scheme=other_scheme)  # type: ignore[arg-type]
        assert await violations(page) == []
    for one in await dialog.locator("a, button").all():
        box = await one.bounding_box()
        assert box is not None
        assert not device or box["height"] >= 44, await one.inner_text()
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await bell(page)
    await link.press("Enter")
    await expect(page.locator(".question").get_by_label("Which size?")).to_be_visible()
    await session.answer("size", "42")
    await expect(page).to_have_title("Order 17 · Waystation")
    await icon_is(page, "icon.svg")
    await expect(page.locator("#badge")).to_be_hidden()
    await expect(stranger).to_have_title("Sessions · Waystation")


async def test_the_approver_whom_a_mandate_names_is_told_the_amount_and_no_other(console: Console) -> None:
    talk, purchase_id, _ = await ask_for_books(console, approvers=["grace"])
    grace = await console.token("approver", talk.session.id, "Grace")
    page = await console.page(f"/sessions/{talk.session.id}", grace, **PHONE)
    other = await console.page(
        f"/sessions/{talk.session.id}", await console.token("approver", talk.session.id, "Alan")
    )
    await expect(page).to_have_title("(1) Approve $25.00 · Waystation")
    await page.evaluate("location.hash = '#/sessions'")
    await bell(page)
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.go_back()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.go_forward()
    await bell(page)
    await page.get_by_role("link", name="Approve $25.00").click()
    await expect(page).to_have_url(f"{console.stack.url}/#/approvals?at=purchases%2F{purchase_id}")
    await page.get_by_role("button", name="Approve").first.click()
    await expect(page.locator("#badge")).to_be_hidden()
    await icon_is(other, "icon.svg")


ORDER_FOR_TWO_ROLES = """
async () => {
  const { Attention } = await import('/console/attention.js');
  const asked = (kind, id) => ({ kind, id, session_id: 's', since: '2026-01-01T00:00:00Z' });
  const all = [asked('question', 'why'), asked('tool', 'send'), asked('question', 'order')];
  return [[all, [all[1]]], [[all[1]], all]].map((lists) => {
    const attention = new Attention(null, () => {}, () => {});
    lists.forEach((items, n) => attention.said.set({ n }, { items, count: items.length }));
    return attention.now.items.map(({ id }) => id);
  });
}
"""


async def test_the_order_is_the_servers_whichever_role_is_told_first(console: Console) -> None:
    page = await console.page("/sessions")
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert await page.evaluate(ORDER_FOR_TWO_ROLES) == [["why", "send", "order"]] * 2


async def test_tabs_of_one_person_share_a_stream_and_one_takes_over(console: Console) -> None:
    session = await console.session(title="Order 17")
    token = await console.token("client", session.id, "Ada")
    context: BrowserContext = await console.context()
    streams: list[Page] = []

    def note(request: Request) -> None:
        if request.url.endswith("/attention"):
            streams.append(request.frame.page)

    context.on("request", note)
    first = await console.page("/sessions", token, context=context)
    second = await console.page("/sessions", token, context=context)
    await pose(console, session, {"question_id": "q", "prompt": "Which size?"})
    for page in (first, second):
        await expect(page).to_have_title("(1) Which size? · Waystation")
    third = await console.page("/sessions", token, context=context)
    await expect(third).to_have_title("(1) Which size? · Waystation")
    assert streams == [first]
    await first.close()
    await session.answer("q", "42")
    await expect(second).to_have_title("Sessions · Waystation")
    await second.get_by_role("button", name="Sign out").click()
    await expect(third.get_by_label("Token")).to_be_visible()
    await expect(third).to_have_title("Sign in · Waystation")


async def notified(page: Page) -> list[list[str]]:
    return list(await page.evaluate("window.noted"))


async def ask_again(console: Console, session: Session, number: int) -> None:
    await pose(console, session, *({"question_id": f"q{n}", "prompt": f"Number {n}?"} for n in range(number)))


async def test_nobody_is_notified_who_has_not_asked_for_it(console: Console) -> None:
    session = await console.session()
    context = await console.context()
    await context.add_init_script(NOTED)
    page = await console.page("/sessions", await console.token("client", session.id, "Ada"), context=context)
    await ask_again(console, session, 1)
    await expect(page).to_have_title("(1) Number 0? · Waystation")
    await bell(page)
    assert await page.evaluate("[window.asked, window.noted.length]") == [0, 0]
    await expect(page.get_by_role("dialog")).to_contain_text("tells you when something new waits for you")
    await page.get_by_role("button", name="Notify me").click()
    await expect(page.get_by_role("button", name="Don't notify me")).to_be_visible()
    await expect(page.get_by_role("dialog")).to_contain_text("not while it is closed")
    await page.get_by_role("button", name="Close", exact=True).click()
    await ask_again(console, session, 2)
    await until(page, "() => window.noted.length")
    assert await notified(page) == [["Number 1?", "A question · test-agent · just now"]], "only what is new"
    await page.evaluate("window.latest.onclick()")
    await expect(page).to_have_url(f"{console.stack.url}/#/sessions/{session.id}")
    await page.goto(f"{console.stack.url}/#/sessions")
    await bell(page)
    await page.get_by_role("button", name="Don't notify me").click()
    await page.get_by_role("button", name="Close", exact=True).click()
    await ask_again(console, session, 3)
    await expect(page.locator("#badge")).to_have_text("3 waiting for you")
    assert len(await notified(page)) == 1
