"""Signing in, and what becomes of a page and of what was written there when a token expires."""

import re
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from tests.console.people import Console, until
from tests.console.test_access import violations
from tests.console.test_money import APPROVE, ask_for_books, settled
from tests.console.test_streaming import ask, ready

SIZES = [
    pytest.param({"viewport": {"width": 1280, "height": 800}}, id="desktop"),
    pytest.param(
        {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark"},
        id="phone",
        marks=pytest.mark.thorough,
    ),
]
SHORT_SECONDS = 8


async def short_token(console: Console, session_id: str, subject: str = "ada") -> str:
    body = {"role": "client", "sessions": [session_id], "subject": subject, "ttl_seconds": SHORT_SECONDS}
    return str((await console.stack.call("service", "POST", "/tokens", body)).json()["token"])


def field(page: Page) -> Any:
    return page.get_by_label("Message", exact=True)


@pytest.mark.parametrize("options", SIZES)
async def test_a_token_that_expires_in_mid_draft_leaves_page_and_draft(
    console: Console, options: dict[str, Any]
) -> None:
    session = await console.session()
    page = await console.page(f"/sessions/{session.id}", await short_token(console, session.id), **options)
    await ready(page)
    await page.evaluate("window.view = document.querySelector('.session-view')")
    await ask(page, "tokens=3 rate=0")
    await field(page).fill("Half a thou")
    dialog = page.get_by_role("dialog", name="Your sign-in has ended")
    await expect(dialog).to_be_visible()
    assert await violations(page) == []
    await expect(field(page)).to_have_value("Half a thou")
    await expect(page.locator(".from-agent")).to_have_count(1)
    # Whoever wants to read on does, and comes back to it.
    await dialog.get_by_role("button", name="Keep reading").click()
    await field(page).fill("Half a thought")
    await page.get_by_role("button", name="Sign in again").click()
    await dialog.get_by_label("Token").fill("wrong")
    await dialog.get_by_role("button", name="Sign in").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("unknown or has expired")
    await session.send("tokens=2 rate=0")
    await dialog.get_by_label("Token").fill(await console.token("client", session.id, "Ada"))
    await page.keyboard.press("Enter")
    await expect(dialog).to_have_count(0)
    await ready(page)
    await expect(page.locator(".from-agent")).to_have_count(2)
    assert await page.evaluate("window.view.isConnected"), "the page is the same, and was not made again"
    await expect(field(page)).to_have_value("Half a thought")
    await field(page).press("Enter")
    await expect(page.locator(".from-user")).to_have_count(3)
    await expect(field(page)).to_have_value("")


@pytest.mark.thorough
async def test_a_tab_whose_token_has_expired_takes_the_one_of_another_tab(console: Console) -> None:
    session = await console.session()
    context = await console.context()
    page = await console.page(
        f"/sessions/{session.id}", await short_token(console, session.id), context=context
    )
    await expect(field(page)).to_be_visible()
    dialog = page.get_by_role("dialog", name="Your sign-in has ended")
    await expect(dialog).to_be_visible()
    # Another person's is not taken: it would show Ada's page to Bob.
    bob = await console.page(
        f"/sessions/{session.id}", await console.token("client", session.id, "Bob"), context=context
    )
    await ready(bob)
    await expect(dialog).to_be_visible()
    other = await console.page(
        f"/sessions/{session.id}", await console.token("client", session.id, "Ada"), context=context
    )
    await ready(other)
    await expect(dialog).to_have_count(0)
    await ready(page)


@pytest.mark.thorough
async def test_somebody_else_who_signs_in_sees_no_draft(console: Console) -> None:
    session = await console.session()
    page = await console.page(f"/sessions/{session.id}", await short_token(console, session.id))
    await field(page).fill("Dear diary")
    dialog = page.get_by_role("dialog", name="Your sign-in has ended")
    await dialog.get_by_label("Token").fill(await console.token("client", session.id, "Bob"))
    await page.keyboard.press("Enter")
    await ready(page)
    await expect(field(page)).to_have_value("")


async def test_drafts_survive_reload_and_back_and_end_with_the_sign_in(console: Console) -> None:
    session, other = await console.session(), await console.session()
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    await field(page).fill("One\ntwo")
    await page.reload()
    await ready(page)
    await expect(field(page)).to_have_value("One\ntwo")
    await page.evaluate("(id) => { location.hash = `#/sessions/${id}`; }", other.id)
    await expect(page.locator("h1")).to_have_text("demo")
    await ready(page)
    await expect(field(page)).to_have_value("")
    await page.go_back()
    await ready(page)
    await expect(field(page)).to_have_value("One\ntwo")
    await page.get_by_role("button", name="Sign out").click()
    assert await page.evaluate("sessionStorage.length") == 0


@pytest.mark.thorough
async def test_a_message_on_its_way_at_a_reload_is_kept_and_counts_once(console: Console) -> None:
    session = await console.session()
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    sent: list[Any] = []

    async def swallow(route: Route) -> None:
        sent.append(route.request.post_data_json)

    await page.route("**/messages", swallow)
    await ask(page, "tokens=2 rate=0")
    await expect(field(page)).to_have_value("")
    await until(page, "() => Object.keys(sessionStorage).some(key => key.startsWith('waystation.draft'))")
    await page.reload()
    await ready(page)
    await expect(field(page)).to_have_value("tokens=2 rate=0")
    # It had arrived, though nobody said so: then it is no draft any more.
    await session.send("tokens=2 rate=0", message_id=sent[0]["message_id"])
    await expect(field(page)).to_have_value("")
    await expect(page.locator(".from-user")).to_have_count(1)


@pytest.mark.thorough
@pytest.mark.parametrize("fails", [503, None], ids=["503", "no connection"])
async def test_a_link_that_opens_while_the_server_is_away_signs_in_once_it_is_back(
    console: Console, fails: int | None
) -> None:
    session = await console.session()
    token = await console.token("client", session.id, "Ada")
    page = await (await console.context()).new_page()
    away = True

    async def meddle(route: Route) -> None:
        if not away:
            await route.continue_()
        elif fails:
            await route.fulfill(status=fails, json={"detail": "Temporal can't be reached."})
        else:
            await route.abort("connectionrefused")

    await page.route("**/me", meddle)
    await page.goto(f"{console.stack.url}/#/sessions/{session.id}?token={token}")
    status = page.get_by_role("status")
    await expect(status).to_contain_text("trying again")
    assert await violations(page) == []
    assert token not in page.url
    # Not even a reload loses it.
    await page.reload()
    await expect(status).to_contain_text("trying again")
    away = False
    await page.get_by_role("button", name="Try now").click()
    await ready(page)
    assert await page.evaluate("sessionStorage.getItem('waystation.arriving')") is None


async def test_an_approver_approves_on_the_phone(console: Console) -> None:
    talk, purchase_id, _ = await ask_for_books(console)
    laptop = await console.page(f"/sessions/{talk.session.id}")
    await ready(laptop)
    await laptop.get_by_role("button", name="Phone").click()
    dialog = laptop.get_by_role("dialog", name="Continue on your phone")
    for words in ("write to the agent", "approve and reject", "take over", "Until", "in this session only"):
        await expect(dialog.locator("figcaption")).to_contain_text(words)
    assert await violations(laptop) == []
    link = await dialog.get_by_label("Or use this link").input_value()
    assert len(re.findall("token=", link)) == 3, "one for each role"
    phone = await (await console.context(viewport={"width": 390, "height": 800})).new_page()
    await phone.goto(link)
    await ready(phone)
    await phone.get_by_role("button", name="More").click()
    await expect(phone.get_by_role("button", name="Take over")).to_be_visible()
    await phone.evaluate("(id) => { location.hash = `#/purchases/${id}`; }", purchase_id)
    await phone.get_by_role("button", name=APPROVE).click()
    await settled(phone, "completed")


@pytest.mark.thorough
async def test_a_phone_may_do_no_more_than_its_person(console: Console) -> None:
    session = await console.session()
    page = await console.page(f"/sessions/{session.id}", await console.token("client", session.id, "Ada"))
    await ready(page)
    await page.get_by_role("button", name="Phone").click()
    dialog = page.get_by_role("dialog", name="Continue on your phone")
    await expect(dialog.locator("figcaption")).to_contain_text("write to the agent")
    await expect(dialog.locator("figcaption")).not_to_contain_text("approve")
    assert (await dialog.get_by_label("Or use this link").input_value()).count("token=") == 1


async def test_a_page_of_the_same_origin_renews_without_asking_anybody(console: Console) -> None:
    session = await console.session()
    context = await console.context()
    host = await context.new_page()
    await host.goto(f"{console.stack.url}/openapi.json")
    await host.evaluate(
        """(token) => {
          const channel = new BroadcastChannel('waystation.sign-in');
          window.asked = 0;
          channel.onmessage = ({ data }) => {
            if (data !== 'who') return;
            window.asked += 1;
            channel.postMessage([token]);
          };
        }""",
        await console.token("client", session.id, "Ada"),
    )
    page = await console.page(
        f"/sessions/{session.id}", await short_token(console, session.id), context=context
    )
    await expect(field(page)).to_be_visible()
    await page.evaluate("window.dialogs = 0")
    await page.evaluate(
        "new MutationObserver(() => { window.dialogs += document.querySelectorAll('dialog').length; })"
        ".observe(document.body, {childList: true})"
    )
    await until(host, "() => window.asked > 0")
    await session.send("tokens=2 rate=0")
    await expect(page.locator(".from-agent")).to_have_count(1)
    await ready(page)
    assert await page.evaluate("window.dialogs") == 0
