"""People watch, steer, stop and take over, in real tabs of a real browser."""

import asyncio
import re
import uuid

from playwright.async_api import BrowserContext, Page, Route, expect

from tests.console.people import Console, until
from tests.support import eventually
from tests.world.listener import listening
from waystation.agents.demo import WORDS
from waystation.client import Session
from waystation.demo.chapters import spoken
from waystation.demo.wire import Wire

ANSWER = """
() => [...document.querySelectorAll('.from-agent:not(.superseded) .text')].map(e => e.textContent).join('')
"""
LONGER = f"(length) => ({ANSWER})().length > length"
ENDLESS = 2_000
"""Words that no test waits for."""
RUNS = "() => document.querySelector('.message.streaming') !== null"
IDLE = "() => document.querySelector('.session-head .pill')?.textContent === 'idle'"

# Notes every way in which a text that was on the screen changed other than by growing.
WITNESS = """
() => {
  window.faults = [];
  const known = new Map();
  const look = () => {
    for (const element of document.querySelectorAll('.from-agent:not(.superseded)')) {
      const text = element.querySelector('.text').textContent;
      const before = known.get(element.dataset.key) ?? '';
      if (!text.startsWith(before)) window.faults.push([before.slice(-60), text.slice(-60)]);
      known.set(element.dataset.key, text);
    }
  };
  new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true});
}
"""


async def ready(page: Page) -> None:
    await expect(page.locator(".connection")).to_have_text("Live")


async def answer(page: Page) -> str:
    return str(await page.evaluate(ANSWER))


async def ask(page: Page, text: str) -> None:
    await page.get_by_label("Message", exact=True).fill(text)
    # With fingers Enter starts a new line.
    if await page.evaluate("matchMedia('(hover: none)').matches"):
        await page.get_by_role("button", name="Send", exact=True).tap()
    else:
        await page.keyboard.press("Enter")


async def tabs(console: Console, session: Session, count: int = 2) -> tuple[BrowserContext, list[Page]]:
    """Tabs of one browser on one session, each live and watched."""
    context = await console.context()
    pages = [await console.page(f"/sessions/{session.id}", context=context) for _ in range(count)]
    for page in pages:
        await ready(page)
        await page.evaluate(WITNESS)
    return context, pages


async def faults(page: Page) -> object:
    return await page.evaluate("window.faults")


async def test_two_tabs_are_in_sync_while_an_answer_streams(console: Console) -> None:
    session = await console.session()
    _, (one, other) = await tabs(console, session)
    await expect(one.locator(".people sup")).to_have_text("2")
    await ask(one, f"tokens={ENDLESS} rate=30")
    await until(one, LONGER, 60)
    for page in (other, one, other):
        length = len(await answer(one if page is other else other))
        await until(page, LONGER, length)
        assert await page.evaluate(RUNS)
    await session.stop()
    for page in (one, other):
        await until(page, IDLE)
        assert spoken(ENDLESS).startswith(await answer(page))
        assert await faults(page) == []
    assert await answer(one) == await answer(other) == (await session.load()).messages[-1].text
    await other.close()
    await expect(one.locator(".people sup")).to_have_count(0)


async def test_a_cut_network_loses_and_doubles_nothing(console: Console) -> None:
    session = await console.session()
    wire = Wire(console.stack.ports[0])
    await wire.mend()
    try:
        page = await console.page(f"/sessions/{session.id}", url=wire.url)
        await ready(page)
        await page.evaluate(WITNESS)
        await session.send(f"tokens={3 * len(WORDS)} rate=40")
        await until(page, LONGER, 60)
        wire.cut()
        await expect(page.locator(".connection")).to_have_text("Offline")
        had = len(await answer(page))
        assert 0 < had < len(spoken(3 * len(WORDS))), "it was cut in mid-answer"
        await wire.mend()
        await ready(page)
        await until(page, IDLE)
        assert await answer(page) == spoken(3 * len(WORDS))
        assert await faults(page) == []
    finally:
        await wire.close()


