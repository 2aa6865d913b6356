"""Money: a mandate is granted in words, seen over time, and revoked by whoever knows what is held."""

import csv
import io
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.async_api import Page, expect

from tests.console.people import Console
from tests.console.test_access import violations
from tests.console.test_money import want_books
from tests.support import eventually
from tests.world.stack import KEYS

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SENTENCE = """
async (terms) => (await import('/console/mandate-terms.js')).inOneSentence(terms)
"""
TO_CSV = """
async (rows) => (await import('/console/csv.js')).csv(['name', 'amount'], rows)
"""
AMOUNT = """
async ([written, currency]) => {
  const { readAmount } = await import('/console/mandate-terms.js');
  try { return readAmount(written, currency); } catch (error) { return error.message; }
}
"""


async def paid(console: Console, mandate: str, *, quantity: int = 2) -> str:
    """A purchase from the mandate, approved and completed."""
    purchase_id = await want_books(console, 3600, mandate=mandate, quantity=quantity)
    stack, path = console.stack, f"/purchases/{purchase_id}"

    async def view(status: str) -> dict[str, Any] | None:
        found: dict[str, Any] = (await stack.call("approver", "GET", path)).json()
        return found if found["status"] == status else None

    waiting: dict[str, Any] = await eventually(lambda: view("awaiting_approval"))
    await stack.call("approver", "POST", f"{path}/approve", {"digest": waiting["digest"]})
    await eventually(lambda: view("completed"))
    return purchase_id


async def fits(page: Page) -> None:
    assert await violations(page) == []
    wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0


async def test_a_mandate_is_granted_with_a_form_that_says_what_it_grants(console: Console) -> None:
    page = await console.page("/mandates", KEYS["approver"])
    await page.get_by_role("button", name="Grant a mandate").click()
    form = page.get_by_role("form", name="Grant a mandate")
    await expect(form.get_by_label("For the agent")).to_be_focused()
    await expect(form.get_by_label("Granted by")).to_have_value("test-approver")
    year = datetime.now(UTC).year + 1
    for label, value in {
        "For the agent": "shopper",
        "At most, in all": "500.001",
        "At most, a payment": "50",
        "Ask a person for each payment over": "20",
        "Who is asked": "grace",
        "Until the end of": f"{year}-03-01",
        "Sellers": "tides.example\nhttps://books.example",
        "Paid with": "pm_card_visa",
    }.items():
        await form.get_by_label(label).fill(value)
    # Those side by side are in line, whatever is said of them.
    for names in (
        ("cap-currency", "per_payment_cap", "approval_threshold"),
        ("approvers", "valid_until", "sellers"),
    ):
        boxes = [await form.locator(f"#term-{name}").bounding_box() for name in names]
        assert len({box["y"] for box in boxes if box}) == 1
    wrong = form.locator("#term-cap-amount-error")
    await expect(wrong).to_have_text("Write an amount like 500.00.")
    await expect(form.get_by_label("At most, in all")).to_have_attribute("aria-invalid", "true")
    await form.get_by_role("button", name="Grant this mandate").click()
    await expect(form.get_by_label("At most, in all")).to_be_focused()
    await form.get_by_label("At most, in all").fill("40.5")
    await expect(wrong).to_be_hidden()
    await form.get_by_text("More limits").click()
    await form.get_by_label("Sent to these countries only").fill("us, CA")
    told = (
        f"test-approver lets shopper spend up to $40.50 until March 1, {year}, at most $50.00 a payment, at "
        "tides.example or books.example, sent to US or CA only, asking grace for each over $20.00."
    )
    await expect(form.locator(".sentence")).to_have_text(told)
    await fits(page)
    # What only the server knows to be wrong is said at its field.
    await form.get_by_role("button", name="Grant this mandate").click()
    each = form.locator("#term-per_payment_cap-error")
    await expect(each).to_contain_text("per_payment_cap is larger than the cap")
    await expect(form.get_by_label("At most, a payment")).to_be_focused()
    await form.get_by_label("At most, a payment").fill("5")
    await form.get_by_label("Ask a person for each payment over").fill("2")
    await form.get_by_label("Paid with").fill("4242424242424242")
    await form.get_by_role("button", name="Grant this mandate").click()
    await expect(form.locator("#term-payment_methods-error")).to_contain_text("pattern")
    await form.get_by_label("Paid with").fill("pm_card_visa")
    await form.get_by_role("button", name="Grant this mandate").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Mandate for shopper")
    await expect(page.locator(".sentence")).to_contain_text("at most $5.00 a payment")
    mandate = page.url.rsplit("/", 1)[-1]
    terms = (await console.stack.call("approver", "GET", f"/mandates/{mandate}")).json()["terms"]
    assert terms["cap"] == {"amount": 4050, "currency": "usd"}
    assert (terms["per_payment_cap"], terms["approval_threshold"]) == (500, 200)
    assert terms["sellers"] == ["https://tides.example", "https://books.example"]
    assert terms["constraints"] == [{"type": "ship_to_countries", "countries": ["US", "CA"]}]
    assert datetime.fromisoformat(terms["valid_until"]) > datetime(year, 3, 1, tzinfo=UTC)


