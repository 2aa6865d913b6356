"""The README's program is run as it stands, against a real API."""

import asyncio
from typing import Any

import pytest

from tests.docs.support import blocks
from tests.support import ROOT, eventually
from tests.world.stack import KEYS, Stack


async def test_the_program_prints_the_session(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WAYSTATION_URL", stack.url)
    monkeypatch.setenv("WAYSTATION_API_KEY", KEYS["service"])
    program: dict[str, Any] = {"__name__": "readme"}
    exec(blocks((ROOT / "README.md").read_text(), "python")[1], program)
    running = asyncio.create_task(program["main"]())
    printed = ""

    def says_it() -> bool:
        nonlocal printed
        printed += capsys.readouterr().out
        return running.done() or "Polly wants a cracker" in printed

    await eventually(says_it)
    assert not running.done(), "it follows until it is ended"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
