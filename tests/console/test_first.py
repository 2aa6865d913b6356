from playwright.async_api import expect

from tests.console.people import Console


async def test_slice(console: Console, tmp_path) -> None:
    session = await console.session(title="Hello")
    page = await console.page(f"/sessions/{session.id}")
    await page.get_by_label("Message", exact=True).fill("tokens=30 think=5 tool=search spawn=2 rate=20")
    await page.keyboard.press("Enter")
    await page.wait_for_timeout(2500)
    await page.get_by_role("button", name="Timeline").click()
    await page.wait_for_timeout(1500)
    await page.screenshot(path="/tmp/shots/a.png")
    await expect(page.locator(".connection")).to_have_text("Live")