@pytest.mark.thorough
async def test_what_a_mandate_paid_for_over_time_and_as_a_table(console: Console, tmp_path: Path) -> None:
    stack = console.stack
    mandate = await stack.mandate(cap={"amount": 20_000, "currency": "usd"})
    first, second = await paid(console, mandate), await paid(console, mandate, quantity=1)
    waits = await want_books(console, 3600, mandate=mandate, quantity=3)
    other = await stack.mandate()
    page = await console.page(f"/mandates/{mandate}", KEYS["approver"])
    rows = page.locator('[aria-label="What it paid for"] tbody tr')
    await expect(rows).to_have_count(3)
    for index, (purchase_id, words, amount) in enumerate(
        [(waits, "3 × The Book of Tides", "$37.50"), (second, "1 × ", "$12.50"), (first, "2 × ", "$25.00")]
    ):
        await expect(rows.nth(index).locator(f'a[href="#/purchases/{purchase_id}"]')).to_contain_text(words)
        await expect(rows.nth(index).locator(".amount")).to_have_text(amount)
    await expect(rows.first).to_contain_text("held, awaiting approval")
    await expect(page.locator(".left")).to_have_text("$125.00 left of $200.00")
    chart = page.get_by_role(
        "img", name=re.compile(r"^Spent from .*: \$37\.50, at most \$37\.50 in one bar\.$")
    )
    await expect(chart.locator("rect")).to_have_count(1)
    await page.get_by_text("As a table").click()
    await expect(page.locator(".spending + details tfoot")).to_contain_text("$37.50")
    await fits(page)
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download as CSV").click()
    saved = tmp_path / "mandate.csv"
    await (await download.value).save_as(saved)
    table = list(csv.DictReader(io.StringIO(saved.read_text())))
    assert [one["id"] for one in table] == [waits, second, first]
    assert [(one["state"], one["kind"]) for one in table] == [
        ("held", "purchase"),
        *[("committed", "purchase")] * 2,
    ]
    assert [one["amount_minor_units"] for one in table] == ["3750", "1250", "2500"]
    assert [one["spent_minor_units"] for one in table] == ["0", "1250", "2500"]
    assert {one["currency"] for one in table} == {"usd"}
    # Revoking asks again, and says what becomes of what is held.
    await page.get_by_role("button", name="Revoke", exact=True).click()
    await expect(page.locator(".consequence")).to_contain_text("$37.50 is held for 1 payment")
    await page.get_by_role("button", name="Keep it").click()
    await expect(page.get_by_role("button", name="Revoke", exact=True)).to_be_focused()
    assert (await stack.call("approver", "GET", f"/mandates/{mandate}")).json()["status"] == "active"
    await page.get_by_role("button", name="Revoke", exact=True).click()
    await page.get_by_label("Why (optional)").fill("enough")
    await page.get_by_role("button", name="Revoke for good").click()
    await expect(page.locator(".mandate .pill")).to_have_text("revoked")
    await expect(page.get_by_role("button", name="Revoke", exact=True)).to_have_count(0)
    await expect(rows.first).to_contain_text("given back, refused")
    # An operator sees them all, grants none, and may revoke; a client sees nobody's.
    operator = await console.page("/mandates", KEYS["operator"])
    for one in (mandate, other):
        await expect(operator.get_by_label(f"Mandate {one}")).to_be_visible()
    await expect(operator.get_by_role("button", name="Grant a mandate")).to_have_count(0)
    await operator.goto(f"{stack.url}/#/mandates/{other}")
    await expect(operator.get_by_role("button", name="Revoke", exact=True)).to_be_visible()
    stranger = await console.page(f"/mandates/{mandate}", KEYS["client"])
    await expect(stranger.locator(".problem[role=status]")).to_contain_text("you may not see it")


