"""An agent that carries out scripts, and ends its turns in every way."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Final

from tests.torture.record import Recorder
from tests.torture.scripts import Step, steps_of
from waystation.agent import Agent, RetryTurn, Turn
from waystation.agent.turn import SubAgentFailed

BLOCKED_SECONDS: Final = 5.0
"""Longer than the heartbeat timeout of the run's sessions."""
HANGING_SECONDS: Final = 60.0
"""Longer than the turn timeout."""

agent = Agent("wild")
_name = os.environ.get("TORTURE_NAME", "wild")
_record = Recorder(Path(os.environ["TORTURE_RECORD"]))
_late: set[asyncio.Task[None]] = set()


class Performance:
    """One attempt of a turn, as its script has it. ``said`` is what each of its messages holds so far."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.said: list[str] = []

    def note(self, operation: str, **what: object) -> None:
        turn = self.turn
        _record.note(_name, operation, session=turn.session_id, turn=turn.id, attempt=turn.attempt, **what)

    async def run(self) -> object:
        self.note("turn", message=self.turn.message_id)
        try:
            result: object = None
            for kind, *arguments in steps_of(self.turn.text):
                result = await getattr(self, f"do_{kind}")(*arguments)
        except BaseException as error:
            self.note("raised", error=type(error).__name__)
            raise
        self.note("returned")
        return result

    async def _write(self, text: str) -> None:
        await self.turn.write(text)
        self.said.append(text)

    async def do_write(self, texts: list[str], pause_ms: int) -> None:
        for text in texts:
            await self._write(text)
            await asyncio.sleep(pause_ms / 1_000)

    async def do_message(self, kind: str, texts: list[str]) -> None:
        async with self.turn.message(kind=kind) as message:
            for text in texts:
                await message.write(text)
                self.said.append(text)

    async def do_tool(self, name: str, result: str, pause_ms: int) -> None:
        async with self.turn.tool(name, {"of": self.turn.id}) as call:
            await asyncio.sleep(pause_ms / 1_000)
            call.result = result

    async def do_broken_tool(self) -> None:
        try:
            async with self.turn.tool("broken"):
                raise ValueError("broken")
        except ValueError:
            await self._write("It broke. ")

    async def do_emit(self, name: str, data: dict[str, object]) -> None:
        await self.turn.emit(name, data)  # type: ignore[arg-type]

    async def do_flush(self) -> None:
        said = list(self.said)
        await self.turn.flush()
        self.note("flushed", said=said)

    async def do_parallel(self, texts: list[list[str]]) -> None:
        async with asyncio.TaskGroup() as group:
            for some in texts:
                group.create_task(self.do_write(some, 3))
            group.create_task(self.do_tool("beside", "done", 5))

    async def do_steers(self, patience_ms: int) -> None:
        await asyncio.sleep(patience_ms / 1_000)
        for steer in await self.turn.take_steers():
            self.note("steered", steer=steer.id)
            await self._write(f"(steered by {steer.actor.id}) ")

    async def do_spawn(self, name: str, script: str) -> None:
        sub_agent = await self.turn.spawn(name, script)
        self.note("spawned", sub_agent=sub_agent.turn_id)
        await self._write("I have asked. ")
        try:
            await asyncio.wait_for(sub_agent.result(), 8)
        except (SubAgentFailed, TimeoutError) as error:
            await self._write(f"No answer ({type(error).__name__}). ")

    async def do_slow(self, pause_ms: int) -> None:
        await asyncio.sleep(pause_ms / 1_000)

    async def do_timeout(self) -> None:
        try:
            async with asyncio.timeout(0.05), self.turn.tool("slow"):
                await asyncio.Event().wait()
        except TimeoutError:
            await self._write("Too slow. ")

    async def do_late(self) -> None:
        async def write_after_the_end() -> None:
            await asyncio.sleep(1.5)
            await self.turn.write("after the end")

        task = asyncio.create_task(write_after_the_end())
        _late.add(task)
        task.add_done_callback(_late.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def do_end(self, how: str) -> object:
        match how:
            case "return":
                return {"said": len(self.said)}
            case "raise":
                raise ValueError("as the script has it")
            case "exit":
                sys.exit(3)
            case "interrupt":
                raise KeyboardInterrupt
            case "retry" if self.turn.attempt == 1:
                raise RetryTurn("once more")
            case "odd_result":
                return {"no JSON": object()}
            case "hang":
                await asyncio.sleep(HANGING_SECONDS)
            case "block" if self.turn.attempt == 1:
                # What never awaits: neither heartbeats nor anybody else's turn goes on.
                time.sleep(BLOCKED_SECONDS)  # noqa: ASYNC251
        return None


@agent.turn
async def perform(turn: Turn) -> object:
    return await Performance(turn).run()


__all__ = ["Step", "agent"]