async def test_a_network_that_swallows_everything_is_left_for_one_that_works(console: Console) -> None:
    """A try that gets no answer, and no error either, must not be waited for."""
    session = await console.session()
    wire = Wire(console.stack.ports[0])
    await wire.mend()
    swallowing = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        swallowing.set()
        await asyncio.Event().wait()

    try:
        context = await console.context()
        await context.clock.install()
        page = await console.page(f"/sessions/{session.id}", context=context, url=wire.url)
        await ready(page)
        wire.cut()
        await expect(page.locator(".connection")).to_have_text("Offline")

        async def swallowed() -> bool:
            await page.clock.fast_forward(10_000)
            return swallowing.is_set()

        async with listening(swallow, int(wire.url.rpartition(":")[2])) as hole:
            await eventually(swallowed, what="a try to connect")
            hole.refuse()
            await wire.mend()
            await session.send("tokens=20 rate=0")
            await page.clock.fast_forward(36_000)
            await page.clock.fast_forward(11_000)
            await ready(page)
            await until(page, LONGER, len(spoken(20)) - 1)
    finally:
        await wire.close()


async def test_what_is_written_while_a_message_is_under_way_is_kept(console: Console) -> None:
    session = await console.session()
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    let_through, cut_off = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        await let_through.wait()
        await (route.abort() if cut_off.is_set() else route.continue_())

    # One route throughout: between the removal of one and the next, a request may slip through.
    await page.route("**/messages", hold)
    await ask(page, "tokens=1 rate=0")
    field = page.get_by_label("Message", exact=True)
    await expect(field).to_have_value("")
    await field.press_sequentially("And now")
    let_through.set()
    await expect(page.locator(".from-user")).to_have_count(1)
    await until(page, IDLE)
    await expect(field).to_have_value("And now")

    cut_off.set()
    await page.keyboard.press("Enter")
    problem = page.locator(".session-view > .problem")
    await expect(problem).to_contain_text("can't be reached")
    await expect(field).to_have_value("And now")
    await page.unroute("**/messages")
    await page.keyboard.press("Enter")
    await expect(page.locator(".from-user")).to_have_count(2)
    await expect(problem).to_be_hidden()


async def test_the_newest_words_stay_in_view_while_the_composer_grows(console: Console) -> None:
    session = await console.session()
    await session.send("tokens=300 rate=0")
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    await until(page, IDLE)
    # Between the moment when the page scrolls to something new, and the one when it hears of that.
    await page.evaluate(
        """() => new Promise((resolve) => {
          const field = document.getElementById('message');
          const padding = document.createElement('div');
          padding.style.height = '300px';
          document.querySelector('.log .column').append(padding);
          requestAnimationFrame(() => setTimeout(() => {
            field.value = 'line\\n'.repeat(9);
            field.dispatchEvent(new Event('input'));
            requestAnimationFrame(() => requestAnimationFrame(resolve));
          }));
        })"""
    )
    log = page.get_by_role("log")
    assert await log.evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight") < 2
    await expect(page.get_by_role("button", name="Newest")).to_be_hidden()
    await log.hover()
    await page.mouse.wheel(0, -400)
    await expect(page.get_by_role("button", name="Newest")).to_be_visible()


async def test_reloading_in_mid_answer_goes_on_with_it(console: Console) -> None:
    session = await console.session()
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    await ask(page, f"tokens={ENDLESS} rate=30 tool=search think=5")
    await until(page, LONGER, 60)
    await page.reload()
    await ready(page)
    assert await page.evaluate(RUNS), "it still runs"
    assert "token" not in page.url
    await page.evaluate(WITNESS)
    await until(page, LONGER, len(await answer(page)))
    await session.stop()
    await until(page, IDLE)
    shown = await page.locator(".from-agent .text").last.evaluate("e => e.textContent")
    assert shown == (await session.load()).messages[-1].text
    assert spoken(ENDLESS).startswith(shown)
    assert await faults(page) == []
    await expect(page.locator(".tool")).to_contain_text("search")
    reasoning = page.locator("details.reasoning")
    assert await reasoning.get_attribute("open") is None, "reasoning is folded"


