"""Agents whose turns run steps, and note on disk what they have run: ``tests.agent.stepping:agent``.

There are several, so that each test has one whose process it can kill. What a turn does is in its data.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue

from tests.support import PATIENCE_SECONDS
from waystation.agent import Agent, RetryTurn, StepRefused, Turn, current_step
from waystation.errors import ConflictError

AGENTS = 9
STEPS = 20
RAN, RECORDED = "ran", "recorded"
_NOTING: set[asyncio.Task[None]] = set()


class Ledger:
    """What was done, in the order in which it was done: each line is on disk before the next one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, what: str, **more: JsonValue) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"what": what, **more}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def lines(self, what: str | None = None) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line for line in lines if what in (None, line["what"])]


class Receipt(BaseModel):
    number: int
    by_attempt: int


def make(name: str) -> Agent:
    agent = Agent(name)

    @agent.turn
    async def run(turn: Turn) -> JsonValue:
        todo: Callable[[Turn, Ledger], Any] = globals()[str(turn.data["do"])]
        result: JsonValue = await todo(turn, Ledger(Path(str(turn.data["ledger"]))))
        return result

    return agent


agent = make("stepping")
for number in range(AGENTS):
    globals()[f"agent_{number}"] = make(f"stepping-{number}")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(PATIENCE_SECONDS)


def meant_to_die(turn: Turn, ledger: Ledger, where: str) -> bool:
    """Whether the process is to be killed here; once for each place."""
    if where not in turn.data.get("kills", []) or ledger.lines(f"killed {where}"):  # type: ignore[operator]
        return False
    ledger.note(f"killed {where}")
    return True


async def twenty(turn: Turn, ledger: Ledger) -> list[JsonValue]:
    """Twenty steps: coroutines and threads by turns; dies after a step, or before it is recorded."""

    async def work(n: int) -> Receipt:
        return work_in_thread(n)

    def work_in_thread(n: int) -> Receipt:
        step = current_step()
        ledger.note(RAN, key=step.key, idempotency_key=step.idempotency_key, attempt=step.attempt)
        if meant_to_die(turn, ledger, f"in {n}"):
            die()
        return Receipt(number=n, by_attempt=turn.attempt)

    found: list[JsonValue] = []
    for n in range(1, STEPS + 1):
        receipt = await turn.step(f"step-{n}", work if n % 2 else work_in_thread, n, show=f"Step {n}")
        assert isinstance(receipt, Receipt)
        ledger.note(RECORDED, key=f"step-{n}")
        if meant_to_die(turn, ledger, f"after {n}"):
            die()
        found.append(receipt.number)
    return found


async def side_by_side(turn: Turn, ledger: Ledger) -> list[JsonValue]:
    """Fifty steps at once; the process dies when twenty of them have been recorded."""

    async def one(n: int) -> int:
        async def work() -> int:
            ledger.note(RAN, key=str(n))
            return n

        result = await turn.step(str(n), work)
        ledger.note(RECORDED, key=str(n))
        if len(ledger.lines(RECORDED)) == 20 and meant_to_die(turn, ledger, "midway"):
            die()
        return result

    return list(await asyncio.gather(*(one(n) for n in range(50))))


async def slow(turn: Turn, ledger: Ledger) -> JsonValue:
    """A step that ends when a file is there, another one in later attempts; a refusal is noted."""
    go = ledger.path.with_name("go-first" if turn.attempt == 1 else "go-later")

    def wait() -> int:
        ledger.note(RAN, attempt=turn.attempt)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not go.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return turn.attempt

    async def note_end() -> None:
        try:
            await turn.step("k", wait)
        except ConflictError as error:
            ledger.note("fenced", code=error.code, attempt=turn.attempt)

    noting = asyncio.create_task(note_end())
    _NOTING.add(noting)  # it outlives the attempt, as the thread does, which nobody can cut off
    return await turn.step("k", wait)


async def large(turn: Turn, ledger: Ledger) -> JsonValue:
    """Results that fill several pages, one of them stored outside the history, and one that is too large."""
    sizes = [100_000, 150_000, 6_000_000, 10, *[50_000] * 6]
    found = []
    for n, size in enumerate(sizes):

        def work(size: int) -> str:
            ledger.note(RAN)
            return str(turn.attempt) * size

        text = await turn.step(f"k{n}", work, size)
        found.append([text[:1], len(text)])
    if turn.attempt == 1:
        raise RetryTurn("again")
    try:
        await turn.step("too large", lambda: "x" * 9_000_000)
    except StepRefused as refused:
        return [found, str(refused)]  # type: ignore[list-item]
    return None


async def failing(turn: Turn, ledger: Ledger) -> JsonValue:
    """What a step raises is shown, and isn't recorded."""

    async def work() -> str:
        ledger.note(RAN)
        if len(ledger.lines(RAN)) == 1:
            raise ValueError("not yet")
        return "done"

    try:
        await turn.step("k", work, show="Working")
    except ValueError:
        return await turn.step("k", work, show="Working")
    return None


async def spawning(turn: Turn, ledger: Ledger) -> JsonValue:
    """A sub-agent in a step needs a key: which of several equal ones it is depends on what runs."""

    async def work() -> None:
        await turn.spawn("nobody", "hello")

    try:
        await turn.step("k", work)
    except StepRefused as refused:
        return str(refused)
    return None


async def retelling(turn: Turn, ledger: Ledger) -> JsonValue:
    """Says the same in every attempt, and one thing that differs; dies in the middle of a message."""
    await turn.write("The same every time.")
    await turn.end_message()
    async with turn.message(kind="reasoning") as thoughts:
        await thoughts.write("I think ")
        await thoughts.write(f"for the {turn.attempt}. time.")
    await asyncio.gather(*(look_up(turn, n) for n in range(4)))
    await turn.emit("progress", {"percent": 50})
    await turn.write("Half ")
    await turn.flush()
    if meant_to_die(turn, ledger, "midway"):
        die()
    await turn.write("and whole.")
    return turn.attempt


async def look_up(turn: Turn, n: int) -> None:
    async with turn.tool("look_up", {"n": n % 2}) as call:
        call.result = n


async def astray(turn: Turn, ledger: Ledger) -> JsonValue:
    """Comes back to its question only if it says the same as before: here it doesn't."""
    ledger.note(RAN, waited_for=list(turn.waited_for))
    await turn.write(f"This is attempt {turn.attempt}.")
    return await turn.ask("Go on?", key="go")


async def straight(turn: Turn, ledger: Ledger) -> JsonValue:
    """Comes back to its question, with a step and a tool around it, and says something new after it."""
    ledger.note(RAN, waited_for=list(turn.waited_for))
    number = await turn.step("number", lambda: turn.attempt, returns=int, show="Counting")
    await turn.write(f"This is number {number}.")
    async with turn.tool("order", {"number": number}) as call:
        call.result = await turn.ask("Go on?", key="go")
    await turn.write(f"Gone on in attempt {turn.attempt}.")
    return call.result
