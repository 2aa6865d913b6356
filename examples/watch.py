"""Starts a session (or attaches to it) and prints the answer as it arrives.

Run it alongside ``waystation dev --agent parrot:agent``:

    python watch.py hello "Polly wants a cracker"

Cut the connection, or stop it and start it again: it continues where it was.
"""

import asyncio
import os
import sys
from pathlib import Path

from waystation.client import Client
from waystation.dev.local import read_dev_environment
from waystation.models.events import Event
from waystation.plain_text import clean_lines


async def main(session_id: str, text: str) -> None:
    """Prints text as it arrives, until the turn has ended."""
    os.environ.update({**read_dev_environment(Path(".waystation")), **os.environ})
    async with Client() as client:
        session = await client.start("parrot", session_id=session_id)
        await session.load()
        sent = await session.send(text)
        shown = 0
        async for event in session.events():
            answer = [m for m in session.transcript if m.turn_id == sent.turn_id]
            if answer:
                print(clean_lines(answer[-1].text[shown:]), end="", flush=True)
                shown = len(answer[-1].text)
            if isinstance(event, Event) and event.turn_id == sent.turn_id and event.type in _ENDS:
                print(f"\n[{event.type}]")
                return


_ENDS = ("turn.completed", "turn.stopped", "turn.failed")

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
