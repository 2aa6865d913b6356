"""`<waystation-chat>` in a customer's page of another origin, embedded as in docs/browsers.md."""

import re
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Error, Locator, Page, Route, expect
from temporalio.client import Client as Temporal

from tests.console.conftest import CUSTOMERS_PAGE
from tests.console.people import Console, until
from tests.console.test_access import violations
from tests.console.test_chat import PHONE, write
from tests.console.test_sign_in import SHORT_SECONDS, SIZES, field
from tests.docs.support import blocks, page
from waystation.client import Session

EXAMPLE = next(code for code in blocks(page("browsers.md"), "html") if "<waystation-chat" in code)


class CustomersPage:
    """A customer's page, and the server behind it that mints tokens."""

    def __init__(self, console: Console, session: Session) -> None:
        self.console, self.session = console, session
        self.asked: list[bool] = []
        self.broken = False
        self.seconds = 600
        self.styles = ""

    async def context(self, **options: Any) -> BrowserContext:
        context = await self.console.context(**options)
        # A browser asks before a page of the web calls a server on its own machine, as the API is one here.
        await context.grant_permissions(["local-network-access"])
        return context

    async def open(self, context: BrowserContext | None = None, **options: Any) -> Page:
        view = await (context or await self.context(**options)).new_page()
        view.on("pageerror", lambda error: self.console.faults.append(str(error)))
        view.on("console", self.console._listen)
        await view.route(f"{CUSTOMERS_PAGE}/**", self._serve)
        await view.goto(f"{CUSTOMERS_PAGE}/order")
        return view

    async def _serve(self, route: Route) -> None:
        url = route.request.url
        if "/my-token" not in url:
            await route.fulfill(
                content_type="text/html",
                body=self._page(),
                headers={"Content-Security-Policy": self._policy()},
            )
            return
        self.asked.append("renew=true" in url)
        if self.broken:
            await route.fulfill(status=500, body="no")
            return
        body = {
            "role": "client",
            "sessions": [self.session.id],
            "subject": "ada",
            "ttl_seconds": self.seconds,
        }
        answer = await self.console.stack.call("service", "POST", "/tokens", body)
        await route.fulfill(json={"token": answer.json()["token"]})

    def _page(self) -> str:
        example = EXAMPLE.replace("https://api.example.com", self.console.stack.url)
        example = example.replace("order-17", self.session.id)
        example = example.replace("<script", '<script nonce="n"').replace("<style", '<style nonce="n"')
        return (
            f'<!doctype html><html lang="en"><title>Shop</title><style nonce="n">{self.styles}</style>'
            f"<main><h1>Shop</h1>{example}</main></html>"
        )

    def _policy(self) -> str:
        api = self.console.stack.url
        return (
            f"default-src 'none'; script-src 'nonce-n' {api}; style-src 'nonce-n'; connect-src 'self' {api}; "
            "require-trusted-types-for 'script'; trusted-types 'none'"
        )


def chat(view: Page) -> Locator:
    return view.locator("waystation-chat")


async def live(view: Page) -> None:
    await expect(view.locator("waystation-chat .composer")).to_be_visible()
    await expect(view.locator("waystation-chat .connection-line")).to_be_hidden()


async def say(view: Page, text: str) -> None:
    await field(view).fill(text)
    await field(view).press("Enter")


@pytest.mark.parametrize("options", SIZES)
async def test_a_customer_chats_in_a_page_of_another_origin(
    console: Console, options: dict[str, Any]
) -> None:
    shop = CustomersPage(console, await console.session(title="Not shown"))
    view = await shop.open(**options)
    await live(view)
    await say(view, "**hello** tokens=5 rate=0")
    bubbles = chat(view).locator(".bubble")
    await expect(bubbles).to_have_count(2)
    await expect(bubbles.first.locator(".text")).to_have_text("**hello** tokens=5 rate=0")
    await expect(bubbles.last).to_contain_text("A durable session keeps what")
    await expect(bubbles.last.locator("b")).to_have_text("demo")
    # Neither what it thinks, nor its tools, nor its sub-agents.
    await shop.session.send("More", data={"tokens": 5, "rate": 0, "spawn": 1, "tool": "search", "think": 3})
    await expect(bubbles).to_have_count(4)
    await expect(bubbles.last).to_contain_text("A durable session keeps what")
    await expect(view.get_by_text("Is at work")).to_be_hidden()
    assert await violations(view) == []
    style = "(chat) => getComputedStyle(chat).blockSize"
    assert await chat(view).evaluate(style) == f"{28 * 16}px"
    colour = await bubbles.first.locator(".text").evaluate("(text) => getComputedStyle(text).backgroundColor")
    assert colour == "rgb(107, 33, 168)", "the page's accent"
    names = "Object.getOwnPropertyNames(window).filter((name) => /waystation/i.test(name))"
    assert await view.evaluate(names) == []
    assert await view.evaluate("document.title + document.head.querySelectorAll('link').length") == "Shop0"
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await view.evaluate(wide) <= 0
    await write(console, shop.session, "```python\nprint(1)\n```")
    copying = chat(view).get_by_role("button", name="Copy python code")
    await copying.click()
    await expect(copying).to_have_class("copy done")


