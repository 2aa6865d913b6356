"""The Enter that ends a composition (Japanese, Chinese, Korean, …) chooses a word and sends nothing."""

import pytest
from playwright.async_api import expect

from tests.console.people import Console, until
from tests.console.test_streaming import ready

PRESS = """
(options) => {
  const field = document.getElementById('message');
  const event = new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true, ...options });
  field.dispatchEvent(event);
  return event.defaultPrevented;
}
"""


@pytest.mark.parametrize(
    "composing",
    [{"isComposing": True}, {"keyCode": 229}],
    ids=["while composing", "after it, as Safari reports it"],
)
async def test_enter_that_ends_a_composition_does_not_send(
    console: Console, composing: dict[str, object]
) -> None:
    session = await console.session()
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    field = page.locator("#message")
    await field.fill("東京")
    assert await page.evaluate(PRESS, composing) is False
    await expect(field).to_have_value("東京")
    assert await page.evaluate(PRESS, {"keyCode": 13}) is True
    await expect(field).to_have_value("")
    await until(page, "() => document.querySelectorAll('.from-user').length === 1")
