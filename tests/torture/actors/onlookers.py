"""Who only looks, and who should not: lookers at what a session does, a prober of health, an attacker."""

import asyncio
import threading
import time
from typing import Any, Final

import httpx

from tests.torture.actors.base import Acting
from tests.torture.scripts import words

PROBE_EVERY_SECONDS: Final = 0.5
PROBE_TIMEOUT_SECONDS: Final = 10.0
SLOW_SECONDS: Final = 0.5
"""Answers that take longer are noted one by one."""


class Looker(Acting):
    """Reads the session as it stands, by every way."""

    async def run(self) -> None:
        if not await self.arrive():
            return
        token = await self.token()
        while self.goes_on:
            what = self.chance.choice(["", "participants", "transcript", "replay"])
            where = self.of_session(*([what] if what else []))
            answer = await self.ask("look", "GET", where, key=token)
            if answer.ok and what == "replay":
                self.note("replayed", events=[[e["seq"], e["type"]] for e in answer.body["events"]])
            await self.rest(0.5, 3)


class Prober(Acting):
    """Asks each API process for its health, on no wire, from a thread that nothing else delays."""

    async def run(self) -> None:
        done = threading.Event()
        threads = [
            threading.Thread(target=self._probe, args=(f"api-{number}", port, done), daemon=True)
            for number, port in enumerate(self.world.api_ports, 1)
        ]
        for thread in threads:
            thread.start()
        try:
            while not self.calm.is_set():
                for name in self.world.processes:
                    self.note("memory", process=name, bytes=self.world.memory_bytes(name))
                await asyncio.sleep(2)
        finally:
            done.set()

    def _probe(self, process: str, port: int, done: threading.Event) -> None:
        answered = 0
        with httpx.Client(timeout=PROBE_TIMEOUT_SECONDS, trust_env=False, verify=False) as http:
            while not done.is_set():
                began = time.monotonic()
                done.wait(PROBE_EVERY_SECONDS)
                lag = time.monotonic() - began - PROBE_EVERY_SECONDS
                began, status = time.monotonic(), None
                try:
                    status = http.get(f"http://127.0.0.1:{port}/health").status_code
                except httpx.HTTPError as error:
                    status = type(error).__name__
                seconds = time.monotonic() - began
                answered += status == 200
                if status != 200 or seconds > SLOW_SECONDS:
                    self.note(
                        "slow_health",
                        process=process,
                        seconds=round(seconds, 3),
                        lag=round(lag, 3),
                        status=status,
                    )
        self.note("health", process=process, answered=answered)


class Attacker(Acting):
    """Tries every door with each kind of credential, and with input that nobody should send."""

    async def run(self) -> None:
        while self.goes_on:
            method, where, role, allowed = self.chance.choice(ATTACKS)
            session = self._somebody_elses()
            key = await self._credential(role, session)
            answer = await self.ask(
                "attack", method, where.format(session=session), self._body(), key=key, id=role
            )
            self.note("attacked", role=role, method=method, where=where, on=session, status=answer.status,
                      proxied=answer.proxied, allowed=allowed)  # fmt: skip
            await self.rest(0.2, 1)

    def _somebody_elses(self) -> str:
        sessions = sorted({actor.session for actor in self.world.plan.actors if actor.session})
        return self.chance.choice(sessions) if sessions else "none"

    async def _credential(self, role: str, session: str) -> str:
        match role:
            case "nobody":
                return "ws_nothing"
            case "forged":
                return "eyJhbGciOiJub25lIn0.eyJyb2xlIjoib3BlcmF0b3IifQ."
            case "other session":
                body = {
                    "role": "client",
                    "sessions": [f"not-{session}"],
                    "subject": self.name,
                    "ttl_seconds": 600,
                }
                answer = await self.insist("token", "POST", "/tokens", body, key=self.world.key("service"))
                return str(answer.body["token"]) if answer.ok else "none"
            case _:
                return self.world.key(role)

    def _body(self) -> Any:
        return self.chance.choice(
            [{}, None, [], 17, "x", {"text": ""}, {"text": f"attack {words(self.chance)}"},
             {"reason": "attack"}, {"actor": {"id": "root"}},
             {"writer": "w", "items": [{"n": 1, "type": "turn.completed", "data": {}}]}]
        )  # fmt: skip


ATTACKS: Final = (
    # method, path, credential, whether it may succeed
    ("POST", "/sessions", "nobody", False),
    ("GET", "/sessions", "nobody", False),
    ("POST", "/tokens", "client", False),
    ("POST", "/tokens", "agent", False),
    ("GET", "/sessions/{session}", "forged", False),
    ("GET", "/sessions/{session}/transcript", "other session", False),
    ("GET", "/sessions/{session}/replay", "other session", False),
    ("POST", "/sessions/{session}/messages", "other session", False),
    ("POST", "/sessions/{session}/messages", "agent", False),
    ("POST", "/sessions/{session}/stop", "other session", False),
    ("POST", "/sessions/{session}/stop", "agent", False),
    ("POST", "/sessions/{session}/stop", "approver", False),
    ("POST", "/sessions/{session}/takeover", "client", False),
    ("POST", "/sessions/{session}/release", "client", False),
    ("POST", "/sessions/{session}/events", "client", False),
    ("POST", "/sessions/{session}/events", "operator", False),
    ("DELETE", "/sessions/{session}", "client", False),
    ("DELETE", "/sessions/{session}", "agent", False),
    ("POST", "/codec/decode", "client", False),
    ("POST", "/purchases/none/approve", "agent", False),
    ("POST", "/sessions/{session}/messages", "nobody", False),
    ("POST", "/sessions/{session}/tickets", "forged", False),
)
