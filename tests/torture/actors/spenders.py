"""Who spends from a mandate: buyers and payers, each from outside, through the API."""

import asyncio
import base64
import json
import random
import time
from typing import Any, Final

from tests.torture.actors.base import Acting, Answer
from tests.torture.market import AGENT
from tests.torture.wishes import paid_wish, read_answer
from waystation.client.paths import path

MAX_PURCHASES: Final = 6
MAX_PAYMENTS: Final = 12
END_SECONDS: Final = 120.0
"""How long somebody waits for what they have begun, after the last fault."""
ADDRESS: Final = {
    "name": "Alice Example", "line_one": "1 Example St", "city": "Oakland", "state": "CA", "country": "US",
    "postal_code": "94607",
}  # fmt: skip
BUYER: Final = {"email": "alice@example.com", "first_name": "Alice", "last_name": "Example"}
SHOPS: Final = ("shop-1", "shop-1", "shop-2")
ITEMS: Final = (
    *("ebook_tides",) * 12, *("mug_blue",) * 4, "mug_sand", "lamp_desk", "font_license", "wine_red", "none",
)  # fmt: skip


class Spender(Acting):
    """Somebody who acts on one mandate, and waits for the end of what they have begun."""

    @property
    def mandate(self) -> str:
        return str(self.actor.settings["mandate"])

    @property
    def currency(self) -> str:
        """That of the mandate."""
        return str(self.actor.settings.get("currency", "usd"))

    @property
    def paid_api(self) -> str:
        """Where the paid API is."""
        assert self.world.market is not None, "spenders take part where there is a market"
        return self.world.market.seller("paid-api")

    async def granted(self) -> bool:
        """Waits until the mandate is there; returns whether it is."""
        while self.goes_on:
            answer = await self.ask(
                "look", "GET", path("mandates", self.mandate), key=self.world.key("service")
            )
            if answer.ok:
                return True
            await asyncio.sleep(0.3)
        return False

    async def until_final(self, kind: str, id_: str, *, revises: bool = False) -> Answer:
        """Looks until it has ended; notes how long after the last fault that was."""
        deadline = None
        while True:
            where = f"{path(kind, id_)}?wait_seconds={self.chance.choice([0, 2, 5])}"
            answer = await self.ask("look", "GET", where, key=self.world.key("service"))
            if answer.ok and answer.body["final"]:
                return answer
            if answer.ok and revises and answer.body["status"] == "needs_revision":
                await self.revise(id_)
            if self.calm.is_set() and deadline is None:
                deadline = time.monotonic() + END_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                return answer
            if answer.status == 404 and self.calm.is_set():
                return answer
            await asyncio.sleep(0.3)

    async def revise(self, purchase: str) -> None:
        body = {"items": [{"id": "ebook_tides", "quantity": 1}]}
        await self.ask(
            "revise",
            "POST",
            path("purchases", purchase, "revise"),
            body,
            key=self.world.key(AGENT),
            id=purchase,
        )


class Buyer(Spender):
    """Buys, each time with an id of its own; sometimes the same twice, or something else under that id."""

    async def run(self) -> None:
        if not await self.granted():
            return
        ends: list[asyncio.Task[Answer]] = []
        for number in range(1, MAX_PURCHASES + 1):
            id_ = f"{self.name}.{number}"
            request = wish(self.chance, self.world.market, self.mandate)
            body = {"purchase_id": id_, "request": request}
            key = self.world.key(self.chance.choice([AGENT, AGENT, "service"]))
            times = self.chance.choice([1] * 5 + [2, 3])
            asked = [self.insist("buy", "POST", "/purchases", body, key=key, id=id_) for _ in range(times)]
            answers = await asyncio.gather(*asked)
            if any(answer.ok for answer in answers):
                revises = self.chance.random() < 0.5
                ends.append(asyncio.create_task(self.until_final("purchases", id_, revises=revises)))
            if self.chance.random() < 0.15:
                other = {**request, "order_notes": "something else"}
                await self.ask(
                    "buy_other", "POST", "/purchases", {"purchase_id": id_, "request": other}, key=key, id=id_
                )
            await self.rest(0.5, 5)
            if not self.goes_on:
                break
        await asyncio.gather(*ends)


