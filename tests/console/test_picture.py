"""The README's pictures are of this console: a test makes them, and finds those that are stale."""

import hashlib
import json
import os
import re
import struct
import zlib

import pytest
from playwright.async_api import ViewportSize, expect

from tests.console.people import Console, until
from tests.console.test_access import lead
from tests.console.test_streaming import IDLE, ready
from tests.support import ROOT
from waystation.agents.demo import WORDS

PICTURES = ROOT / "docs"
SIZES: dict[str, ViewportSize] = {
    "console.png": {"width": 1280, "height": 1400},
    "inspector.png": {"width": 1280, "height": 800},
    "inbox.png": {"width": 1280, "height": 800},
}
KEYWORD = b"waystation-console"
MAX_BYTES = 200_000
WANTED = "WAYSTATION_CONSOLE_PICTURE"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
DETAILS = {"buyer": {"email": "ada@example.com", "first_name": "Ada"}}


def digest_of_console() -> str:
    """Of everything that decides how the page looks."""
    digest = hashlib.sha256()
    for path in sorted(one for one in (ROOT / "console").rglob("*") if one.is_file()):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def with_note(png: bytes, note: str) -> bytes:
    """The picture with a text chunk behind its header."""
    body = b"tEXt" + KEYWORD + b"\0" + note.encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    header_end = len(SIGNATURE) + 25
    return png[:header_end] + chunk + png[header_end:]


def note_in(png: bytes) -> str | None:
    at = png.find(b"tEXt" + KEYWORD + b"\0")
    if at < 0:
        return None
    (length,) = struct.unpack(">I", png[at - 4 : at])
    return png[at + 4 + len(KEYWORD) + 1 : at + 4 + length].decode()


def lasting(words: str) -> str:
    """Words of the page without what differs each time: times, durations, ports, digests, ids."""
    words = re.sub(r"[\d:]+ [AP]M|[\d.]+ m?s\b", "…", words)
    words = re.sub(r"[A-Z][a-z]{2} \d+, \d{4},", "…", words)
    words = re.sub(r"\d+ (?:d|h|min|s)(?: \d+ (?:h|min|s))?\b", "…", words)
    words = re.sub(r"(?<=Decide within ).+|(?<=127\.0\.0\.1:)\d+", "…", words)
    words = re.sub(r"(?<=sha256:)[0-9a-f]+|(?<=cs_)[0-9a-f]+", "…", words)
    return " ".join(words.split())


async def test_the_pictures_are_of_this_console(console: Console) -> None:
    """They are taken each time: what is kept is stale when the files differ, or what the page says."""
    for name, (png, words) in (await take(console)).items():
        note = json.dumps({"files": digest_of_console(), "words": lasting(words)})
        if os.environ.get(WANTED):
            (PICTURES / name).write_bytes(with_note(png, note))
        picture = (PICTURES / name).read_bytes()
        kept = json.loads(note_in(picture) or "{}")
        assert kept == json.loads(note), f"{name} is stale; run this test with {WANTED}=1"
        assert len(picture) < MAX_BYTES
        assert struct.unpack(">II", picture[16:24]) == (SIZES[name]["width"], SIZES[name]["height"])


async def take(console: Console) -> dict[str, tuple[bytes, str]]:
    """The pictures by name, each with the words in it."""
    stack = console.stack
    session = await console.session(title="A gift for a sailor")
    names = (("client", "Ada"), ("operator", "Grace"))
    tokens = [await console.token(role, session.id, name) for role, name in names]
    approver = {"role": "approver", "sessions": [session.id], "subject": "test-approver", "name": "Ada"}
    tokens.append(str((await stack.call("service", "POST", "/tokens", approver)).json()["token"]))
    page = await console.page(
        f"/sessions/{session.id}",
        *tokens,
        viewport=SIZES["console.png"],
        color_scheme="light",
        locale="en-US",
    )
    await ready(page)
    body = {
        "text": "What keeps an answer whole when my connection breaks?",
        "data": {"tokens": len(WORDS), "rate": 60, "spawn": 2, "tool": "search", "think": 20, "usage": 1200},
    }
    headers = {"Authorization": f"Bearer {tokens[0]}"}
    await console.client.http.post(f"{stack.url}/sessions/{session.id}/messages", json=body, headers=headers)
    await expect(page.locator(".lane")).to_have_count(2)
    await until(page, IDLE)
    mandate = await stack.mandate()
    wanted = {
        "mandate_id": mandate,
        "seller": stack.sandbox.url("shop"),
        "currency": "usd",
        "items": [{"id": "ebook_tides", "quantity": 2}],
        "agent": {"id": "shopper"},
        "session_id": session.id,
        **DETAILS,
    }
    assert (await stack.call("service", "POST", "/purchases", {"request": wanted})).status_code == 201
    await expect(page.locator(".log .card .pill")).to_have_text("awaiting approval")
    await page.get_by_role("button", name="Timeline").click()
    await expect(page.locator("a.approval")).to_have_count(1)
    parts = [
        await page.locator(part).inner_text() for part in (".session-head", ".log", ".asks", ".composer")
    ]
    pictures = {"console.png": (await page.screenshot(animations="disabled"), "\n".join(parts))}
    await page.set_viewport_size(SIZES["inspector.png"])
    await page.get_by_role("button", name="Timeline").click()
    await page.get_by_role("button", name="Inspect", exact=True).click()
    await page.get_by_role("treeitem", name="t1 demo").click()
    await expect(page.get_by_role("region", name="The chosen part")).to_contain_text("$0.0024")
    shown = (".sum", ".virtual-rows", ".part-detail h3", ".part-detail .facts")
    words = "\n".join([await page.locator(f".inspector {part}").inner_text() for part in shown])
    pictures["inspector.png"] = (await page.screenshot(animations="disabled"), words)
    await lead(page, "/approvals")
    await page.set_viewport_size(SIZES["inbox.png"])
    approve = page.get_by_role("button", name=re.compile("^Approve"))
    await expect(approve).to_be_visible()
    # The list beside it counts the minutes.
    await expect(page.locator(".chosen .in-short")).to_contain_text("Leaves")
    words = await page.locator(".chosen").inner_text()
    pictures["inbox.png"] = (await page.screenshot(animations="disabled"), words)
    return pictures


def test_only_what_lasts_is_compared() -> None:
    one = "Ada 10:04:11 AM Tool search 12 ms 127.0.0.1:80 cs_a1 Digest sha256:ab12\nDecide within 23 h 59 min"
    other = "Ada 9:00:00 PM Tool search 1.2 s 127.0.0.1:8080 cs_b2 Digest sha256:ff\nDecide within 1 d 0 h"
    assert lasting(one) == lasting(other) != lasting(one.replace("Ada", "Bob"))


def test_a_note_is_found_again() -> None:
    png = SIGNATURE + b"\0\0\0\rIHDR" + b"\0" * 17 + b"rest"
    assert note_in(png) is None
    assert note_in(with_note(png, "abc")) == "abc"


@pytest.mark.parametrize("page", ["README.md", "docs/console.md"])
def test_the_pictures_are_shown(page: str) -> None:
    for name in SIZES:
        assert f"{name})" in (ROOT / page).read_text()
