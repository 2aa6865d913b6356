"""Long sessions open as fast as short ones, and the page is small."""

import re
import time
import uuid

import httpx
import pytest
from playwright.async_api import Response, expect

from api.routes.console import FOLDER, TYPE_IN_LINE, version_of, without_comments
from tests.console.people import Console, until
from tests.console.test_streaming import ready
from waystation.client import Session

MESSAGES = 5_000
MAX_OPENING_SECONDS = 1.0
MAX_FIRST_LOAD_BYTES = 75_000
MAX_PAGE_BYTES = 120_000
DRAWN = """
() => [...document.querySelectorAll('.message > .text')]
  .filter(element => element.checkVisibility({contentVisibilityAuto: true})).length
"""
MIDDLE = "log => { log.scrollTop = log.scrollHeight / 2; }"


async def long_session(console: Console) -> Session:
    """5,000 messages, of which each tenth is a list with some code."""
    session = await console.session(title="A long story")
    rich = "Some **points**:\n\n- one\n- two `code`\n\n```python\nprint(1)\n```"
    for start in range(0, MESSAGES, 500):
        items = [
            {
                "n": number + 1,
                "type": "message.completed",
                "message_id": f"m{number}",
                "data": {"text": rich if number % 10 == 0 else f"Message number {number} of the long story."},
            }
            for number in range(start, start + 500)
        ]
        body = {"writer": "chronicle", "items": items}
        answer = await console.stack.call("agent", "POST", f"/sessions/{session.id}/events", body)
        assert answer.status_code == 200, answer.text
    return session


@pytest.mark.alone
async def test_five_thousand_messages_open_within_a_second_and_scroll(console: Console) -> None:
    session = await long_session(console)
    page = await console.page("/approvals")
    await expect(page.get_by_role("heading", name="Inbox")).to_be_visible()
    newest = f"Message number {MESSAGES - 1} of the long story."
    begin = time.monotonic()
    await page.evaluate("(id) => { location.hash = `#/sessions/${id}`; }", session.id)
    await page.get_by_text(newest).wait_for()
    took = time.monotonic() - begin
    assert took < MAX_OPENING_SECONDS
    await ready(page)
    await expect(page.get_by_text(newest)).to_be_in_viewport()
    # Everything before it follows, without moving what is being read.
    await until(page, f"() => document.querySelectorAll('.message').length === {MESSAGES}")
    await expect(page.get_by_text(newest)).to_be_in_viewport()
    await page.locator(".log").evaluate(MIDDLE)
    # By its class: to look for a role and a name among so many elements takes a browser seconds.
    newer = page.locator(".jump")
    await expect(newer).to_be_visible()
    assert 0 < await page.evaluate(DRAWN) < 100, "only what is on the screen is laid out and drawn"
    await page.locator(".log").evaluate("log => { log.scrollTop = 0; }")
    await expect(page.locator('[data-key="message:m0"]')).to_be_in_viewport()
    order = await page.evaluate("() => [...document.querySelectorAll('.message')].map(e => e.dataset.key)")
    assert order == [f"message:m{number}" for number in range(MESSAGES)]
    # What comes now does not tear the reader away from the beginning.
    late = f"late-{uuid.uuid4().hex}"
    item = {
        "n": MESSAGES + 1,
        "type": "message.completed",
        "message_id": late,
        "data": {"text": "And one more."},
    }
    body = {"writer": "chronicle", "items": [item]}
    answer = await console.stack.call("agent", "POST", f"/sessions/{session.id}/events", body)
    assert answer.status_code == 200, answer.text
    await until(page, "(key) => document.querySelector(`[data-key='${key}']`) !== null", f"message:{late}")
    await expect(page.locator('[data-key="message:m0"]')).to_be_in_viewport()
    await newer.click()
    await expect(page.locator(f"[data-key='message:{late}']")).to_be_in_viewport()


