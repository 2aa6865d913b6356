"""Approvers decide on exact carts, in one place and all places at once."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Locator, Page, Route, expect

from tests.cli.test_statements import CART, leaves
from tests.console.people import Console, until
from tests.end_to_end.talk import Talk
from waystation.models.trail import AuditTrail
from workflows.trail import verify

APPROVE = re.compile(r"^Approve \S*[$]\d+\.\d\d$")
"""The button that approves an amount."""
BUYER = {"email": "ada@example.com", "first_name": "Ada"}


async def ask_for_books(console: Console, **terms: Any) -> tuple[Talk, str, dict[str, Any]]:
    """A session in which the shopper wants two books, the purchase, and what an approver is asked."""
    stack = console.stack
    mandate = await stack.mandate(**terms)
    talk = await Talk.begin(console.client, "shopper")
    await talk.ask(
        "Two copies, please.",
        seller=stack.sandbox.url("shop"),
        mandate=mandate,
        search="tides",
        quantity=2,
        details={"buyer": BUYER},
    )
    asked = await talk.until("approval.requested")
    return talk, str(asked.data["purchase_id"]), dict(asked.data)


def row_of(page: Page, key: str) -> Locator:
    """What waits, in the inbox."""
    return page.locator(f'.inbox .listing a[href$="at={quote(key, safe="")}"]')


async def settled(page: Page, status: str) -> None:
    await expect(page.locator(".decision .head .pill")).to_have_text(status)


async def test_an_approval_in_one_browser_is_decided_in_the_other(console: Console, tmp_path: Path) -> None:
    talk, purchase_id, asked = await ask_for_books(console)
    one = await console.page("/approvals")
    other = await console.page(f"/purchases/{purchase_id}")
    watcher = await console.page(f"/sessions/{talk.session.id}")
    row = row_of(one, f"purchases/{purchase_id}")
    await expect(row).to_contain_text("25.00")
    await row.click()
    await one.get_by_text("Where it comes from").click()
    await one.get_by_role("link", name=purchase_id).click()
    for page in (one, other):
        await settled(page, "awaiting approval")
        cart = page.locator(".cart")
        await expect(cart.locator("tbody tr").first).to_contain_text("12.50")
        await expect(cart.locator("tbody tr").first.locator("td").nth(2)).to_have_text("2")
        await expect(cart.locator(".total .amount")).to_contain_text("25.00")
        for stated in asked["cart"]["totals"]:
            told = cart.locator("tfoot") if stated["amount"] else page.locator("details .facts").first
            await expect(told).to_contain_text(stated["label"])
        await expect(page.locator(".facts").first).to_contain_text(console.stack.sandbox.url("shop"))
        await expect(page.locator(".digest")).to_contain_text(asked["digest"])
        await expect(page.locator(".countdown")).to_contain_text("h")
        await expect(page.locator(".mandate .left")).to_contain_text("975.00")
    card = watcher.locator(".log .card")
    await expect(card.locator(".total .amount")).to_contain_text("25.00")
    await one.get_by_role("button", name=APPROVE).click()
    for page in (other, one):
        await settled(page, "completed")
        await expect(page.locator(".outcome").first).to_contain_text("Approved by test-approver")
        await expect(page.get_by_role("button", name=APPROVE)).to_have_count(0)
    await expect(card.locator(".pill")).to_have_text("completed")
    await expect(watcher.locator(".asks")).to_be_hidden()
    trail = other.locator(".trail")
    await expect(trail).to_contain_text("Each entry has the hash of the one before.")
    await expect(trail).to_contain_text("approval.received")
    # The page scrolls, and not the document behind it, to where nothing is.
    assert await other.evaluate("document.documentElement.scrollHeight - innerHeight") <= 0
    async with other.expect_download() as download:
        await other.get_by_role("button", name="Download as JSON").click()
    saved = tmp_path / "audit.json"
    await (await download.value).save_as(saved)
    entries = AuditTrail.model_validate(json.loads(saved.read_text())).entries
    assert verify(entries)
    served = await console.stack.call("approver", "GET", f"/purchases/{purchase_id}/audit")
    assert saved.read_bytes() == served.content, "byte for byte: hashes are of what is written"


@pytest.mark.thorough
async def test_answers_that_are_only_counted_yet_are_shown_behind_the_trail(console: Console) -> None:
    _, purchase_id, _ = await ask_for_books(console)
    path = f"/purchases/{purchase_id}/audit"
    audit = (await console.stack.call("approver", "GET", path)).json()
    at = audit["entries"][-1]["time"]
    again = {"actor": "seller", "action": "checkout.read", "detail": {}, "count": 7, "first": at, "last": at}

    async def counted(route: Route) -> None:
        await route.fulfill(json={**audit, "repeated": [again]})

    page = await console.page("/sessions")
    await page.route(f"**{path}", counted)
    await page.goto(f"{console.stack.url}/#/purchases/{purchase_id}")
    await expect(page.locator(".trail li").last).to_contain_text("checkout.read seller: the same 7 times")


TERMS = {
    "method": "POST",
    "url": "https://api.example.com/report",
    "amount": 51,
    "currency": "usd",
    "payee": "profile_7",
    "realm": "reports",
    "rail": "mpp-stripe",
    "body_sha256": "b" * 64,
}
CARD = """
async (data) => {
  const { SessionModel } = await import('/console/model.js');
  const { drawCard } = await import('/console/views/card.js');
  const model = new SessionModel();
  const actor = { id: 'waystation', role: 'system' };
  model.apply({ seq: 1, time: new Date().toISOString(), type: 'approval.requested', actor, data });
  const element = document.createElement('article');
  drawCard(element, [...model.items.values()].find(one => one.kind === 'card'), { may: () => false });
  return element.textContent;
}
"""


def as_shown(path: str, value: object) -> str:
    """A value of the cart as the card says it: amounts in the currency's own unit."""
    is_money = path.endswith(("amount", ".total")) and isinstance(value, int)
    return f"{value / 100:.2f}" if is_money and isinstance(value, int) else str(value)


