"""The parts the demo runs on: what ``waystation dev`` starts, and the people in front of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

from pydantic import BaseModel

from waystation.client import Client, Session
from waystation.client.transcript import Transcript
from waystation.demo.devices import Device
from waystation.demo.screen import Screen
from waystation.demo.wire import Wire
from waystation.dev.ports import free_ports
from waystation.dev.processes import Dev
from waystation.models.events import TERMINAL_TURN_TYPES
from waystation.models.sessions import Sent, SessionLimits

FRAME_SECONDS = 0.08
POLL_SECONDS = 0.02
PARK_AFTER_SECONDS = 2
"""A minute, by default: too long to watch."""
PATIENCE_SECONDS = 30.0
"""Nothing in the demo takes this long on a machine that can run it at all."""


class DemoFailed(Exception):
    """Something that should have happened didn't."""


class _Token(BaseModel):
    token: str


class Stage:
    """A separate dev environment on free ports, with one session and its participants.

    ``laptop`` and ``phone`` belong to Ada, who asks; ``wire`` is the phone's network. ``operator`` is
    Grace. Each has her own session token, as in a real product.
    """

    laptop: Device
    phone: Device
    operator: Session
    client: Client
    console_url: str

    def __init__(self, folder: Path, server_folder: Path, screen: Screen) -> None:
        self.screen = screen
        self._port, temporal_port = free_ports(2)
        limits = SessionLimits(park_after_seconds=PARK_AFTER_SECONDS)
        self.dev = Dev(folder, self._port, temporal_port, [], server_folder, quiet=True, limits=limits)
        self.wire = Wire(self._port)
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        enter = self._resources.enter_async_context
        self._resources.push_async_callback(self.dev.stop)
        try:
            await self.dev.start()
            await self.wire.mend()
            self._resources.push_async_callback(self.wire.close)
            service = await enter(Client(self.dev.url, self.dev.state.key("service")))
            session = await service.start("demo", title="The demo")
            self.console_url = self.dev.console_url(f"/sessions/{session.id}")
            self.client = await enter(Client(self.dev.url, await _token(service, session, "client", "Ada")))
            phone = await enter(Client(self.wire.url, await _token(service, session, "client", "Ada")))
            operator = await enter(Client(self.dev.url, await _token(service, session, "operator", "Grace")))
            self.laptop = await enter(Device("Ada's laptop", self.client.attach(session.id)))
            self.phone = await enter(Device("Ada's phone", phone.attach(session.id)))
            self.operator = operator.attach(session.id)
        except BaseException:
            await self._resources.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.screen.say("Stopping everything …")
        await self._resources.aclose()

    @property
    def devices(self) -> tuple[Device, Device]:
        """Both of Ada's screens."""
        return self.laptop, self.phone

    async def ask(self, text: str, **script: int | str) -> str:
        """Sends Ada's question from her laptop; returns the turn's id. ``script`` tells the agent what to
        do."""
        return turn_of(await self.laptop.session.send(text, data={**script}))

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Waits until a condition holds. Raises ``DemoFailed``, naming ``what``, if it doesn't."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise DemoFailed(f"This did not happen within {PATIENCE_SECONDS:.0f} s: {what}.")
            await asyncio.sleep(POLL_SECONDS)

    async def ended(self, *turn_ids: str) -> None:
        """Waits until both devices know that these turns have ended."""
        for turn_id in turn_ids:
            await self.until(
                lambda turn_id=turn_id: all(  # type: ignore[misc]
                    turn_id in device.session.transcript.ended_turns for device in self.devices
                ),
                f"turn {turn_id} ends on both screens",
            )

    def terminal_events(self, turn_id: str) -> list[str]:
        """Returns the types of the events that ended a turn: there must be exactly one."""
        return [
            event.type
            for event in self.laptop.events
            if event.turn_id == turn_id and event.type in TERMINAL_TURN_TYPES
        ]

    async def ledger(self) -> Transcript:
        """Returns the transcript built from the workflow's own replay, read from its beginning."""
        transcript, after, more = Transcript(), 0, True
        while more:
            page = await self.laptop.session.replay(after=after)
            for event in page.events:
                transcript.apply(event)
            after, more = page.next_after, page.more
        return transcript

    async def check_same(self) -> None:
        """Checks that both screens show what the workflow holds, and never showed anything else."""
        ledger = [(message.id, message.status, message.text) for message in await self.ledger()]
        characters = sum(len(text) for _, _, text in ledger)
        same = all(device.texts() == ledger for device in self.devices)
        self.screen.check(
            same,
            f"laptop, phone and the workflow's replay hold the same {len(ledger)} messages, "
            f"{characters} characters",
        )
        faults = [fault for device in self.devices for fault in device.faults]
        self.screen.check(
            not faults, "on neither screen was a character ever lost, repeated or out of place", faults
        )

    @asynccontextmanager
    async def showing(self) -> AsyncIterator[None]:
        """Shows both devices while a chapter plays."""
        for device in self.devices:
            device.turn_page()
        with self.screen.live(self.devices, self._connected) as refresh:

            async def keep_fresh() -> None:
                while True:
                    refresh()
                    await asyncio.sleep(FRAME_SECONDS)

            task = asyncio.create_task(keep_fresh())
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                refresh()

    def end_chapter(self) -> None:
        """Prints the chapter's checks."""
        self.screen.end_chapter()

    def _connected(self, device: Device) -> bool:
        return device is not self.phone or self.wire.whole


def turn_of(sent: Sent) -> str:
    """Returns the turn that answers a message."""
    if sent.turn_id is None:
        raise DemoFailed(f"The message was {sent.status}, but no turn answers it.")
    return sent.turn_id


async def _token(service: Client, session: Session, role: str, name: str) -> str:
    body = {"role": role, "sessions": [session.id], "subject": name.lower(), "name": name}
    return (await service.request("POST", "/tokens", _Token, body)).token
