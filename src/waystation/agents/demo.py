"""A deterministic agent: no model, no key, the same words every time.

The message tells it what to do, as words of the form ``name=value``, or the data sent with it, as ``{"name":
value}``:

    tokens=200      how many words to stream (default 60)
    rate=50         words per second (default 25; 0 is as fast as possible)
    tool=search     call a tool of this name first
    delete=a.txt    ask a person before it "deletes" this first
    spawn=2         start this many researchers and wait for them
    crash=30        kill its own process after this many words, on the first attempt only
    fail=30         raise an error after this many words
    retry=30        ask for another attempt after this many words, on the first one only
    retries=2       on this many first attempts
    messages=3      this many messages instead of one
    think=10        this many words of reasoning first
    usage=900       report that this many tokens of a model were read, and a tenth written
    quote=operator  first repeat the last message of someone with this role

Steers are taken between words and mentioned in the answer.
"""

import asyncio
import os
import signal
import time
from itertools import cycle, islice

from pydantic import JsonValue

from waystation.agent import (
    Agent,
    ApprovalRejected,
    ApprovalTerms,
    RetryTurn,
    SuggestionRequest,
    Turn,
)
from waystation.client.transcript import Message
from waystation.whole_numbers import whole_number

TEXT = (
    "A durable session keeps what is said while networks come and go. Each word has its place, so a "
    "client that returns finds the text as it is, neither cut nor doubled. Whoever watches sees the same, "
    "on every screen, and whoever speaks is heard once."
)
WORDS = TEXT.split()
MICROS_PER_TOKEN = 2

agent = Agent("demo", starters=["tokens=100", "tool=search tokens=30", "delete=notes.txt"])
researcher = Agent("researcher")


class Script:
    """What a message asks the agent to do."""

    def __init__(self, turn: Turn) -> None:
        pairs = (word.partition("=") for word in turn.text.split())
        self._values = {name: value for name, equals, value in pairs if equals}
        self._values |= {name: str(value) for name, value in turn.data.items()}

    def number(self, name: str, default: int = 0) -> int:
        value = whole_number(self._values.get(name, ""))
        return default if value is None else value

    def text(self, name: str) -> str | None:
        return self._values.get(name)


class Pace:
    """Waits so that words come at a steady rate, however long each takes to write."""

    def __init__(self, rate_per_second: int) -> None:
        self._interval = 1 / rate_per_second if rate_per_second else 0.0
        self._next = time.monotonic()

    async def wait(self) -> None:
        self._next += self._interval
        await asyncio.sleep(max(self._next - time.monotonic(), 0))


@agent.turn
async def answer(turn: Turn) -> JsonValue:
    """Does what the message says; see the module's documentation."""
    script = Script(turn)
    pace = Pace(script.number("rate", 25))
    if thoughts := script.number("think"):
        async with turn.message(kind="reasoning") as message:
            for word in islice(cycle(WORDS), thoughts):
                await pace.wait()
                await message.write(word + " ")
    if name := script.text("tool"):
        async with turn.tool(name, {"query": turn.text}) as call:
            await pace.wait()
            call.result = {"found": len(turn.text.split())}
    if tokens := script.number("usage"):
        await turn.report_usage(
            requests=1,
            input_tokens=tokens,
            output_tokens=tokens // 10,
            cost_micros={"USD": tokens * MICROS_PER_TOKEN},
            model="demo",
        )
    if path := script.text("delete"):
        await _delete(turn, path)
    if role := script.text("quote"):
        await turn.write(f"I heard: “{_last_said(turn, role)}” ")
    found = await _spawn(turn, script)
    if found:
        await turn.write(f"My researchers report: {'; '.join(found)}. ")
    done = len([message for message in turn.written if message.kind == "message"])
    for number in range(done, script.number("messages", 1)):
        if number:
            await turn.end_message()
        await _stream(turn, script, pace)
    return {"words": script.number("tokens", 60), "attempt": turn.attempt}


@agent.suggestion
async def suggest(asked: SuggestionRequest) -> str:
    """Repeats what the operator wants, or the last thing that a person has said."""
    said = [message.text for message in asked.conversation if isinstance(message, Message)]
    return f"Thank you. About “{asked.text or (said[-1] if said else 'nothing')}”: it is being looked into."


async def _delete(turn: Turn, path: str) -> None:
    terms = ApprovalTerms(prompt=f"May I delete {path}?", key="delete")
    try:
        async with turn.tool("delete", {"path": path}, approval=terms) as call:
            call.result = "deleted"
        await turn.write(f"I have deleted {path}. ")
    except ApprovalRejected as rejected:
        await turn.write(f"I keep {path}: {rejected.reason or 'as you wish'}. ")


def _last_said(turn: Turn, role: str) -> str:
    said = [message.text for message in turn.conversation if message.actor.role == role]
    return said[-1] if said else "nothing"


async def _spawn(turn: Turn, script: Script) -> list[str]:
    rate = script.number("rate", 25)
    spawned = [
        await turn.spawn("researcher", f"question={number} rate={rate}", key=f"researcher-{number}")
        for number in range(1, script.number("spawn") + 1)
    ]
    return [str(await sub_agent.result()) for sub_agent in spawned]


async def _stream(turn: Turn, script: Script, pace: Pace) -> None:
    for count, word in enumerate(islice(cycle(WORDS), script.number("tokens", 60)), 1):
        await pace.wait()
        await turn.write(word + " ")
        for steer in await turn.take_steers():
            await turn.write(f"[steered: {steer.text}] ")
        if count == script.number("fail"):
            raise RuntimeError("failed as told")
        if turn.attempt <= script.number("retries", 1) and count == script.number("retry"):
            raise RetryTurn("told to try again")
        if turn.attempt == 1 and count == script.number("crash"):
            os.kill(os.getpid(), signal.SIGKILL)


@researcher.turn
async def research(turn: Turn) -> JsonValue:
    """Writes a short finding and reports it."""
    script = Script(turn)
    pace = Pace(script.number("rate", 25))
    number = script.number("question", 1)
    for word in f"Looking into question {number}. It has an answer.".split():
        await pace.wait()
        await turn.write(word + " ")
    return f"question {number} has an answer"