@pytest.mark.thorough
async def test_the_card_shows_all_that_an_approval_binds(console: Console) -> None:
    page = await console.page("/sessions")
    digest = "sha256:" + "0" * 64
    cart = CART.model_dump(mode="json")
    cart["lines"][0]["name"] += " \u202e"
    shown = await page.evaluate(CARD, {"purchase_id": "p", "digest": digest, "cart": cart})
    for path, value in leaves(CART):
        if path == ".currency" or path.endswith(".type"):  # as a sign, and by the words for it
            continue
        expected = as_shown(path, value).removeprefix("https://")
        assert expected in shown, path
    for expected in ("$30.03", "(total)", "shipping", digest):
        assert expected in shown, expected
    assert "\u202e" not in shown
    shown = await page.evaluate(CARD, {"payment_id": "p", "digest": digest, **TERMS})
    terms = [value for name, value in TERMS.items() if name not in ("amount", "currency")]
    for term in (*terms, "0.51", digest):
        assert str(term) in shown, term


@pytest.mark.thorough
async def test_a_rejection_in_the_session_is_told_to_everyone(console: Console) -> None:
    talk, purchase_id, _ = await ask_for_books(console)
    other = await console.page(f"/purchases/{purchase_id}")
    await settled(other, "awaiting approval")
    page = await console.page(f"/sessions/{talk.session.id}")
    await expect(page.locator(".asks")).to_contain_text("awaiting approval")
    card = page.locator(".log .card")
    await card.get_by_label("Reason for a rejection").fill("too dear")
    await card.get_by_role("button", name="Reject").click()
    await settled(other, "rejected")
    await expect(card.locator(".pill")).to_have_text("rejected")
    await expect(card).to_contain_text("too dear")
    view = (await console.stack.call("service", "GET", f"/purchases/{purchase_id}")).json()
    assert (view["status"], view["money_moved"]) == ("rejected", False)