async def test_a_stop_in_one_tab_is_seen_in_the_other(console: Console) -> None:
    session = await console.session()
    _, (one, other) = await tabs(console, session)
    await ask(one, "tokens=2000 rate=40")
    await until(other, LONGER, 100)
    await one.get_by_role("button", name="Stop").click()
    for page in (one, other):
        await expect(page.locator(".notice.strong")).to_contain_text("Stopped by you")
        await until(page, IDLE)
        await expect(page.locator(".message .state").last).to_have_text("Stopped here")
    assert await answer(one) == await answer(other) == (await session.load()).messages[-1].text
    await expect(one.get_by_role("button", name="Stop")).to_be_hidden()
    assert (await session.snapshot()).status == "idle"


async def test_messages_queue_interrupt_and_steer_while_the_agent_runs(console: Console) -> None:
    session = await console.session()
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    await ask(page, "tokens=2000 rate=30")
    await until(page, LONGER, 60)
    await page.get_by_text("Steer", exact=True).click()
    await ask(page, "mention the weather")
    await expect(page.locator(".steer")).to_contain_text("taken by the agent")
    await until(page, f"() => ({ANSWER})().includes('[steered: mention the weather]')")
    await page.get_by_text("Queue", exact=True).click()
    await ask(page, "tokens=3 rate=0")
    queued = page.locator(".from-user").last
    await expect(queued).to_contain_text("Waiting its turn")
    await page.get_by_text("Interrupt", exact=True).click()
    await ask(page, "tokens=4 rate=0")
    await expect(page.locator(".notice.strong")).to_contain_text("interrupted by a new message")
    await until(page, IDLE)
    await expect(queued).not_to_contain_text("Waiting its turn")
    said = await page.locator(".from-agent .text").all_text_contents()
    assert [text.strip() for text in said[1:]] == [spoken(4).strip(), spoken(3).strip()]


async def test_sub_agents_have_lanes_side_by_side(console: Console) -> None:
    session = await console.session()
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    await ask(page, "spawn=2 tokens=5 rate=30")
    await until(page, IDLE)
    lanes = page.locator(".lane")
    await expect(lanes).to_have_count(2)
    for number in (1, 2):
        await expect(lanes.nth(number - 1)).to_contain_text(
            f"Looking into question {number}. It has an answer."
        )
        await expect(lanes.nth(number - 1).locator(".pill")).to_have_text("completed")
    boxes = [await lanes.nth(number).bounding_box() for number in (0, 1)]
    assert boxes[0]
    assert boxes[1]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    await page.set_viewport_size({"width": 390, "height": 800})
    stacked = [await lanes.nth(number).bounding_box() for number in (0, 1)]
    assert stacked[0]
    assert stacked[1]
    assert stacked[0]["y"] + stacked[0]["height"] <= stacked[1]["y"]


async def test_a_superseded_attempt_is_marked(console: Console) -> None:
    session = await console.session()
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    await ask(page, "tokens=40 rate=30 retry=20")
    await expect(page.locator(".message.superseded")).to_contain_text("Superseded")
    await expect(page.locator(".notice.bad")).to_contain_text("Attempt 2 begins here")
    await until(page, IDLE)
    await page.get_by_text("What it had said").click()
    assert spoken(40).startswith(await page.locator(".message.superseded del").inner_text())
    assert await answer(page) == spoken(40)
    # Whoever comes later sees the mark too, and no text of it.
    await page.reload()
    await ready(page)
    await expect(page.locator(".message.superseded")).to_contain_text("Superseded")
    assert await answer(page) == spoken(40)


