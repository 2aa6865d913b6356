"""People in front of the console: pages in browser contexts of their own, signed in."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Error, Page, expect

from tests.world.money_stack import MoneyStack
from tests.world.stack import KEYS
from waystation.client import Client, Session

PATIENCE_MS = 30_000
LOOK_MS = 30
"""Between two looks at a page: with each frame, as is the default, it would have to draw all the time."""
ROLES = ("client", "operator", "approver")

expect.set_options(timeout=PATIENCE_MS)


class Console:
    """Opens pages, and notes whatever went wrong in one of them."""

    def __init__(self, browser: Browser, stack: MoneyStack, client: Client) -> None:
        self.browser, self.stack, self.client = browser, stack, client
        self.faults: list[str] = []
        self.contexts: list[BrowserContext] = []

    async def session(self, agent: str = "demo", **options: Any) -> Session:
        return await self.client.start(agent, session_id=f"s-{uuid.uuid4().hex}", **options)

    async def token(self, role: str, session_id: str, name: str) -> str:
        body = {"role": role, "sessions": [session_id], "subject": name.lower(), "name": name}
        answer = await self.stack.call("service", "POST", "/tokens", body)
        return str(answer.json()["token"])

    async def people(self, session_id: str) -> list[str]:
        """Tokens of all three kinds of people, who are concerned by one session alone."""
        return [await self.token(role, session_id, f"test-{role}") for role in ROLES]

    async def context(self, **options: Any) -> BrowserContext:
        """A browser of its own: nothing is shared with others."""
        context = await self.browser.new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        self.contexts.append(context)
        return context

    async def page(
        self,
        path: str = "/",
        *tokens: str,
        context: BrowserContext | None = None,
        url: str | None = None,
        **options: Any,
    ) -> Page:
        """A page at a view, signed in with these tokens (by default as all three kinds of people)."""
        page = await (context or await self.context(**options)).new_page()
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._listen)
        given = tokens or tuple(KEYS[role] for role in ROLES)
        query = "&".join(f"token={token}" for token in given)
        await page.goto(f"{url or self.stack.url}/#{path}{'&' if '?' in path else '?'}{query}")
        return page

    def _listen(self, message: ConsoleMessage) -> None:
        # A browser logs every answer of 400 and more by itself; that is no fault of the page.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(message.text)


@asynccontextmanager
async def open_console(browser: Browser, stack: MoneyStack) -> AsyncIterator[Console]:
    async with stack.client() as client:
        console = Console(browser, stack, client)
        try:
            yield console
        finally:
            for context in console.contexts:
                await context.close()
        assert not console.faults, console.faults


async def until(page: Page, script: str, argument: Any = None) -> None:
    """Waits until a function in the page answers something true."""
    try:
        await page.wait_for_function(script, arg=argument, polling=LOOK_MS, timeout=PATIENCE_MS)
    except Error as error:
        shown = await page.locator("body").inner_text()
        raise AssertionError(
            f"never true: {script}\n{argument!r}\nThe page shows:\n{shown[-1500:]}"
        ) from error
