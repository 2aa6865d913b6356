"""What tests share: free ports, waiting for a condition with a deadline. Servers are in tests/world."""

import asyncio
import inspect
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message

from waystation.dev.ports import free_ports
from waystation.errors import TryLater

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 30.0
"""After this long something will not happen any more, whatever else the machine has to do."""
START_SECONDS = 90.0
"""The same for servers: they import much before they answer, and several start at once."""
SHORTEST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 0.25
"""Between two looks at a condition."""
EXAMPLES_FACTOR = int(os.environ.get("WAYSTATION_EXAMPLES", "1"))
"""How many times the usual number of examples is tried where they are made up; 10 is for a night."""


def examples(usual: int) -> int:
    """How many made-up inputs a test tries that needs fewer or more than the profile's."""
    return usual * EXAMPLES_FACTOR


def free_port() -> int:
    return free_ports(1)[0]


async def goes_away_while_sending(
    app: ASGIApp, method: str, path: str, headers: Mapping[str, str] | None = None
) -> list[Message]:
    """Returns what an app sends to a client that is gone before its request has arrived whole."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "server": ("api.test", 80),
        "client": ("127.0.0.1", 1),
    }
    coming = [{"type": "http.request", "body": b"{", "more_body": True}]
    sent: list[Message] = []

    async def receive() -> Message:
        return coming.pop(0) if coming else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def eventually(
    condition: Callable[[], Any], *, within: float = PATIENCE_SECONDS, what: str = ""
) -> Any:
    """Waits until the condition holds and returns its value; fails after ``within`` seconds.

    Where it asks the API while a busy machine leaves Temporal no time, it is told to ask again, and does.
    """
    deadline = time.monotonic() + within
    pause = SHORTEST_PAUSE_SECONDS
    while True:
        value = condition()
        refused: TryLater | None = None
        if inspect.isawaitable(value):
            try:
                value = await value
            except TryLater as error:
                value, refused = None, error
            # It asks servers, which have more to do than answer: most of what they did was once this.
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        if value:
            return value
        if time.monotonic() > deadline:
            expected = what or inspect.getsource(condition).strip()
            raise AssertionError(f"not within {within} s: {expected}") from refused
        await asyncio.sleep(pause)


def wait_until(met: Callable[[], bool], what: str, deadline_seconds: float = PATIENCE_SECONDS) -> None:
    """Waits as ``eventually`` does, outside an event loop."""
    end = time.monotonic() + deadline_seconds
    while time.monotonic() < end:
        if met():
            return
        time.sleep(0.02)
    raise AssertionError(f"not within {deadline_seconds} s: {what}")


def environment(**values: Any) -> dict[str, str]:
    return {key: str(value) for key, value in values.items() if value is not None}


def anonymous(recorded: str) -> str:
    """Returns a recorded history without the names and paths of the machine on which it was recorded."""
    recorded = re.sub(r'"stackTrace": "(?:[^"\\]|\\.)*"', '"stackTrace": ""', recorded)
    return re.sub(r'"identity": "[^"]*"', '"identity": "worker"', recorded)