async def test_an_operator_takes_over_speaks_and_releases(console: Console) -> None:
    session = await console.session(title=f"Parcel {uuid.uuid4().hex[:6]}")
    ada = await console.page(f"/sessions/{session.id}", await console.token("client", session.id, "Ada"))
    await ready(ada)
    await ask(ada, "tokens=2000 rate=30")
    await until(ada, LONGER, 60)

    grace = await console.page("/sessions")
    title = (await session.snapshot()).title or ""
    await grace.get_by_label("Search").fill(title)
    row = grace.locator(".rows li:not([hidden])")
    await expect(row).to_have_count(1)
    await expect(row).to_contain_text("running")
    await row.get_by_role("link").click()
    await ready(grace)
    assert (await answer(grace)).startswith(spoken(5))
    await grace.get_by_role("button", name="Join").click()
    await expect(ada.locator(".notice").last).to_contain_text("test-operator joined")
    await grace.get_by_role("button", name="Take over").click()
    await grace.get_by_role("dialog").get_by_role("button", name="Take over").click()
    await expect(ada.locator(".session-head .pill")).to_have_text("test-operator speaks")
    await expect(ada.locator(".hint")).to_contain_text("is kept for the agent")
    await ask(grace, "I am a person. It leaves **today**.")
    await expect(ada.locator(".from-operator strong")).to_have_text("today")
    await ask(ada, "tokens=5 rate=0 quote=operator")
    await expect(ada.locator(".from-user").last).to_contain_text("Waiting its turn")
    await grace.get_by_role("button", name="Release").click()
    await grace.get_by_role("dialog").get_by_role("button", name="Release").click()
    await until(ada, "() => document.querySelector('.log').textContent.includes('I heard: “I am a person.')")
    await until(ada, IDLE)
    assert await ada.get_by_role("button", name="Take over").count() == 0, "clients don't take over"


async def test_the_timeline_shows_turns_and_leads_to_them(console: Console) -> None:
    session = await console.session()
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    for text in ("tokens=60 rate=0", "tokens=80 rate=0 spawn=2 messages=6", "tokens=2000 rate=20"):
        await ask(page, text)
        await until(page, "(text) => document.querySelector('.log').textContent.includes(text)", text)
        if "2000" not in text:
            await until(page, IDLE)
    await page.get_by_role("button", name="Stop").click()
    await until(page, IDLE)
    await page.get_by_role("button", name="Timeline").click()
    chart = page.locator(".timeline .chart-frame")
    await expect(chart.locator("a.turn")).to_have_count(5)
    await expect(chart.locator("a.turn.stopped")).to_have_count(1)
    await expect(chart.locator("a.stop")).to_have_count(1)
    await expect(chart.locator("a.message")).to_have_count(3)
    first = chart.locator("a.message").first
    await first.focus()
    await page.keyboard.press("Enter")
    found = page.locator(".from-user").first
    await expect(found).to_be_in_viewport()
    await expect(found).to_have_class(re.compile(r"\bfound\b"))
    # What happens while it is closed is in it when it is opened again.
    toggle = page.get_by_role("button", name="Timeline")
    await toggle.click()
    await ask(page, "tokens=3 rate=0")
    await expect(page.locator(".from-user")).to_have_count(4)
    await until(page, IDLE)
    await toggle.click()
    await expect(chart.locator("a.message")).to_have_count(4)


async def test_a_part_that_can_not_be_loaded_says_so(console: Console) -> None:
    session = await console.session()
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    await page.context.route("**/console/*/views/*", lambda route: route.abort())
    await page.get_by_role("button", name="Timeline").click()
    await expect(page.get_by_role("alert")).to_contain_text("could not be loaded")
    await page.get_by_role("link", name="Money").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        "This part of the console could not be loaded"
    )
    await page.context.unroute_all()
    await page.get_by_role("button", name="Try again").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Money")
    # A tab that was open over an upgrade finds its parts gone.
    await page.context.route("**/views/waiting.js", lambda route: route.fulfill(status=404))
    await page.get_by_role("button", name="What waits").click()
    await expect(page.get_by_role("main")).to_contain_text("runs another version now")


STATES = """
() => {
  window.states = [];
  const connection = document.querySelector('.connection');
  const note = () => window.states.push(connection.textContent);
  new MutationObserver(note).observe(connection, {childList: true});
}
"""


