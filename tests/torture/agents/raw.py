"""An agent as somebody would write it in another language, from docs/ingest.md: no SDK of ours.

Of Waystation it uses the way to Temporal alone, for the encryption of payloads. It carries out the same
scripts as ``wild``, so far as they concern writing, and sends things twice, and a few that must be refused.
"""

import asyncio
import itertools
import json
import os
import random
import signal
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import websockets
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_socket

from tests.torture.record import Recorder
from tests.torture.scripts import steps_of
from waystation.settings import read_settings
from waystation.temporal.connect import connect
from waystation.terminal import say

NAME: Final = "raw"
FLUSH_SECONDS: Final = 30.0
LONGEST_PAUSE_SECONDS: Final = 2.0
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
_process = os.environ.get("TORTURE_NAME", "raw")
_record = Recorder(Path(os.environ["TORTURE_RECORD"]))


class Stopped(Exception):
    """Somebody has stopped the turn, or it is over for this attempt."""


class Attempt:
    """One attempt of a turn: what it has written, and how far that is settled."""

    def __init__(self, given: dict[str, Any], socket: "Socket") -> None:
        self.given, self._socket = given, socket
        self.writer = f"{given['turn_id']}.{given['attempt']}"
        self.address = (given["session_id"], self.writer)
        self.kept: list[dict[str, Any]] = []
        self.settled = asyncio.Condition()
        self.acknowledged = 0
        self.refused: list[dict[str, Any]] = []
        self.stopped = asyncio.Event()
        self.steers: dict[str, dict[str, Any]] = {}
        self.open = False
        """Whether the writer was opened on this connection, and what was kept has been sent."""
        self._numbers = itertools.count(1)
        self._messages = itertools.count(1)
        self.written = 0
        self.said: dict[str, str] = {}
        """The text of each message that was completed."""

    @property
    def opening(self) -> dict[str, Any]:
        given = self.given
        return {
            "op": "open",
            "session_id": given["session_id"],
            "writer": self.wire_name,
            "actor": {"id": NAME, "role": "agent"},
            "turn_id": given["turn_id"],
            "attempt": given["attempt"],
            "after": given["after"],
        }

    @property
    def wire_name(self) -> str:
        """Unique on the connection, on which turns of several sessions write."""
        return f"{self.given['session_id']}/{self.writer}"

    async def write(self, *items: dict[str, Any], flush: bool = False) -> None:
        if self.stopped.is_set():
            raise Stopped
        numbered = [{"n": next(self._numbers), **item} for item in items]
        self.kept += numbered
        if numbered:
            self.written = numbered[-1]["n"]
        if self.open:  # else it is kept, and goes out in its order
            await self._socket.send(
                {"op": "write", "writer": self.wire_name, "items": numbered, "flush": flush}
            )

    async def flush(self) -> None:
        """Waits until everything written is recorded or refused."""
        if self.stopped.is_set():
            raise Stopped
        if self.open:
            await self._socket.send({"op": "write", "writer": self.wire_name, "items": [], "flush": True})
        async with self.settled, asyncio.timeout(FLUSH_SECONDS):
            await self.settled.wait_for(lambda: not self.kept or self.stopped.is_set())
        if self.stopped.is_set():
            raise Stopped

    async def hear(self, frame: dict[str, Any]) -> None:
        match frame["op"]:
            case "opened":
                self.open = True
                await self._socket.send(
                    {"op": "write", "writer": self.wire_name, "items": self.kept, "flush": True}
                )
            case "ack":
                self.acknowledged = max(self.acknowledged, frame["n"])
                self.kept = [item for item in self.kept if item["n"] > frame["n"]]
            case "refused":
                self.refused.append(frame)
                first, last = frame["first"], frame["last"]
                self.kept = [item for item in self.kept if not first <= item["n"] <= last]
            case "stop" | "fenced":
                self.stopped.set()
            case "steer":
                self.steers[frame["steer_id"]] = frame
            case "problem" if frame.get("retry"):
                await asyncio.sleep(0.2)
                await self._socket.open(self)
        async with self.settled:
            self.settled.notify_all()

    # What scripts ask for

    async def perform(self) -> None:
        chance = random.Random(self.given["text"])
        for kind, *arguments in steps_of(self.given["text"]):
            match kind:
                case "write":
                    await self.say(arguments[0], pause_ms=arguments[1], chance=chance)
                case "message":
                    await self.say(arguments[1], kind=arguments[0])
                case "tool":
                    await self.call(*arguments)
                case "emit":
                    await self.write({"type": f"data.{arguments[0]}", "data": arguments[1]})
                case "flush":
                    await self.flush()
                case "steers":
                    await self.take_steers(arguments[0])
                case "timeout":
                    await self.write(
                        {"type": "tool.returned", "data": {"call_id": "never", "name": "never called"}}
                    )
                case "parallel":
                    await asyncio.gather(*(self.say(texts) for texts in arguments[0]))
                case "slow":
                    await asyncio.sleep(arguments[0] / 1_000)
                case "end" if arguments[0] == "hang":
                    await asyncio.sleep(60)
                case "end" if arguments[0] == "raise":
                    raise ApplicationError("as the script has it", type="AgentFailed", non_retryable=True)
        await self.flush()

    async def say(
        self,
        texts: list[str],
        *,
        pause_ms: int = 0,
        kind: str | None = None,
        chance: random.Random | None = None,
    ) -> None:
        message = f"{self.writer}-{next(self._messages)}"
        await self.write(
            {"type": "message.started", "message_id": message, "data": {"kind": kind} if kind else {}}
        )
        offset = 0
        for text in texts:
            item = {
                "type": "message.delta",
                "message_id": message,
                "data": {"offset": offset, "text": text},
            }
            await self.write(item)
            if chance and self.open and chance.random() < 0.1:  # a repeat, as after a lost connection
                await self._socket.send({"op": "write", "writer": self.wire_name, "items": self.kept})
            if chance and chance.random() < 0.05:  # text beyond what there is: must be refused
                await self.write({**item, "data": {"offset": offset + 10_000, "text": "gap"}})
            offset += len(text)
            await asyncio.sleep(pause_ms / 1_000)
        await self.write({"type": "message.completed", "message_id": message, "data": {}})
        self.said[message] = "".join(texts)

    async def call(self, name: str, result: str, pause_ms: int) -> None:
        call = {"call_id": f"{self.writer}-{next(self._messages)}", "name": name}
        await self.write({"type": "tool.called", "data": {**call, "arguments": None}})
        await asyncio.sleep(pause_ms / 1_000)
        await self.write({"type": "tool.returned", "data": {**call, "result": result}})

    async def take_steers(self, patience_ms: int) -> None:
        await asyncio.sleep(patience_ms / 1_000)
        for steer_id in list(self.steers):
            await self.write({"type": "steer.consumed", "data": {"steer_id": steer_id}})
            del self.steers[steer_id]


