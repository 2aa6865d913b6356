"""An agent without Waystation's library: docs/ingest.md with nothing but ``websockets`` and ``temporalio``.

Run: python raw_agent.py, with WAYSTATION_URL, WAYSTATION_API_KEY and TEMPORAL_ADDRESS, where payloads are not
encrypted. ``waystation conformance agent`` tries it with raw_script.py.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

Answer = Callable[["Turn"], Awaitable[Any]]
MAX_KEPT_CHARACTERS = 1_000_000


class Parked(Exception):
    """Nobody has answered in time: the attempt ends, and another begins once somebody has."""


class Connection:
    """The process's one socket. What its turns keep survives the loss of it."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.headers = f"ws{url.removeprefix('http')}/ingest", {"Authorization": f"Bearer {key}"}
        self.turns, self.socket = {}, None

    async def run(self) -> None:
        pause = 0.1
        while True:
            try:
                async with connect(self.url, additional_headers=self.headers, max_size=2**24) as self.socket:
                    pause = 0.1
                    for turn in list(self.turns.values()):
                        await turn.open()
                    async for message in self.socket:
                        for frame in json.loads(message):
                            if turn := self.turns.get(frame.get("writer")):
                                await turn.take(frame)
            except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError):
                pass
            self.socket = None
            for turn in self.turns.values():
                turn.opened = False
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311
            pause = min(pause * 2, 5)

    async def send(self, **frame: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            if self.socket:
                await self.socket.send(json.dumps(frame))


class Turn:
    """One attempt: a writer, which numbers its items and keeps each until it is acknowledged or refused."""

    def __init__(self, connection: Connection, given: dict[str, Any]) -> None:
        self.connection, self.given, self.task = connection, given, asyncio.current_task()
        self.writer = f"{given['session_id']}:{given['turn_id']}.{given['attempt']}"
        self.n, self.kept, self.opened, self.stopped, self.problem = 0, {}, False, False, ""
        self.steers, self.spawned, self.finished, self.spawning, self.answers = {}, {}, {}, {}, {}
        self.changed = asyncio.Event()

    async def open(self) -> None:
        own = {name: self.given[name] for name in ("session_id", "turn_id", "attempt", "after")}
        actor = {"id": self.given["agent"], "role": "agent"}
        await self.connection.send(op="open", writer=self.writer, actor=actor, **own)

    async def write(self, kind: str, message_id: str | None = None, /, **data: Any) -> None:
        while sum(len(str(item["data"])) for item in self.kept.values()) > MAX_KEPT_CHARACTERS:
            await self.send()
            await self.wait()
        self.n += 1
        self.kept[self.n] = {"n": self.n, "type": kind, "message_id": message_id, "data": data}
        await self.send(self.kept[self.n], flush=False)

    async def say(self, name: str, *parts: str, pause_seconds: float = 0.0) -> None:
        """Streams a message. Offsets count code points, as ``len`` does in Python."""
        message_id, offset = f"{self.given['turn_id']}-{self.given['attempt']}-{name}", 0
        for part in parts:
            await self.write("message.delta", message_id, offset=offset, text=part)
            offset += len(part)
            await asyncio.sleep(pause_seconds)
        await self.write("message.completed", message_id)

    async def flush(self) -> None:
        await self.send()
        while self.kept:
            await self.wait()

    async def spawn(self, agent: str, text: str, key: str) -> str:
        await self.flush()
        own = {"parent_turn_id": self.given["turn_id"], "attempt": self.given["attempt"]}
        spawn = {**own, "key": key, "agent": agent, "text": text}
        self.spawning = {"request": key, "session_id": self.given["session_id"], "spawn": spawn}
        await self.ask_again()
        while key not in self.spawned:
            await self.wait()
        self.spawning = {}
        return self.spawned[key]

    async def ask(self, question_id: str, **asked: Any) -> Any:
        """Asks people. A later attempt must ask the same under the same id."""
        await self.write("input.requested", question_id=question_id, **asked)
        await self.flush()
        try:
            async with asyncio.timeout(self.given.get("park_after_seconds")):
                while question_id not in self.answers:
                    await self.wait()
        except TimeoutError:
            raise Parked(question_id) from None
        answer = self.answers[question_id]
        if answer["outcome"] != "answered":
            raise ApplicationError(f"The question was {answer['outcome']}.")
        return answer["value"]

    async def send(self, *items: dict[str, Any], flush: bool = True) -> None:
        if self.opened:
            await self.connection.send(op="write", writer=self.writer, items=items, flush=flush)

    async def ask_again(self) -> None:
        if self.spawning and self.opened:
            await self.connection.send(op="spawn", writer=self.writer, **self.spawning)

    async def wait(self) -> None:
        self.changed.clear()
        await self.changed.wait()

    async def take(self, frame: dict[str, Any]) -> None:
        """Takes what the API says to this writer, and ignores what it doesn't know."""
        match frame["op"]:
            case "opened":
                self.opened = True
                await self.send(*self.kept.values())
                await self.ask_again()
            case "ack":
                self.kept = {n: item for n, item in self.kept.items() if n > frame["n"]}
            case "refused":
                refused = range(frame["first"], frame["last"] + 1)
                self.kept = {n: item for n, item in self.kept.items() if n not in refused}
            case "stop" | "fenced" if not self.stopped:
                self.stopped, self.opened = True, frame["op"] == "stop"
                self.task.cancel()
            case "steer":
                self.steers.setdefault(frame["steer_id"], frame["text"])
            case "answered":
                self.answers[frame["question_id"]] = frame
            case "spawned":
                self.spawned[frame["request"]] = frame["turn_id"]
            case "finished":
                self.finished[frame["turn_id"]] = frame["result"]
            case "problem" if frame["retry"]:
                asyncio.get_running_loop().call_later(0.5, lambda: asyncio.ensure_future(self.open()))
            case "problem":
                self.problem = frame["detail"]
                self.task.cancel()
        self.changed.set()


def activity_of(connection: Connection, answer: Answer) -> Any:
    """Returns the activity: ``answer``, and what is around each attempt."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(activity.info().heartbeat_timeout.total_seconds() / 4)

    @activity.defn(name="run_turn")
    async def run_turn(given: dict[str, Any]) -> dict[str, Any]:
        beating = asyncio.create_task(beat())
        turn = Turn(connection, given)
        connection.turns[turn.writer] = turn
        try:
            await turn.open()
            result = await answer(turn)
            await turn.flush()
        except Parked as parked:
            return {"outcome": "waiting", "waiting_for": list(parked.args)}
        except BaseException as error:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(turn.flush(), 1)
            if turn.problem:
                raise ApplicationError(turn.problem) from error
            if not isinstance(error, asyncio.CancelledError):
                raise
            if activity.is_worker_shutdown() and not turn.stopped:
                raise ApplicationError("The process stops.", type="WorkerShutdown") from error
            return {"outcome": "stopped"}
        else:
            return {"outcome": "completed", "result": result}
        finally:
            beating.cancel()
            del connection.turns[turn.writer]
            await connection.send(op="close", writer=turn.writer)

    return run_turn


async def main(name: str, answer: Answer) -> None:
    """Takes turns until SIGTERM; what runs then is given back."""
    connection = Connection(os.environ["WAYSTATION_URL"], os.environ["WAYSTATION_API_KEY"])
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
    connecting = asyncio.create_task(connection.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, connecting.cancel)
    queue, run_turn, grace = f"waystation-agent-{name}", activity_of(connection, answer), timedelta(seconds=1)
    async with Worker(client, task_queue=queue, activities=[run_turn], graceful_shutdown_timeout=grace):
        await asyncio.wait([connecting])


if __name__ == "__main__":
    asyncio.run(main("parrot", lambda turn: turn.say("1", *turn.given["text"], pause_seconds=0.1)))