async def test_the_page_is_small(console: Console) -> None:
    """Every file of it, compressed as the server sends it."""
    session = await console.session()
    context = await console.context()
    responses: list[Response] = []
    context.on("response", lambda response: responses.append(response))
    page = await console.page(f"/sessions/{session.id}", context=context)
    await ready(page)
    first = await bytes_of(console, responses)
    assert first < MAX_FIRST_LOAD_BYTES
    await page.get_by_role("button", name="Timeline").click()
    await page.get_by_role("button", name="Inspect", exact=True).click()
    await page.locator(".details").get_by_text("Raw").click()
    await expect(page.locator(".raw .virtual-row, .inspector .sum").first).to_be_visible()
    await page.get_by_role("button", name="Phone").click()
    await expect(page.get_by_role("img", name="QR code")).to_be_visible()
    await page.get_by_role("button", name="Close", exact=True).click()
    views = {
        "/sessions": "Sessions",
        "/approvals": "Inbox",
        "/mandates": "Money",
        "/purchases/none": "Not available",
    }
    for path, title in views.items():
        await page.evaluate("(path) => { location.hash = `#${path}`; }", path)
        await expect(page.get_by_role("heading", level=1)).to_have_text(title)
    names = {one.url.rsplit("/", 1)[-1] for one in responses}
    assert names >= {
        "console.css",
        "debug.css",
        "inspector.js",
        "events.js",
        "uqr.js",
        "timeline.js",
        "decision.js",
    }
    whole = await bytes_of(console, responses)
    assert whole < MAX_PAGE_BYTES
    print(f"{first} bytes at first, {whole} in all")


async def bytes_of(console: Console, responses: list[Response]) -> int:
    """What the console's own files took."""
    home = f"{console.stack.url}/"
    files = [one for one in responses if one.url == home or one.url.startswith(f"{home}console/")]
    assert files
    sizes = [await one.request.sizes() for one in files]
    return sum(one["responseBodySize"] for one in sizes)


async def test_a_browser_keeps_every_part_for_good(console: Console) -> None:
    """Until one of them changes: then all of them have other addresses."""
    context = await console.context()
    responses: list[Response] = []
    context.on("response", lambda response: responses.append(response))
    page = await console.page("/sessions", context=context)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sessions")
    parts = [one for one in responses if "/console/" in one.url]
    assert len(parts) > 5
    versions = {one.url.split("/console/")[1].split("/")[0] for one in parts}
    assert len(versions) == 1
    for one in parts:
        assert "immutable" in str(await one.header_value("cache-control")), one.url
    async with httpx.AsyncClient(base_url=console.stack.url) as http:
        whole = await http.get("/")
        unversioned = await http.get("/console/main.js")
        [version] = versions
        assert (await http.get(f"/console/{version[::-1]}/main.js")).status_code == 404
        assert (await http.get(f"/console/{version}/index.html")).status_code == 404
    assert whole.headers["cache-control"] == unversioned.headers["cache-control"] == "no-cache"
    assert whole.text.count(f"/console/{version}/") == whole.text.count("/console/")


def test_a_version_is_of_names_and_contents() -> None:
    one = {"a.js": b"1", "b.js": b"2"}
    assert version_of(one) == version_of(dict(reversed(one.items())))
    others = ({"a.js": b"1", "b.js": b"3"}, {"a.js": b"1", "c.js": b"2"}, {"a.js": b"1"}, {"a.js": b"1b.js2"})
    assert len({version_of(one), *map(version_of, others)}) == 5


def test_comments_are_left_out_and_lines_keep_their_numbers() -> None:
    module = """// Alone.
/** One line. */
import { a } from "https://example.com//a.js";

/**
 * Several, with `code` and a // within.
 * @param {string} b
 */
export function c(b) {
  // Why.
  return /** @type {any} */ (b) + "/* no comment */"; // beside code
}
/** @type {any} */ (c).d = 1;
"""
    left = """

import { a } from "https://example.com//a.js";





export function c(b) {

  return (b) + "/* no comment */"; // beside code
}
(c).d = 1;
"""
    assert without_comments(module) == left


def test_no_text_of_the_console_has_several_lines() -> None:
    """A line of it could look like a comment, and be left out."""
    quoted = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|/(?:[^/\\]|\\.)+/[dgimsuy]*""")
    for path in FOLDER.rglob("*.js"):
        if "vendor" in path.parts:
            continue
        for line in without_comments(path.read_text()).splitlines():
            counts = (line.count("`"), quoted.sub("", line).count("`"))
            assert any(count % 2 == 0 for count in counts), f"{path.name}: {line}"


def test_no_text_of_the_console_looks_like_a_type() -> None:
    """It would be left out of the line."""
    text = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`""")
    assert text.findall('a("/** @type {b} */ ")') == ['"/** @type {b} */ "']
    for path in FOLDER.rglob("*.js"):
        lines = [
            line for line in path.read_text().splitlines() if not line.strip().startswith(("*", "/*", "//"))
        ]
        assert [one for line in lines for one in text.findall(line) if TYPE_IN_LINE.search(one)] == [], (
            path.name
        )