class Payer(Spender):
    """Pays APIs that ask for it, by every price, and looks at what it gets."""

    async def run(self) -> None:
        if not await self.granted():
            return
        ends: list[asyncio.Task[None]] = []
        for number in range(1, MAX_PAYMENTS + 1):
            id_ = f"{self.name}.{number}"
            subject, request, max_price = paid_wish(self.chance, self.paid_api, id_, self.currency)
            wanted = {
                "request": request,
                "max_price": max_price,
                "mandate_id": self.mandate,
                "agent": AGENT,
                "approval_timeout_seconds": self.chance.choice([5, 15]),
            }
            body = {"payment_id": id_, "request": wanted}
            key = self.world.key(self.chance.choice([AGENT, "service"]))
            times = self.chance.choice([1] * 5 + [2])
            asked = [self.insist("pay", "POST", "/payments", body, key=key, id=id_) for _ in range(times)]
            if any(answer.ok for answer in await asyncio.gather(*asked)):
                ends.append(asyncio.create_task(self._take(id_, subject)))
            if self.chance.random() < 0.15:
                other = {**wanted, "request": {**request, "url": request["url"] + "?other=1"}}
                await self.ask(
                    "pay_other", "POST", "/payments", {"payment_id": id_, "request": other}, key=key, id=id_
                )
            await self.rest(0.2, 1.5)
            if not self.goes_on:
                break
        await asyncio.gather(*ends)

    async def _take(self, id_: str, subject: str) -> None:
        answer = await self.until_final("payments", id_)
        if answer.ok and answer.body["final"]:
            self.note("paid", id=id_, subject=subject, outcome=outcome(answer.body))


def outcome(view: dict[str, Any]) -> dict[str, Any]:
    """Returns what a paid request came to, with what its answer is about."""
    answer, offer = view["answer"], view["offer"]
    got = {}
    if answer and answer["body_base64"]:
        got = read_answer(answer["status"], base64.b64decode(answer["body_base64"]))
    return {
        "status": view["status"],
        "money_moved": view["money_moved"],
        "price": offer and offer["price"],
        "rail": offer and offer["rail"],
        "answered": answer and answer["status"],
        "subject": got.get("subject"),
        "run": got.get("run"),
        "rule": (view["refusal"] or {}).get("rule"),
    }


def wish(chance: random.Random, market: Any, mandate: str) -> dict[str, Any]:
    """Returns a request to buy; with short waits for people, so that each purchase is seen to end."""
    items = chance.sample(sorted(set(ITEMS)), 2) if chance.random() < 0.15 else [chance.choice(ITEMS)]
    country = chance.choice(["US"] * 6 + ["DE"])
    request: dict[str, Any] = {
        "mandate_id": mandate,
        "seller": market.seller(chance.choice(SHOPS)),
        "currency": chance.choice(["usd"] * 24 + ["eur"]),
        "items": [{"id": item, "quantity": chance.choice([1, 1, 1, 2, 5])} for item in items],
        "agent": {"id": AGENT},
        "buyer": BUYER,
        "approval_timeout_seconds": chance.choice([6, 15, 30]),
        "revision_timeout_seconds": chance.choice([0, 4, 10]),
    }
    if items != ["ebook_tides"] or chance.random() < 0.3:
        request["fulfillment_details"] = {
            "name": "Alice Example",
            "email": "alice@example.com",
            "address": {**ADDRESS, "country": country},
        }
    if chance.random() < 0.2:
        request["discount_codes"] = [chance.choice(["SAVE10", "WELCOME5", "SUMMER24", "FIRST1", "NONE"])]
    return request


class PayingProgram(Acting):
    """Waits for a program that pays with the SDK: for its end, once the faults are over."""

    async def run(self) -> None:
        await self.calm.wait()
        progress = self.world.progress_of(self.actor.settings["program"])
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            if progress.exists() and json.loads(progress.read_text())["done"]:
                return
            await asyncio.sleep(0.5)
        self.note("sdk_never_done", program=self.actor.settings["program"])
