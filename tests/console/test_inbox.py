"""The inbox: what waits, and the decision as a question; by two at once, on a phone, with keys alone."""

import re
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, Route, expect

from tests.cli.test_statements import CART, leaves
from tests.console.people import Console
from tests.console.test_access import violations
from tests.console.test_money import APPROVE, as_shown, ask_for_books, row_of, want_books
from tests.console.test_questions import answered, asking, pose
from tests.end_to_end.talk import Talk
from tests.world.stack import KEYS

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
STATED = """
async (cart) => {
  const { cartStatement } = await import('/console/views/card.js');
  const element = document.createElement('div');
  element.append(...cartStatement(cart));
  const folded = element.querySelector('details').textContent;
  element.querySelector('details').remove();
  return [element.textContent, folded];
}
"""


async def chosen(page: Page, key: str) -> None:
    """Chooses what waits, and waits until it is shown."""
    await row_of(page, key).click()
    await expect(row_of(page, key)).to_have_attribute("aria-current", "true")


async def test_a_decision_reads_as_a_question_and_the_next_one_follows(console: Console) -> None:
    talk, purchase_id, asked = await ask_for_books(console, cap={"amount": 50_000, "currency": "usd"})
    session = await asking(console, "operators")
    page = await console.page("/approvals")
    key = f"purchases/{purchase_id}"
    await expect(row_of(page, key)).to_contain_text("25.00")
    await expect(row_of(page, key).locator(".countdown")).to_contain_text("5 h")
    await expect(row_of(page, f"sessions/{session.id}/t1:who")).to_contain_text("Who pays?")
    await chosen(page, key)
    shop = urlsplit(console.stack.sandbox.url("shop")).netloc
    pane = page.locator(".chosen")
    await expect(pane.get_by_role("heading", level=2)).to_have_text(f"Pay $25.00 to {shop}?")
    short = pane.locator(".in-short")
    await expect(short).to_have_text(
        re.compile(r"^2 × The Book of Tides.*, for Ada, via shopper\. Leaves \$475\.00\.$")
    )
    await expect(pane.locator(".reasons")).to_contain_text("Two copies, please.")
    await expect(pane.locator(".reasons")).to_contain_text("and would like to buy 2.")
    await expect(pane.locator(".cart tfoot")).not_to_contain_text("$0.00")
    await expect(pane.locator(".digest")).to_be_hidden()
    await pane.get_by_text("Where it comes from").click()
    await expect(pane.locator(".digest")).to_contain_text(asked["digest"])
    await expect(pane.get_by_role("link", name=talk.session.id)).to_be_visible()
    # What the mandate leaves is the server's word, and changes with other payments from it.
    bought = (await console.stack.call("service", "GET", f"/purchases/{purchase_id}")).json()["request"]
    second = await want_books(console, 3600, mandate=bought["mandate_id"], quantity=1)
    await expect(short).to_contain_text("Leaves $462.50.")
    await expect(row_of(page, f"purchases/{second}")).to_contain_text("12.50")
    await pane.get_by_role("button", name="Approve $25.00").click()
    await expect(page.locator(".inbox .outcome").first).to_contain_text(f"Approved: $25.00 to {shop}.")
    await expect(row_of(page, key)).to_have_count(0)
    await expect(page.locator(".listing .rows [aria-current]")).to_have_count(1)
    await expect(pane.get_by_role("heading", level=2)).to_be_visible()
    await expect(pane.locator(f'a[href="#/{key}"]')).to_have_count(0)
    await page.get_by_text("Decided or under way").click()
    past = page.locator(f'.listing a[href="#/{key}"]')
    await expect(past).to_contain_text("The Book of Tides")
    await expect(past.locator(".pill")).to_have_text("completed")
    await session.close()


async def test_ids_and_amounts_of_nothing_are_folded_and_nothing_is_left_out(console: Console) -> None:
    page = await console.page("/sessions")
    cart = CART.model_dump(mode="json")
    cart["totals"] += [{"type": "tax", "label": "No tax here", "amount": 0}]
    shown, folded = await page.evaluate(STATED, cart)
    for path, value in leaves(CART):
        if path == ".currency" or path.endswith(".type"):  # as a sign, and by the words for it
            continue
        assert as_shown(path, value).removeprefix("https://") in shown + folded, path
    assert "No tax here" in folded
    assert "No tax here" not in shown
    for one in ("line_id", "item_id"):
        assert cart["lines"][0][one] in folded
        assert cart["lines"][0][one] not in shown


