"""Who only looks: lookers at what a session does, and a prober of health."""

import asyncio
import threading
import time
from collections import deque
from typing import Final

import httpx

from tests.torture.actors.base import Acting

PROBE_EVERY_SECONDS: Final = 0.5
PROBE_TIMEOUT_SECONDS: Final = 10.0
TICK_SECONDS: Final = 0.05
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


class Metronome:
    """Says how late this process itself was, which is no fault of those that it measures."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque(maxlen=10_000)

    def tick(self, done: threading.Event) -> None:
        """Looks at the clock again and again, until the event is set."""
        while not done.is_set():
            before = time.monotonic()
            done.wait(TICK_SECONDS)
            now = time.monotonic()
            self._late.append((now, now - before - TICK_SECONDS))

    def late_seconds(self, since: float) -> float:
        """Returns by how much the ticks since then were late, all together."""
        return sum(late for at, late in list(self._late) if at >= since)


class Prober(Acting):
    """Asks each API process for its health, on no wire, from a thread that nothing else delays."""

    async def run(self) -> None:
        done, metronome = threading.Event(), Metronome()
        threads = [
            threading.Thread(target=self._probe, args=(f"api-{number}", port, done, metronome), daemon=True)
            for number, port in enumerate(self.world.api_ports, 1)
        ]
        threads.append(threading.Thread(target=metronome.tick, args=(done,), daemon=True))
        for thread in threads:
            thread.start()
        try:
            while not self.calm.is_set():
                for name in self.world.processes:
                    self.note("memory", process=name, bytes=self.world.memory_bytes(name))
                await asyncio.sleep(2)
        finally:
            done.set()

    def _probe(self, process: str, port: int, done: threading.Event, metronome: Metronome) -> None:
        answered = 0
        with httpx.Client(timeout=PROBE_TIMEOUT_SECONDS, trust_env=False, verify=False) as http:
            while not done.is_set():
                done.wait(PROBE_EVERY_SECONDS)
                began, status = time.monotonic(), None
                waited = self.world.seconds_without_processor(process)
                try:
                    status = http.get(f"http://127.0.0.1:{port}/health").status_code
                except httpx.HTTPError as error:
                    status = type(error).__name__
                seconds = time.monotonic() - began
                starved = self.world.seconds_without_processor(process) - waited
                answered += status == 200
                if status != 200 or seconds > SLOW_SECONDS:
                    self.note(
                        "slow_health",
                        process=process,
                        seconds=round(seconds, 3),
                        lag=round(starved + metronome.late_seconds(began), 3),
                        status=status,
                    )
        self.note("health", process=process, answered=answered)