async def test_a_question_is_answered_there_with_fingers(console: Console) -> None:
    shop = CustomersPage(console, await console.session("asking"))
    view = await shop.open(**PHONE)
    await live(view)
    # Their keyboards have no Shift with Enter: it starts a new line, and the button sends.
    await say(view, "text")
    await expect(field(view)).to_have_value("text\n")
    await expect(chat(view).locator(".bubble")).to_have_count(0)
    await chat(view).get_by_role("button", name="Send").tap()
    card = chat(view).locator(".card.question")
    await expect(card).to_contain_text("What is your name?")
    await expect(view.get_by_text("Waits for an answer.", exact=True)).to_be_visible()
    assert await violations(view) == []
    await card.get_by_role("textbox").fill("Ada")
    await card.get_by_role("button", name="Answer").click()
    await expect(card).to_contain_text("You answered")
    await expect(chat(view).locator(".bubble").last).to_contain_text("Hello Ada.")


async def test_a_token_that_expires_in_mid_draft_is_renewed_by_the_page(console: Console) -> None:
    shop = CustomersPage(console, await console.session())
    shop.seconds = SHORT_SECONDS
    view = await shop.open()
    await live(view)
    await field(view).fill("Half a thou")
    while not any(shop.asked):
        async with view.expect_response("**/my-token?renew=true"):
            pass
    await expect(field(view)).to_have_value("Half a thou")
    await expect(view.get_by_text("Your sign-in has ended")).to_be_hidden()
    await say(view, "tokens=2 rate=0")
    await expect(chat(view).locator(".bubble")).to_have_count(2)


@pytest.mark.parametrize("options", SIZES)
async def test_where_the_page_has_no_token_the_draft_is_kept(
    console: Console, options: dict[str, Any]
) -> None:
    shop = CustomersPage(console, await console.session())
    shop.seconds = SHORT_SECONDS
    view = await shop.open(**options)
    await live(view)
    await field(view).fill("tokens=2 rate=0")
    shop.broken = True
    ended = view.get_by_text("Your sign-in has ended")
    await expect(ended).to_be_visible()
    assert await violations(view) == []
    await expect(field(view)).to_have_value("tokens=2 rate=0")
    shop.broken, shop.seconds = False, 600
    await view.get_by_role("button", name="Try again").click()
    await expect(ended).to_be_hidden()
    await live(view)
    await view.reload()
    await live(view)
    await expect(field(view)).to_have_value("tokens=2 rate=0")
    await field(view).press("Enter")
    await expect(chat(view).locator(".bubble")).to_have_count(2)
    await expect(field(view)).to_have_value("")


@pytest.mark.thorough
async def test_it_waits_for_a_page_and_an_api_that_are_away_at_first(console: Console) -> None:
    shop = CustomersPage(console, await console.session())
    shop.broken = True
    view = await shop.open()
    await expect(view.get_by_text("Your sign-in has ended")).to_be_visible()
    shop.broken = False
    await view.get_by_role("button", name="Try again").click()
    await live(view)