async def test_silence_is_taken_for_a_lost_connection(console: Console) -> None:
    """A dead line gives no error: only the missing heartbeats tell."""
    session = await console.session()
    context = await console.context()
    await context.clock.install()
    page = await console.page(f"/sessions/{session.id}", context=context)
    await ready(page)
    await page.evaluate(STATES)
    await page.clock.fast_forward(20_000)
    assert await page.evaluate("window.states") == [], "one heartbeat may be missing"
    await page.clock.fast_forward(40_000)
    await until(page, "() => window.states.includes('Offline')")
    await page.clock.fast_forward(5_000)
    await ready(page)


async def test_a_hidden_tab_lets_go_and_resumes(console: Console) -> None:
    session = await console.session()
    context = await console.context()
    await context.clock.install()
    page = await console.page(f"/sessions/{session.id}", context=context)
    await ready(page)
    hide = """(hidden) => {
      Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
      document.dispatchEvent(new Event('visibilitychange'));
    }"""
    await page.evaluate(hide, True)
    await page.clock.fast_forward(61_000)
    await expect(page.locator(".connection")).to_have_text("Paused")
    await session.send("tokens=20 rate=0")
    await page.evaluate(hide, False)
    await ready(page)
    await until(page, LONGER, len(spoken(20)) - 1)


async def test_a_session_that_is_not_there_says_so(console: Console) -> None:
    page = await console.page("/sessions/none")
    await expect(page.locator(".connection")).to_have_text("Not available")
    await expect(page.get_by_role("alert")).to_contain_text("There is no session 'none'")
    await expect(page.get_by_label("Message", exact=True)).to_be_disabled()


async def test_a_session_that_is_closed_says_so(console: Console) -> None:
    session = await console.session()
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    await session.close()
    await expect(page.locator(".connection")).to_have_text("Ended")
    await expect(page.get_by_label("Message", exact=True)).to_be_disabled()
    await expect(page.locator(".hint")).to_have_text("This session has ended.")


async def test_a_search_finds_what_is_on_no_page_yet(console: Console) -> None:
    word = f"needle{uuid.uuid4().hex[:8]}"
    await console.session(title=f"An old {word}")
    for _ in range(5):
        await asyncio.gather(*(console.session() for _ in range(11)))
    context = await console.context()
    await context.clock.install()
    page = await console.page("/sessions", context=context)
    rows = page.locator(".rows li")
    await expect(rows).to_have_count(50)
    await page.get_by_label("Search").fill(word)
    await page.clock.fast_forward(250)
    await expect(rows).to_have_count(1)
    assert page.url.endswith(f"#/sessions?q={word}")
    await page.get_by_label("Search").fill(f"{word} andmore")
    await page.clock.fast_forward(250)
    await expect(page.get_by_role("status")).to_have_text("Nothing found.")
    await page.get_by_label("Search").fill("")
    await page.clock.fast_forward(250)
    async with page.expect_response("**/sessions?*cursor=*") as older:
        await page.get_by_role("button", name="Older sessions").click()
    assert (await older.value).ok, await (await older.value).text()
    await expect(rows.nth(55)).to_be_visible()
    # The first page alone is read again and again.
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for _ in range(2):
        async with page.expect_response("**/sessions?*"):
            await page.clock.fast_forward(4_000)
    assert all("cursor" not in url for url in asked)


async def test_a_new_session_is_started_from_the_list(console: Console) -> None:
    page = await console.page("/sessions")
    await page.get_by_label("First message").fill("tokens=5 rate=0")
    await page.get_by_role("button", name="New session").click()
    await until(page, IDLE)
    assert await answer(page) == spoken(5)


async def test_a_call_whose_end_nobody_reports_does_not_run_for_ever(console: Console) -> None:
    """Outside turns nobody keeps account of calls: whoever reports one may die."""
    session = await console.session()
    called = {"n": 1, "type": "tool.called", "data": {"call_id": "c1", "name": "load", "arguments": {}}}
    body = {"writer": "cron", "items": [called]}
    answer = await console.stack.call("agent", "POST", f"/sessions/{session.id}/events", body)
    assert answer.status_code == 200, answer.text
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    state = page.locator(".log .tool .state")
    await expect(state).to_have_text("running …")
    await session.close()
    await expect(state).to_have_text("no end was reported")
    await page.reload()
    await expect(state).to_have_text("no end was reported")