class Socket:
    """The one connection of this process, made again whenever it is lost."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url.replace("http", "ws", 1) + "/ingest"
        self._headers = {"Authorization": f"Bearer {key}"}
        self._connection: ClientConnection | None = None
        self._attempts: dict[str, Attempt] = {}

    async def run(self) -> None:
        pause = 0.1
        while True:
            with suppress(OSError, TimeoutError, websockets.WebSocketException):
                async with connect_socket(
                    self._url, additional_headers=self._headers, max_size=MAX_FRAME_BYTES, open_timeout=5
                ) as connection:
                    self._connection = connection
                    for attempt in list(self._attempts.values()):
                        await self.open(attempt)
                    pause = 0.1
                    async for text in connection:
                        for frame in json.loads(text):
                            if attempt := self._attempts.get(frame.get("writer")):
                                await attempt.hear(frame)
            self._connection = None
            for attempt in self._attempts.values():
                attempt.open = False
            await asyncio.sleep(pause * random.uniform(1, 1.3))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def open(self, attempt: Attempt) -> None:
        """Opens its writer; once it is, what was not settled is sent again."""
        self._attempts[attempt.wire_name] = attempt
        attempt.open = False
        await self.send(attempt.opening)

    async def close(self, attempt: Attempt) -> None:
        self._attempts.pop(attempt.wire_name, None)
        await self.send({"op": "close", "writer": attempt.wire_name})

    async def send(self, frame: dict[str, Any]) -> None:
        """Sends a frame; without a connection it is lost, and what it wrote is sent again by ``open``."""
        if self._connection is not None:
            with suppress(websockets.ConnectionClosed):
                await self._connection.send(json.dumps(frame))


class Turns:
    """The activity ``run_turn``."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    @activity.defn(name="run_turn")
    async def run_turn(self, given: dict[str, Any]) -> dict[str, Any]:
        attempt = Attempt(given, self._socket)
        about = {"session": given["session_id"], "turn": given["turn_id"], "attempt": given["attempt"]}
        _record.note(_process, "turn", message=given.get("message_id"), **about)
        await self._socket.open(attempt)
        performing = asyncio.create_task(attempt.perform())
        stopped = asyncio.create_task(attempt.stopped.wait())
        beating = asyncio.create_task(_beat())
        ending = asyncio.create_task(activity.wait_for_worker_shutdown())
        try:
            await asyncio.wait([performing, stopped, ending], return_when=asyncio.FIRST_COMPLETED)
            if ending.done() and not performing.done() and not stopped.done():
                raise ApplicationError("The process is told to end.", type="WorkerShutdown")
            if not performing.done():
                performing.cancel()
                return {"outcome": "stopped"}
            with suppress(Stopped):
                performing.result()
                _record.note(
                    _process,
                    "raw_done",
                    acknowledged=attempt.acknowledged,
                    refused=attempt.refused,
                    written=attempt.written,
                    said=attempt.said,
                    **about,
                )
                return {"outcome": "completed"}
            return {"outcome": "stopped"}
        finally:
            for task in (performing, stopped, beating, ending):
                task.cancel()
            await asyncio.gather(performing, stopped, beating, ending, return_exceptions=True)
            await self._socket.close(attempt)


async def _beat() -> None:
    timeout = activity.info().heartbeat_timeout
    while True:
        activity.heartbeat()
        await asyncio.sleep(timeout.total_seconds() / 4 if timeout else 1)


async def main() -> None:
    settings = read_settings()
    assert settings.api_key is not None, "the run gives it a key"
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with AsyncExitStack() as resources:
        temporal = await connect(settings, resources)
        socket = Socket(settings.url, settings.api_key.get_secret_value())
        running = asyncio.create_task(socket.run())
        async with Worker(
            temporal,
            task_queue=f"waystation-agent-{NAME}",
            activities=[Turns(socket).run_turn],
            graceful_shutdown_timeout=timedelta(seconds=5),
        ):
            say(f"Running agents: {NAME}")
            await stop.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
