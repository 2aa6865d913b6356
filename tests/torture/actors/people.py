"""People who say something: hosts, senders, stoppers, steerers, operators, joiners, programs that report."""

import asyncio
import time
from typing import Any, Final

from tests.torture.actors.base import Acting, Answer
from tests.torture.interviews import interview, rules
from tests.torture.scripts import script, words

IDLE_SECONDS: Final = 90.0
"""How long a host waits until the session is idle; each turn is bounded by the run's limits."""
MAX_MESSAGES: Final = 6
ODD_NAMES: Final = (
    "Ada", "\u202egnp.exe", "Robert'); DROP TABLE", "<script>alert(1)</script>", "漢字 \U0001f9d9", "a" * 200,
    "\x1b[31mred",
)  # fmt: skip


class Asking(Acting):
    """Somebody who asks an agent for something that it knows how to do."""

    def script(self) -> str:
        return (interview if self.actor.settings["agent"] == "asker" else script)(self.chance)


class Host(Asking):
    """Starts the session, and closes it: at once, or when it is idle."""

    stays = True

    async def run(self) -> None:
        key = self.world.key("service")
        body: dict[str, Any] = {"agent": self.actor.settings["agent"], "session_id": self.session}
        if self.chance.random() < 0.5:
            body["message"] = self.script()
        if self.actor.settings["agent"] == "asker":
            body["approval_rules"] = rules(self.chance)
        started = await self.insist("start", "POST", "/sessions", body, key=key, id=self.session)
        if not started.ok:
            return
        while self.goes_on:
            await self.rest(1, 3)
        if self.actor.settings["waits"]:
            await self.calm.wait()
            await self._until_idle(key)
        reason = f"closed by {self.name}"
        await self.insist("close", "DELETE", f"{self.of_session()}?reason={reason}", key=key, id=reason)

    async def _until_idle(self, key: str) -> None:
        deadline, answer = time.monotonic() + IDLE_SECONDS, Answer(None)
        while time.monotonic() < deadline:
            answer = await self.ask("look", "GET", self.of_session(), key=key)
            if answer.ok and answer.body["status"] in ("idle", "closed"):
                break
            if answer.ok and answer.body["status"] == "paused":
                await self.ask("release", "POST", self.of_session("release"), {}, key=key)
            await asyncio.sleep(0.5)
        self.note("waited", status=answer.body and answer.body.get("status"))


class Sender(Asking):
    """Sends messages, each with its id, as any ``on_busy``."""

    async def run(self) -> None:
        if not await self.arrive():
            return
        token = await self.token()
        for number in range(MAX_MESSAGES):
            body = {
                "text": self.script() if self.chance.random() < 0.9 else words(self.chance) + ".",
                "message_id": f"{self.name}-{number}",
                "on_busy": self.chance.choice(["queue"] * 4 + ["interrupt", "interrupt", "steer", "reject"]),
            }
            where, id_ = self.of_session("messages"), body["message_id"]
            await self.insist("send", "POST", where, body, key=token, id=id_)
            if self.chance.random() < 0.1:
                await self.ask("send", "POST", where, body, key=token, id=id_)
            await self.rest(0.5, 6)
            if not self.goes_on:
                return


class Stopper(Acting):
    """Stops whatever runs, each time for a reason of its own."""

    async def run(self) -> None:
        if not await self.arrive():
            return
        token, number = await self.token(), 0
        while self.goes_on:
            number += 1
            id_ = f"{self.name}-{number}"
            body = {"request_id": id_, "reason": f"stop {id_}", "wait_seconds": self.chance.choice([0, 1, 5])}
            await self.insist("stop", "POST", self.of_session("stop"), body, key=token, id=id_)
            await self.rest(2, 8)


class Steerer(Acting):
    """Says something to the turn that runs."""

    async def run(self) -> None:
        if not await self.arrive():
            return
        token, number = await self.token(), 0
        while self.goes_on:
            number += 1
            id_ = f"{self.name}-{number}"
            body = {"request_id": id_, "text": f"steer {id_}", "wait_seconds": self.chance.choice([0, 2])}
            await self.insist("steer", "POST", self.of_session("steer"), body, key=token, id=id_)
            await self.rest(1, 6)


class Operator(Acting):
    """Takes over, says something, and releases."""

    async def run(self) -> None:
        if not await self.arrive():
            return
        token, number = await self.token("operator"), 0
        while self.goes_on:
            number += 1
            reason = f"takeover {self.name}-{number}"
            body = {"reason": reason}
            await self.insist("takeover", "POST", self.of_session("takeover"), body, key=token, id=reason)
            for said in range(self.chance.randint(0, 2)):
                id_ = f"{self.name}-{number}-{said}"
                body = {"text": words(self.chance) + ".", "message_id": id_}
                await self.insist("send", "POST", self.of_session("messages"), body, key=token, id=id_)
            await self.rest(0.5, 3)
            await self.insist("release", "POST", self.of_session("release"), {}, key=token)
            await self.rest(3, 10)


class Joiner(Acting):
    """Joins under an odd name, and leaves."""

    async def run(self) -> None:
        if not await self.arrive():
            return
        token = await self.token(name=self.chance.choice(ODD_NAMES))
        while self.goes_on:
            await self.insist("join", "POST", self.of_session("participants"), {}, key=token, id=self.name)
            await self.rest(0.5, 4)
            if self.chance.random() < 0.5:
                where = self.of_session("participants", self.name)
                await self.insist("leave", "DELETE", where, key=token, id=self.name)
            await self.rest(0.5, 4)


class Poster(Acting):
    """A program that only reports: it posts events, and posts the same again until it knows."""

    async def run(self) -> None:
        if not await self.arrive():
            return
        number = 0
        while self.goes_on:
            items = [
                {"n": number + more, "type": "data.report", "data": {"by": self.name, "n": number + more}}
                for more in range(1, self.chance.randint(2, 5))
            ]
            body = {"writer": self.name, "items": items}
            id_ = f"{self.name}-{number}"
            where, key = self.of_session("events"), self.world.key("agent")
            answer = await self.insist("post", "POST", where, body, key=key, id=id_)
            if not answer.ok:
                return
            number += len(items)
            await self.rest(0.2, 2)
