"""Agents that break one requirement each: the example without the library, with a place of its source changed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.converter import DataConverter, PayloadCodec

from tests.support import ROOT
from waystation.temporal.encryption import encryption_codec

Change = tuple[str, str]

_REOPENED = "                await self.send(*self.kept.values())\n"
_FLUSH_LAST = "            with contextlib.suppress(TimeoutError):\n                await asyncio.wait_for(turn.flush(), 1)\n"

MUTANTS: dict[str, list[Change]] = {
    "A-01": [('f"Bearer {key}"', "key")],
    "A-02": [
        ("def activity_of(connection: Connection,", "def activity_of(shared: Connection,"),
        (
            "        beating = asyncio.create_task(beat())\n",
            "        beating = asyncio.create_task(beat())\n"
            "        connection = Connection(shared.url, '')\n"
            "        connection.url, connection.headers = shared.url, shared.headers\n"
            "        asyncio.get_running_loop().set_exception_handler(lambda *_: None)\n"
            "        running = asyncio.create_task(connection.run())\n",
        ),
        ("            beating.cancel()\n", "            beating.cancel()\n            running.cancel()\n"),
    ],
    "A-03": [('op="write", writer', 'op="write", hint="text", writer')],
    "A-04": [("            self.socket = None\n", "            return\n")],
    "A-05": [("pause * random.uniform(0.5, 1)", "0.4")],
    "A-06": [
        ('if turn := self.turns.get(frame.get("writer")):', "if True:"),
        ("await turn.take(frame)", 'await self.turns[frame["writer"]].take(frame)'),
    ],
    "A-10": [('"attempt", "after")', '"attempt")')],
    "A-11": [('        if self.opened:\n            await self.connection.send(op="write"',
              '        if True:\n            await self.connection.send(op="write"')],
    "A-12": [("f\"{given['session_id']}:{given['turn_id']}", "f\"{given['turn_id']}")],
    "A-13": [("        own = {name:", "        self.connection.turns.pop(self.writer, None)\n        self.writer += '+'\n"
              "        self.connection.turns[self.writer] = self\n        own = {name:")],
    "A-14": [("{given['turn_id']}.{given['attempt']}", "{given['turn_id']}")],
    "A-15": [("lambda: asyncio.ensure_future(self.open())", "lambda: None")],
    "A-16": [('self.problem = frame["detail"]\n                self.task.cancel()', 'self.problem = frame["detail"]')],
    "A-17": [('await connection.send(op="close", writer=turn.writer)', "pass")],
    "A-20": [("self.n += 1", "self.n += 2")],
    "A-21": [("        await self.send()\n        while self.kept:",
              '        await self.send({"n": 1, "type": "data.odd"})\n        while self.kept:')],
    "A-22": [('await self.write("message.completed", message_id)',
              'await self.write("message.completed", message_id)\n        await self.write("turn.completed")')],
    "A-23": [("offset += len(part)", 'offset += len(part.encode("utf-16-le")) // 2')],
    "A-24": [("-{self.given['attempt']}-{name}", "-{name}")],
    "A-25": [('await self.write("message.completed", message_id)', "pass")],
    "A-26": [("        for part in parts:\n",
              "        for part in parts:\n            await asyncio.sleep(pause_seconds)\n        pause_seconds = 0\n"
              "        for part in parts:\n")],
    "A-27": [('"tool.returned", call_id="c1", name="lookup"', '"tool.returned", call_id="c1", name="look"')],
    "A-30": [(_REOPENED, "                if self.n > 10:\n                    self.kept.pop(min(self.kept))\n" + _REOPENED)],
    "A-31": [
        ("self.changed = asyncio.Event()", "self.changed, self.all = asyncio.Event(), {}"),
        ("        self.kept[self.n] = {", "        self.all[self.n] = self.kept[self.n] = {"),
        (_REOPENED, _REOPENED.replace("kept", "all")),
    ],
    "A-32": [
        ("self.changed = asyncio.Event()", "self.changed, self.back = asyncio.Event(), []"),
        ("                refused = range(", "                self.back = [self.kept[n] for n in (3, 4)]\n"
         "                refused = range("),
        (_REOPENED, "                await self.send(*self.back, *self.kept.values())\n"),
    ],
    "A-33": [
        ("                refused = range(", "                self.stuck = True\n                refused = range("),
        ("        while self.kept:", '        while self.kept or hasattr(self, "stuck"):'),
    ],
    "A-34": [("            await turn.flush()\n        except", "            await turn.send()\n        except")],
    "A-35": [("flush: bool = True", "flush: bool = False")],
    "A-36": [("> MAX_KEPT_CHARACTERS", "> MAX_KEPT_CHARACTERS * 100")],
    "A-40": [('return {"outcome": "stopped"}', 'return {"outcome": "completed", "result": None}')],
    "A-41": [(_FLUSH_LAST, '            await turn.write("data.bye")\n' + _FLUSH_LAST)],
    "A-42": [("await turn.take(frame)",
              'await asyncio.gather(*(one.take(frame) for one in (self.turns.values() if frame["op"] == "stop" '
              "else [turn])))")],
    "A-43": [('case "stop" | "fenced" if', 'case "stop" if')],
    "A-44": [('await turn.write("steer.consumed", steer_id=steer_id)',
              'for _ in range(2):\n                await turn.write("steer.consumed", steer_id=steer_id)')],
    "A-50": [('{"parent_turn_id": self.given["turn_id"]', '{"parent_turn_id": "t0"')],
    "A-51": [("        await self.flush()\n        own =", "        own =")],
    "A-52": [(_REOPENED + "                await self.ask_again()\n", _REOPENED)],
    "A-53": [("            while child not in turn.finished:\n                await turn.wait()\n", ""),
             ("turn.finished[child]", "turn.finished.get(child)")],
    "A-60": [("f\"{turn.given['turn_id']}:drink\"", "f\"{turn.given['attempt']}:drink\"")],
    "A-61": [('return answer["value"]', 'return answer["actor"]["id"]')],
    "A-62": [('self.given.get("park_after_seconds")', "0.5")],
    "A-63": [('"waiting_for": list(parked.args)', '"waiting_for": ["drink"]')],
    "A-64": [('asyncio.timeout(self.given.get("park_after_seconds"))', "asyncio.timeout(None)")],
    "T-01": [('f"waystation-agent-{name}"', 'f"waystation-{name}"')],
    "T-02": [("        turn = Turn(connection, given)\n", '        turn = Turn(connection, given)\n        assert "mood" not in given\n')],
    "T-03": [('{"outcome": "completed", "result": result}', '{"outcome": "completed"}')],
    "T-04": [("activity.heartbeat()", "pass")],
    "T-05": [("            await asyncio.Event().wait()\n",
              "            while not turn.stopped:\n                try:\n                    await asyncio.Event().wait()\n"
              "                except asyncio.CancelledError:\n                    pass\n")],
    "T-06": [("            if not isinstance(error, asyncio.CancelledError):\n                raise\n",
              "            if not isinstance(error, asyncio.CancelledError):\n"
              '                return {"outcome": "completed", "result": None}\n')],
    "T-07": [('type="RetryTurn"', 'type="Again"')],
    "T-08": [('type="WorkerShutdown"', 'type="Closing"')],
    "T-09": [('os.environ["TEMPORAL_ADDRESS"])', 'os.environ["TEMPORAL_ADDRESS"], data_converter=READS_ONLY)')],
    "T-10": [(_FLUSH_LAST, "            await asyncio.sleep(0)\n")],
    "T-11": [("activities=[run_turn]", "activities=[run_turn], max_concurrent_activities=1")],
}  # fmt: skip


class ReadsOnly(PayloadCodec):
    """Decrypts, and encrypts nothing."""

    def __init__(self, key: str) -> None:
        self._codec = encryption_codec([key])

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return await self._codec.decode(payloads)


def source(changes: Sequence[Change] = ()) -> str:
    """The example and its script as one module, changed; each change must fit exactly one place."""
    agent, script = ((ROOT / "examples" / f"raw_{name}.py").read_text() for name in ("agent", "script"))
    text = agent.partition("\nif __name__ ==")[0] + script.partition("\nif __name__ ==")[0]
    for before, after in (
        ("from raw_agent import Turn, main\n", ""),
        (
            "asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, connecting.cancel)",
            "ON_TERM.append(connecting.cancel)",
        ),
        *changes,
    ):
        assert text.count(before) == 1, f"{text.count(before)} places fit {before!r}"
        text = text.replace(before, after)
    return text


class Running:
    """An agent in this process, which is told to end as by SIGTERM."""

    def __init__(self, text: str, name: str, environment: dict[str, str], key: str | None) -> None:
        self._on_term: list[Any] = []
        converter = DataConverter(payload_codec=ReadsOnly(key)) if key else None
        module: dict[str, Any] = {"__name__": f"mutant_{name}"}
        exec(compile(text, f"<{name}>", "exec"), module)
        module |= {"ON_TERM": self._on_term, "READS_ONLY": converter}
        module["os"] = SimpleNamespace(environ=environment)
        self.task = asyncio.create_task(module["main"](name, module["answer"]))

    async def terminate(self, within: float) -> bool | None:
        for end in self._on_term:
            end()
        done, _ = await asyncio.wait([self.task], timeout=within)
        return bool(done)


@asynccontextmanager
async def running_agent(
    text: str, name: str, environment: dict[str, str], key: str | None = None
) -> AsyncIterator[Running]:
    agent = Running(text, name, environment, key)
    try:
        yield agent
    finally:
        await agent.terminate(5.0)
        agent.task.cancel()
        await asyncio.gather(agent.task, return_exceptions=True)