@pytest.mark.thorough
async def test_it_goes_with_what_the_page_says(console: Console) -> None:
    """Another session, and none: nothing of the first stays, and no connection."""
    shop = CustomersPage(console, await console.session())
    view = await shop.open()
    await live(view)
    other = await console.session()
    await other.send("tokens=2 rate=0")
    shop.session = other
    await chat(view).evaluate("(chat, id) => chat.setAttribute('session', id)", other.id)
    await expect(chat(view).locator(".bubble")).to_have_count(2)
    await chat(view).evaluate("(chat) => chat.setAttribute('session', '../tokens')")
    await expect(chat(view).get_by_role("alert")).to_have_text(
        "This chat has no valid session or API address."
    )
    with pytest.raises(Error, match="a function that returns a session token"):
        await chat(view).evaluate("(chat) => (chat.token = 'a token')")
    await chat(view).evaluate("(chat) => chat.remove()")
    await until(view, "() => !document.querySelector('waystation-chat')")


@pytest.mark.thorough
async def test_a_session_that_was_terminated_waits_for_nothing(console: Console) -> None:
    """Nor does a browser that lets the page keep nothing stop it."""
    shop = CustomersPage(console, await console.session("asking"))
    context = await shop.context()
    denied = "{ get() { throw new DOMException('denied'); } }"
    await context.add_init_script(f"Object.defineProperty(window, 'sessionStorage', {denied})")
    view = await shop.open(context)
    await live(view)
    await say(view, "text")
    card = chat(view).locator(".card.question")
    await expect(card.get_by_role("textbox")).to_be_visible()
    await expect(field(view)).to_have_value("")
    temporal = await Temporal.connect(console.stack.temporal.address)
    await temporal.get_workflow_handle(shop.session.id).terminate()
    await expect(view.get_by_text("This session has ended.")).to_be_visible()
    await expect(card).to_contain_text("Withdrawn: the session was closed.")
    for role in ("textbox", "button"):
        await expect(card.get_by_role(role)).to_have_count(0)
    await expect(view.get_by_role("button", name="Stop")).to_be_hidden()
    await expect(chat(view).locator(".doing")).to_be_hidden()
    assert (await shop.session.snapshot()).questions == ()


STYLES_OF_A_PAGE = """
* { color: rgb(1, 2, 3); font: italic 900 40px/3 serif; }
body {
  text-transform: uppercase; letter-spacing: 5px; word-spacing: 9px; white-space: nowrap; text-align: right;
  text-indent: 50px; text-shadow: 1px 1px red; font-variant: small-caps; word-break: break-all; cursor: wait;
  list-style: none; caret-color: red; user-select: none; writing-mode: vertical-lr; --ink: red; --soft: red;
}
"""


async def test_the_pages_styles_do_not_reach_into_it(console: Console) -> None:
    """Neither what it says of every element, nor what is inherited."""
    shop = CustomersPage(console, await console.session(title="Styled"))
    await shop.session.send("tokens=5 rate=0")

    async def looks() -> Any:
        view = await shop.open()
        await live(view)
        await expect(chat(view).locator(".bubble")).to_have_count(2)
        await expect(chat(view).locator(".streaming")).to_have_count(0)
        said = await chat(view).evaluate(
            """(chat, names) => [...chat.shadowRoot.querySelectorAll("*")].map((one) => {
                 const style = getComputedStyle(one);
                 return [one.className || one.localName, ...names.map((name) => style[name])].join(" | ");
               })""",
            re.findall(r"([a-z-]+):", STYLES_OF_A_PAGE),
        )
        # But it is hidden with what it stands in.
        await view.evaluate("document.querySelector('main').style.visibility = 'hidden'")
        await expect(field(view)).to_be_hidden()
        return said

    plain = await looks()
    shop.styles = STYLES_OF_A_PAGE
    assert await looks() == plain
    assert len(plain) > 10


@pytest.mark.thorough
async def test_the_element_has_one_address_and_its_parts_have_the_current_version(console: Console) -> None:
    shop = CustomersPage(console, await console.session())
    context = await shop.context()
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    view = await context.new_page()
    await view.route(f"{CUSTOMERS_PAGE}/**", shop._serve)
    await view.goto(f"{CUSTOMERS_PAGE}/order")
    await live(view)
    [first, *parts] = [url.split("/console/")[1] for url in asked if "/console/" in url]
    assert first == "waystation-chat.js"
    assert len({part.split("/")[0] for part in parts}) == 1, "all of one version"
    assert not any(part.endswith(("main.js", "sign-in.js", "session.js")) for part in parts)