@pytest.mark.thorough
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
async def test_money_on_a_phone(console: Console, scheme: Literal["light", "dark"]) -> None:
    mandate = await console.stack.mandate(sellers=["*"])
    await want_books(console, 3600, mandate=mandate)
    page = await console.page("/mandates", KEYS["approver"], color_scheme=scheme, **PHONE)
    await page.get_by_role("button", name="Grant a mandate").tap()
    await expect(page.locator(".grant")).to_be_visible()
    await fits(page)
    await page.get_by_role("button", name="Grant a mandate").tap()
    await page.get_by_label(f"Mandate {mandate}").get_by_role("link").tap()
    row = page.locator('[aria-label="What it paid for"] tbody tr')
    await expect(row).to_have_count(1)
    # When it was stands below what it was, in no column of its own.
    when = row.locator("td > time")
    await expect(when).to_contain_text(str(datetime.now(UTC).year))
    assert await when.evaluate("one => one.clientHeight") < 50, "until when it is held: two lines"
    assert await row.locator("td").first.is_hidden()
    table = "one => one.scrollWidth - one.clientWidth"
    assert await page.locator(".paid-for").evaluate(table) <= 0
    await page.get_by_role("button", name="Revoke", exact=True).tap()
    await fits(page)
    for button in await page.locator(".mandate-page button:visible").all():
        box = await button.bounding_box()
        assert box is not None
        assert min(box["height"], box["width"]) >= 44


async def test_sentences_amounts_and_cells(console: Console) -> None:
    page = await console.page("/sessions")
    terms: dict[str, Any] = {
        "owner": "Alice", "agent": "shopper", "cap": {"amount": 50_000, "currency": "usd"},
        "per_payment_cap": 5_000, "approval_threshold": 2_000, "valid_until": "2027-03-01T12:00:00Z",
        "sellers": ["https://tides.example"], "approvers": ["Grace"], "payment_methods": [],
        "constraints": [], "refunds_give_room": True,
    }  # fmt: skip
    begins = "Alice lets shopper spend up to $500.00 until March 1, 2027, at most $50.00 a payment, at "
    told = await page.evaluate(SENTENCE, terms)
    assert told == f"{begins}tides.example, asking Grace for each over $20.00."
    limits = [{"type": "max_payments", "count": 1}, {"type": "allowed_items", "item_ids": ["mug", "cup"]}]
    free = {"approval_threshold": 5_000, "sellers": ["*"], "constraints": limits, "refunds_give_room": False}
    told = await page.evaluate(SENTENCE, terms | free)
    rest = "any seller, at most 1 payment, only mug or cup, asking nobody, and not again what is refunded."
    assert told == f"{begins}{rest}"
    told = await page.evaluate(SENTENCE, terms | {"approval_threshold": 0, "approvers": []})
    assert told == f"{begins}tides.example, asking an approver for each."
    for written, currency, amount in (
        ("500", "usd", 50_000), ("0.07", "usd", 7), ("1.5", "usd", 150), ("500", "jpy", 500),
        ("1.5", "bhd", 1_500), ("9999999999999.99", "usd", 999_999_999_999_999),
        ("1000", "eip155:84532/erc20:0x0", 1_000),
    ):  # fmt: skip
        assert await page.evaluate(AMOUNT, [written, currency]) == amount, written
    for written in ("", "-5", "1e3", "5,00", "5.001", "0x5", "90071992547409.92"):
        assert isinstance(await page.evaluate(AMOUNT, [written, "usd"]), str), written
    evil = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\uff1d1", "|calc", '=HYPERLINK("x")']
    table = await page.evaluate(TO_CSV, [[one, -1] for one in [*evil, 'a "b", c\nd', "plain"]])
    [_, *cells] = list(csv.reader(io.StringIO(table, newline="")))
    assert [name for name, _ in cells] == [*(f"'{one}" for one in evil), 'a "b", c\nd', "plain"]
    assert {amount for _, amount in cells} == {"-1"}, "whole numbers stay numbers"