async def test_a_stale_page_can_not_approve_another_cart(console: Console) -> None:
    """The digest that the person saw decides, whatever the cart has become."""
    _, purchase_id, asked = await ask_for_books(console)
    page = await console.page(f"/purchases/{purchase_id}")
    await settled(page, "awaiting approval")
    await page.route(
        "**/approve", lambda route: route.continue_(post_data=json.dumps({"digest": "sha256:" + "0" * 64}))
    )
    await page.get_by_role("button", name=APPROVE).click()
    await expect(page.get_by_role("alert").first).to_contain_text("changed")
    await expect(page.locator(".digest")).to_contain_text(asked["digest"])
    await settled(page, "awaiting approval")
    view = (await console.stack.call("service", "GET", f"/purchases/{purchase_id}")).json()
    assert view["approval"] is None


async def want_books(
    console: Console, approval_timeout_seconds: int, *, mandate: str | None = None, quantity: int = 2
) -> str:
    """A purchase that belongs to no session."""
    stack = console.stack
    wanted = {
        "mandate_id": mandate or await stack.mandate(),
        "seller": stack.sandbox.url("shop"),
        "currency": "usd",
        "items": [{"id": "ebook_tides", "quantity": quantity}],
        "agent": {"id": "shopper"},
        "approval_timeout_seconds": approval_timeout_seconds,
        "buyer": BUYER,
    }
    answer = await stack.call("service", "POST", "/purchases", {"request": wanted})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["purchase_id"])


@pytest.mark.thorough
async def test_the_time_to_decide_runs_by_the_server_and_out(console: Console) -> None:
    purchase_id = await want_books(console, approval_timeout_seconds=20)
    context = await console.context()
    # This device is an hour late.
    await context.clock.install(time=datetime.now(UTC) - timedelta(hours=1))
    page = await console.page(f"/purchases/{purchase_id}", context=context)
    await settled(page, "awaiting approval")
    countdown = page.locator(".countdown")
    await expect(countdown).to_have_class(re.compile(r"\bsoon\b"))
    await expect(countdown).to_have_text(re.compile(r"^\d+ s$"))
    first = int(str(await countdown.text_content()).split()[0])
    await until(page, "(first) => parseInt(document.querySelector('.countdown').textContent) < first", first)
    await expect(page.locator(".decision .head .pill")).to_have_text("expired", timeout=40_000)
    await expect(page.get_by_role("button", name=APPROVE)).to_have_count(0)


@pytest.mark.thorough
async def test_a_deadline_that_has_passed_says_so(console: Console) -> None:
    purchase_id = await want_books(console, approval_timeout_seconds=3600)
    context = await console.context()
    await context.clock.install()
    page = await console.page(f"/purchases/{purchase_id}", context=context)
    await settled(page, "awaiting approval")
    await context.set_offline(True)
    await page.clock.fast_forward(3_700_000)
    await expect(page.locator(".decision")).to_contain_text("The time to decide has run out.")
    # Nobody may take what is on the screen for what is true now.
    await expect(page.locator(".problem[role=status]")).to_contain_text("This may be out of date.")
    await context.set_offline(False)
    await page.clock.fast_forward(3_000)
    await expect(page.locator(".problem[role=status]")).to_be_hidden()


async def test_a_paid_request_is_approved(console: Console) -> None:
    stack = console.stack
    mandate = await stack.mandate(approval_threshold=0)
    talk = await Talk.begin(console.client, "shopper")
    url = f"{stack.sandbox.url('paid-api')}/v1/reports/{talk.session.id}"
    await talk.ask("Fetch it.", fetch=url, max_amount=50, mandate=mandate)
    asked = await talk.until("approval.requested")
    page = await console.page(f"/payments/{asked.data['payment_id']}")
    await settled(page, "awaiting approval")
    await expect(page.locator(".facts").first).to_contain_text("0.50")
    await page.get_by_role("button", name=APPROVE).click()
    await settled(page, "paid and answered")
    await expect(page.locator(".outcome").first).to_have_text("Approved by test-approver")


@pytest.mark.thorough
async def test_others_see_and_do_not_decide(console: Console) -> None:
    talk, purchase_id, _ = await ask_for_books(console)
    token = await console.token("client", talk.session.id, "Ada")
    page = await console.page(f"/purchases/{purchase_id}", token)
    await settled(page, "awaiting approval")
    await expect(page.locator(".decision")).to_contain_text("Only approvers can decide.")
    await expect(page.get_by_role("button", name=APPROVE)).to_have_count(0)