async def test_of_two_who_decide_the_second_sees_at_once_who_did(console: Console) -> None:
    _, purchase_id, _ = await ask_for_books(console)
    key = f"purchases/{purchase_id}"
    one, other = [await console.page("/approvals", KEYS["approver"]) for _ in range(2)]
    for page in (one, other):
        await chosen(page, key)
        await expect(page.get_by_role("button", name=APPROVE)).to_be_visible()
    await other.get_by_label("Reason for a rejection").fill("not this one")
    await one.get_by_role("button", name=APPROVE).click()
    pane = other.locator(".chosen")
    await expect(pane.locator(".outcome").first).to_contain_text("Approved by test-approver")
    await expect(pane.get_by_role("button", name=APPROVE)).to_have_count(0)
    await expect(row_of(other, key)).to_have_count(0)
    # Neither of them knows yet: the one who comes too late is told who was first.
    _, late, _ = await ask_for_books(console)
    await chosen(other, f"purchases/{late}")
    reject = other.get_by_role("button", name="Reject")
    await expect(reject).to_be_visible()

    async def too_late(route: Route) -> None:
        digest = (await console.stack.call("service", "GET", f"/purchases/{late}")).json()["digest"]
        answer = await console.stack.call(
            "approver", "POST", f"/purchases/{late}/approve", {"digest": digest}
        )
        assert answer.status_code == 200, answer.text
        await route.continue_()

    await other.route("**/reject", too_late)
    await reject.click()
    await expect(pane.get_by_role("alert").first).to_contain_text("already")
    await expect(pane.locator(".outcome").first).to_contain_text("Approved by test-approver")


async def test_a_payment_says_where_it_comes_from_and_until_when(console: Console) -> None:
    mandate = await console.stack.mandate(cap={"amount": 500, "currency": "usd"}, approvers=["test-approver"])
    talk = await Talk.begin(console.client, "shopper")
    url = f"{console.stack.sandbox.url('paid-api')}/v1/reports/{talk.session.id}"
    await talk.ask("Fetch the report.", fetch=url, max_amount=50, mandate=mandate)
    asked = await talk.until("approval.requested")
    assert asked.data["approvers"] == ["test-approver"]
    key = f"payments/{asked.data['payment_id']}"
    page = await console.page("/approvals", KEYS["approver"])
    await expect(row_of(page, key).locator(".countdown")).to_contain_text("59 min")
    await chosen(page, key)
    pane = page.locator(".chosen")
    await expect(pane.locator(".in-short")).to_have_text(f"GET {url}, via shopper. Leaves $4.50.")
    await expect(pane.locator(".reasons")).to_contain_text("Fetch the report.")
    await expect(pane.locator(".countdown")).to_contain_text("min")
    await pane.get_by_text("Where it comes from").click()
    for told in (talk.session.id, mandate, "shopper"):
        await expect(pane.locator("details")).to_contain_text(told)
    await pane.get_by_label("Reason for a rejection").fill("we have it")
    await pane.get_by_role("button", name="Reject").click()
    await expect(page.locator(".inbox .outcome").first).to_contain_text("Rejected: $0.50")
    view = (await console.stack.call("service", "GET", f"/{key}")).json()
    assert (view["refusal"]["rule"], view["refusal"]["message"]) == (
        "rejected",
        "rejected by test-approver: we have it",
    )


async def test_whoever_may_not_decide_sees_it_only_if_they_ask(console: Console) -> None:
    _, purchase_id, _ = await ask_for_books(console, approvers=["grace"])
    key = f"purchases/{purchase_id}"
    page = await console.page("/approvals", KEYS["approver"])
    await page.get_by_role("button", name="Also what others decide").click()
    await expect(row_of(page, key)).to_contain_text("others decide")
    await chosen(page, key)
    await expect(page.locator(".chosen")).to_contain_text("Only grace can decide.")
    await expect(page.get_by_role("button", name=APPROVE)).to_have_count(0)
    await page.get_by_role("button", name="Also what others decide").click()
    await expect(row_of(page, key)).to_have_count(0)


