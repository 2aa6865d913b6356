"""A program that pays with the SDK, outside agents and workflows, and goes on where it was when it is killed.

Every second thing it does twice, as if it had forgotten that it did it.

What it does is numbered and depends on its name and the number alone, so that a process that was killed does
the same again, under the same ids. It stops at the time it is told, and says in its file that it is done.
"""

import asyncio
import json
import os
import random
import signal
import time
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from temporalio.client import Client as TemporalClient
from temporalio.service import RPCError

from tests.torture.market import AGENT
from tests.torture.plan import stream
from tests.torture.record import Recorder
from tests.torture.wishes import LIMITS, budget, paid_wish, read_answer
from waystation.buyer.allowance.journal import AllowanceJournal
from waystation.buyer.credentials import open_credentials
from waystation.buyer.networks import read_networks
from waystation.buyer.payer import Payer, PaymentRefusedError
from waystation.models.money import Money
from waystation.settings import Settings, read_settings
from waystation.temporal.connect import connect
from waystation.temporal.storage import PayloadsUnavailableError
from waystation.terminal import say

PAUSE_SECONDS: Final = 0.3
LIFETIME: Final = timedelta(seconds=40)
"""Of its allowances: short, so that one that nobody settles is seen to settle itself."""


class NotYetError(Exception):
    """The mandate isn't granted yet."""


class Payments:
    """What the program has to do, and how far it is."""

    def __init__(self, orders: dict[str, Any], settings: Settings, client: TemporalClient) -> None:
        self._orders, self._settings, self._client = orders, settings, client
        self._name: str = orders["name"]
        self._progress = Path(orders["progress"])
        self._record = Recorder(Path(os.environ["TORTURE_RECORD"]))

    async def run(self) -> None:
        """Does one thing after the other, until it is time to stop."""
        while time.monotonic() < self._orders["until"]:
            number = self._number()
            source = self._orders["seed"], f"{self._name}/{number}"
            twice = number % 2 == 0  # as a program would that has forgotten that it did it
            try:
                for _ in range(1 + twice):
                    await self._do(f"{self._name}.{number}", stream(*source))
            except (RPCError, httpx.HTTPError, PayloadsUnavailableError, NotYetError) as error:
                # What it needs isn't there: the same again, under the same ids.
                self._note("sdk_again", id=f"{self._name}.{number}", error=type(error).__name__)
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                self._keep(number + 1)
        self._note("sdk_done")
        self._keep(self._number(), done=True)

    def _number(self) -> int:
        return int(json.loads(self._progress.read_text())["number"]) if self._progress.exists() else 1

    def _keep(self, number: int, *, done: bool = False) -> None:
        fresh = self._progress.with_suffix(".fresh")
        fresh.write_text(json.dumps({"number": number, "done": done}))
        fresh.replace(self._progress)

    async def _do(self, id_: str, chance: random.Random) -> None:
        mandate, currency = chance.choice(self._orders["mandates"])
        async with AsyncExitStack() as opened:
            payer = await self._payer(mandate, opened)
            if chance.random() < 0.3:
                await self._fetch(payer, id_, chance, currency)
            else:
                await self._pay_from_an_allowance(payer, id_, chance, currency)
        await asyncio.sleep(PAUSE_SECONDS)

    async def _payer(self, mandate: str, opened: AsyncExitStack) -> Payer:
        """Returns a payer that makes payments of allowances itself, if this process has what that takes."""
        credentials = await open_credentials(self._settings, opened)
        journal = None
        if credentials.can_pay:
            codec = self._client.data_converter.payload_codec
            journal = AllowanceJournal(Path(self._orders["journal"]), codec)
            opened.push_async_callback(journal.close)
        payer = Payer(
            self._client,
            mandate_id=mandate,
            agent=AGENT,
            allowed_networks=read_networks(self._settings.money.allowed_networks),
            credentials=credentials if journal else None,
            journal=journal,
        )
        opened.push_async_callback(payer.close)
        return payer

    async def _pay_from_an_allowance(
        self, payer: Payer, id_: str, chance: random.Random, currency: str
    ) -> None:
        steps = chance.randint(1, 6)
        try:
            async with payer.allowance(
                self._orders["seller"],
                budget=Money(**budget(chance, currency)),
                max_price=Money(amount=LIMITS[currency], currency=currency),
                lifetime=LIFETIME,
                allowance_id=id_,
            ):
                for step in range(1, steps + 1):
                    await self._fetch(payer, f"{id_}.{step}", chance, currency)
        except PaymentRefusedError as refused:
            _check_granted(refused)
            self._note("sdk_allowance_refused", id=id_, rule=refused.rule)

    async def _fetch(self, payer: Payer, id_: str, chance: random.Random, currency: str) -> None:
        subject, request, limit = paid_wish(chance, self._orders["seller"], id_, currency)
        try:
            paid = await payer.fetch(
                request["url"], max_price=Money(**limit), method=request["method"], payment_id=id_
            )
        except PaymentRefusedError as refused:
            _check_granted(refused)
            self._note("sdk_refused", id=id_, rule=refused.rule, moved=refused.money_moved)
            return
        got = read_answer(paid.response.status_code, paid.response.content)
        self._note(
            "sdk_paid", id=id_, payment=paid.payment_id, moved=paid.money_moved, subject=subject,
            answered=paid.response.status_code, got=got.get("subject"), run=got.get("run"),
        )  # fmt: skip

    def _note(self, operation: str, **what: Any) -> None:
        self._record.note(self._name, operation, **what)


def _check_granted(refused: PaymentRefusedError) -> None:
    if refused.rule == "mandate_not_found":
        raise NotYetError from refused


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = read_settings()
    async with AsyncExitStack() as resources:
        client = await connect(settings, resources)
        say("Paying")
        orders = json.loads(os.environ["TORTURE_ORDERS"])
        paying = asyncio.create_task(Payments(orders, settings, client).run())
        told = asyncio.create_task(stop.wait())
        await asyncio.wait([told, paying], return_when=asyncio.FIRST_COMPLETED)
        if paying.done():
            paying.result()  # what went wrong with it ends the program
            await told
        paying.cancel()
        await asyncio.gather(paying, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
