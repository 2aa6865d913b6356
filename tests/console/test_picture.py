"""The README's picture is of this console: a test makes it, and another finds it stale."""

import hashlib
import json
import os
import re
import struct
import zlib

import pytest
from playwright.async_api import expect

from tests.console.people import Console, until
from tests.console.test_streaming import IDLE, ready
from tests.support import ROOT
from waystation.agents.demo import WORDS

PICTURE = ROOT / "docs" / "console.png"
SIZE = {"width": 1280, "height": 1400}
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
    words = re.sub(r"(?<=Decide within ).+|(?<=127\.0\.0\.1:)\d+", "…", words)
    words = re.sub(r"(?<=sha256:)[0-9a-f]+|(?<=cs_)[0-9a-f]+", "…", words)
    return " ".join(words.split())


async def test_the_picture_is_of_this_console(console: Console) -> None:
    """It is taken each time: what is kept is stale when the files differ, or what the page says."""
    png, words = await take(console)
    note = json.dumps({"files": digest_of_console(), "words": lasting(words)})
    if os.environ.get(WANTED):
        PICTURE.write_bytes(with_note(png, note))
    picture = PICTURE.read_bytes()
    assert json.loads(note_in(picture) or "{}") == json.loads(note), f"stale; run this test with {WANTED}=1"
    assert len(picture) < MAX_BYTES
    assert struct.unpack(">II", picture[16:24]) == (SIZE["width"], SIZE["height"])


async def take(console: Console) -> tuple[bytes, str]:
    """The picture, and the words in it."""
    stack = console.stack
    session = await console.session(title="A gift for a sailor")
    names = (("client", "Ada"), ("operator", "Grace"))
    tokens = [await console.token(role, session.id, name) for role, name in names]
    approver = {"role": "approver", "sessions": [session.id], "subject": "test-approver", "name": "Ada"}
    tokens.append(str((await stack.call("service", "POST", "/tokens", approver)).json()["token"]))
    page = await console.page(
        f"/sessions/{session.id}", *tokens, viewport=SIZE, color_scheme="light", locale="en-US"
    )
    await ready(page)
    body = {
        "text": "What keeps an answer whole when my connection breaks?",
        "data": {"tokens": len(WORDS), "rate": 60, "spawn": 2, "tool": "search", "think": 20},
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
    return await page.screenshot(animations="disabled"), "\n".join(parts)


def test_only_what_lasts_is_compared() -> None:
    one = "Ada 10:04:11 AM Tool search 12 ms 127.0.0.1:80 cs_a1 Digest sha256:ab12\nDecide within 23 h 59 min"
    other = "Ada 9:00:00 PM Tool search 1.2 s 127.0.0.1:8080 cs_b2 Digest sha256:ff\nDecide within 1 d 0 h"
    assert lasting(one) == lasting(other) != lasting(one.replace("Ada", "Bob"))


def test_a_note_is_found_again() -> None:
    png = SIGNATURE + b"\0\0\0\rIHDR" + b"\0" * 17 + b"rest"
    assert note_in(png) is None
    assert note_in(with_note(png, "abc")) == "abc"


@pytest.mark.parametrize("page", ["README.md", "docs/console.md"])
def test_the_picture_is_shown(page: str) -> None:
    assert "console.png)" in (ROOT / page).read_text()