async def test_with_the_keyboard_alone(console: Console) -> None:
    question = await asking(console, "operators")
    tool = await console.session()
    terms = {
        "question_id": "a",
        "kind": "approval",
        "prompt": "Send it?",
        "tool": "send",
        "editable": True,
        "arguments": {"text": "Dear Ada,\nhello"},
    }
    await pose(console, tool, terms)
    page = await console.page("/approvals")
    key = f"sessions/{tool.id}/a"
    await expect(row_of(page, key)).to_contain_text("send Dear Ada,")
    await page.keyboard.press("j")
    for _ in range(40):
        if await row_of(page, key).get_attribute("aria-current"):
            break
        await page.keyboard.press("k")
    await expect(row_of(page, key)).to_be_focused()
    pane = page.locator(".chosen")
    await expect(pane.get_by_role("heading", level=2)).to_have_text(f"Let {'test-agent'} run send?")
    await expect(pane.locator(".value").first).to_have_text("Dear Ada,\nhello")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_contain_text("the button that approves")
    await page.get_by_role("button", name="Close").press("Enter")
    await page.keyboard.press("r")
    await page.keyboard.type("a typed a and a typed j")
    await expect(pane.get_by_label("Reason for a rejection")).to_have_value("a typed a and a typed j")
    await page.get_by_role("button", name="Change the arguments").press("Enter")
    await pane.locator("textarea").fill('{"text": "Dear Ada"}')
    await row_of(page, key).focus()
    await page.keyboard.press("a")
    await expect(pane.get_by_role("button", name="Approve with these arguments")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator(".inbox .outcome").first).to_contain_text("Approved: send.")
    assert await answered(tool) == {"decision": "approve", "arguments": {"text": "Dear Ada"}}
    await chosen(page, f"sessions/{question.id}/t1:who")
    await expect(pane).to_contain_text("Who pays?")
    await page.keyboard.press("a")
    await expect(pane.get_by_role("textbox").first).to_be_focused()
    await page.keyboard.type("Ada")
    await pane.get_by_role("button", name="Answer").press("Enter")
    await expect(page.locator(".inbox .outcome").first).to_contain_text("Answered: asking.")
    assert await answered(question) == "Ada"


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
async def test_on_a_phone_the_amount_is_on_the_button_and_in_reach(
    console: Console, scheme: Literal["light", "dark"]
) -> None:
    _, purchase_id, _ = await ask_for_books(console)
    key = f"purchases/{purchase_id}"
    page = await console.page("/approvals", KEYS["approver"], color_scheme=scheme, **PHONE)
    await expect(row_of(page, key)).to_be_visible()
    await expect(page.locator(".chosen")).to_be_hidden()
    assert await violations(page) == [], "list"
    await row_of(page, key).click()
    approve = page.get_by_role("button", name="Approve $25.00")
    await expect(approve).to_be_in_viewport(ratio=1)
    await expect(row_of(page, key)).to_be_hidden()
    await expect(page.locator(".in-short")).to_contain_text("Leaves")
    for button in await page.locator(".decide button").all():
        box = await button.bounding_box()
        assert box is not None
        assert min(box["height"], box["width"]) >= 44
    assert await violations(page) == [], "decision"
    wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
    await page.go_back()
    await expect(row_of(page, key)).to_be_visible()
    await row_of(page, key).click()
    await approve.tap()
    await expect(page.locator(".inbox .outcome").first).to_contain_text("Approved: $25.00")


async def test_the_list_says_when_there_is_more_and_when_there_is_nothing(console: Console) -> None:
    page = await console.page("/sessions", KEYS["approver"])
    answer: dict[str, Any] = {"approvals": [], "count": 0, "more": False}
    await page.route("**/approvals?*", lambda route: route.fulfill(json=answer))
    await page.get_by_role("link", name="Inbox").click()
    status = page.locator(".listing [role=status]")
    await expect(status).to_have_text("Nothing waits for a decision.")
    answer.update(count=250, more=True)
    await expect(status).to_have_text("At least 250 wait for a decision.")
    await page.unroute_all(behavior="wait")
