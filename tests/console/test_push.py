"""Web Push in Chromium: all is real but the subscription, for without a head it has no push service."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import expect

from tests.console.people import Console
from tests.console.test_access import violations
from tests.console.test_attention import PHONE, bell
from tests.console.test_questions import pose
from tests.support import eventually
from tests.world.browser import Browser
from tests.world.receiver import Receiver, running_receiver
from tests.world.stack import KEYS

SUBSCRIBED = """
([subscription]) => {
  let made = null;
  const fake = {
    endpoint: subscription.endpoint,
    options: {},
    toJSON: () => subscription,
    async unsubscribe() { made = null; return true; },
  };
  PushManager.prototype.getSubscription = async () => made;
  PushManager.prototype.subscribe = async ({ applicationServerKey }) => {
    if (window.refuses) throw new DOMException("no push service", "AbortError");
    const bytes = atob(applicationServerKey.replaceAll("-", "+").replaceAll("_", "/"));
    fake.options.applicationServerKey = Uint8Array.from(bytes, (one) => one.charCodeAt(0)).buffer;
    return (made = fake);
  };
  document.hasFocus = () => false;
}
"""
SHOWN = """
async () => (await registration.getNotifications()).map(({ title, body, data }) => [title, body, data])
"""
COUNTED = """
() => {
  self.count = 0;
  const show = ServiceWorkerRegistration.prototype.showNotification;
  ServiceWorkerRegistration.prototype.showNotification = function (...given) {
    self.count += 1;
    return show.apply(this, given);
  };
}
"""
CLICKED = """
async () => {
  const [notification] = await registration.getNotifications();
  dispatchEvent(new NotificationEvent("notificationclick", { notification }));
}
"""


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


@pytest.mark.parametrize(
    ("scheme", "device"),
    [("light", {}), pytest.param("dark", PHONE, marks=pytest.mark.slow)],
    ids=["desktop", "phone"],
)
async def test_a_closed_console_is_told_and_opened(
    console: Console, service: Receiver, scheme: Any, device: dict[str, Any]
) -> None:
    session, browser = await console.session(), Browser(service, f"console-{scheme}")
    context = await console.context(color_scheme=scheme, **device)
    await context.grant_permissions(["notifications"], origin=console.stack.url)
    await context.add_init_script(f"({SUBSCRIBED})({json.dumps([browser.subscription])})")
    token = await console.token("client", session.id, "Ada")
    page = await console.page("/sessions", token, context=context)
    await bell(page)
    dialog = page.get_by_role("dialog")
    await page.get_by_role("button", name="Notify me").click()
    await expect(dialog).to_contain_text("also while the console is closed, until your sign-in ends")
    assert await violations(page) == []
    await page.get_by_role("button", name="Close", exact=True).click()

    cdp = await context.new_cdp_session(page)
    registrations: list[dict[str, Any]] = []
    updated = "ServiceWorker.workerRegistrationUpdated"
    cdp.on(updated, lambda said: registrations.extend(said["registrations"]))
    await cdp.send("ServiceWorker.enable")
    await eventually(lambda: registrations)
    [registration] = {one["registrationId"] for one in registrations}
    assert registrations[-1]["scopeURL"] == f"{console.stack.url}/console/"

    async def push(item: dict[str, Any]) -> None:
        to = {"origin": console.stack.url, "registrationId": registration}
        await cdp.send("ServiceWorker.deliverPushMessage", {**to, "data": json.dumps(item)})

    async def shown() -> list[list[str]]:
        return list(await context.service_workers[-1].evaluate(SHOWN))

    await page.goto("about:blank")
    await pose(console, session, {"question_id": "size", "prompt": "Which **size**?"})
    [pushed] = await browser.hears(1)
    await push(pushed)
    [[title, body, address]] = await eventually(shown)
    asked = f"#/approvals?at=sessions%2F{session.id}%2Fsize"
    assert (title, address) == ("Which size?", asked)
    assert body.startswith("A question · test-agent")
    await push({**pushed, "amount": {"amount": 2500, "currency": "usd"}})
    await eventually(lambda: _titles(shown, ["Approve $25.00"]), what="of one thing the latest is shown")

    await page.goto(f"{console.stack.url}/#/mandates")
    await expect(page.get_by_role("button", name="What waits")).to_be_visible()
    await context.service_workers[-1].evaluate(CLICKED)
    # A customer has no inbox, and answers in the session.
    await expect(page).to_have_url(f"{console.stack.url}/#/sessions/{session.id}")
    olga = await console.page("/sessions", KEYS["operator"])
    await expect(olga.get_by_role("navigation")).to_be_visible()
    await olga.evaluate("(asked) => { location.hash = asked; }", asked)
    await expect(olga.locator(".chosen").get_by_role("textbox", name="Which size?")).to_be_visible()
    await context.service_workers[-1].evaluate(COUNTED)
    await push({**pushed, "id": "other"})
    await eventually(lambda: context.service_workers[-1].evaluate("self.count"))
    await eventually(lambda: _titles(shown, []), what="whoever looks at the console isn't told")

    async def subscriptions() -> list[Any]:
        headers = {"Authorization": f"Bearer {token}"}
        answer = await page.request.get(f"{console.stack.url}/push", headers=headers)
        return list((await answer.json())["subscriptions"])

    assert len(await subscriptions()) == 1
    assert await page.evaluate("localStorage.getItem('waystation.push')"), "it was renewed with the sign-in"


async def _titles(shown: Callable[[], Awaitable[list[list[str]]]], wanted: list[str]) -> bool:
    return [title for title, *_ in await shown()] == wanted


@pytest.mark.thorough
async def test_it_can_be_turned_off_and_ends_with_signing_out(console: Console, service: Receiver) -> None:
    session, browser = await console.session(), Browser(service, "console-off")
    context = await console.context()
    await context.grant_permissions(["notifications"], origin=console.stack.url)
    await context.add_init_script(f"({SUBSCRIBED})({json.dumps([browser.subscription])})")
    token = await console.token("client", session.id, "Ada")
    page = await console.page("/sessions", token, context=context)

    async def count() -> int:
        headers = {"Authorization": f"Bearer {token}"}
        answer = await page.request.get(f"{console.stack.url}/push", headers=headers)
        return len((await answer.json())["subscriptions"])

    async def on() -> None:
        await page.get_by_role("button", name="Notify me").click()
        await expect(page.get_by_role("dialog")).to_contain_text("also while the console is closed")
        assert await count() == 1

    await bell(page)
    await page.evaluate("window.refuses = true")
    await page.get_by_role("button", name="Notify me").click()
    await expect(page.get_by_role("dialog")).to_contain_text("not while it is closed")
    assert await count() == 0
    await page.get_by_role("button", name="Don't notify me").click()
    await page.evaluate("window.refuses = false")
    await on()
    await page.get_by_role("button", name="Don't notify me").click()
    await expect(page.get_by_role("button", name="Notify me", exact=True)).to_be_enabled()
    assert await count() == 0
    await on()
    await page.get_by_role("button", name="Close", exact=True).click()
    await pose(console, session, {"question_id": "size", "prompt": "Which size?"})
    [[title, *_]] = await eventually(lambda: context.service_workers[-1].evaluate(SHOWN))
    assert title == "Which size?", "an open page tells by the worker too: what comes twice is shown once"
    await page.get_by_role("button", name="Sign out").click()
    await expect(page).to_have_title("Sign in · Waystation")
    assert await count() == 0
    assert await page.evaluate("localStorage.getItem('waystation.push')") is None
