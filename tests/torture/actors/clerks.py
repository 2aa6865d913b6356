"""Who works for sellers: clerks who send parcels and give money back, and impostors who say that they did."""

import asyncio
import json
import secrets
import time
from typing import Any, Final

import httpx

from tests.torture.actors.attackers import odd
from tests.torture.actors.base import Acting, read_json
from tests.torture.proxy import PROXY_HEADER
from tests.world.market import SHOP_KEY, WEBHOOK_SECRETS
from waystation.client.paths import path
from waystation.protocols import acp
from waystation.protocols.acp.webhooks import sign_webhook

CLERK_SECONDS: Final = 4.0
"""How long a shop's own people wait for their machine."""
SEEN_SECONDS: Final = 90.0
"""How long after the last fault a refund may take until its mandate has it: webhooks are repeated."""
DEEP: Final = 100_000
HUGE_CHARACTERS: Final = 3_000_000
HONEST_SHOP: Final = "shop-1"
"""Nobody signs lies in this shop's name."""


class Clerk(Acting):
    """Ships, delivers and refunds what a shop has sold, and waits until the mandates know of each refund."""

    async def run(self) -> None:
        refunds: list[tuple[str, str]] = []
        while self.goes_on:
            await self.rest(0.5, 3)
            sale = await self._sale()
            if sale is None:
                continue
            shop, order, checkout = sale
            what = self.chance.choice(["ship", "deliver", "refund", "refund"])
            more = f"?amount={self.chance.choice([1, 100, 700])}&key={secrets.token_hex(6)}"
            done = await self._do(shop, "POST", f"/sandbox/orders/{order}/{what}{more * (what == 'refund')}")
            if done is not None and done.is_success and what == "refund":
                refunds.append((shop, checkout))
        await self.calm.wait()
        await self._until_seen(refunds)

    async def _sale(self) -> tuple[str, str, str] | None:
        shop = self.chance.choice(sorted(WEBHOOK_SECRETS))
        state = await self._do(shop, "GET", "/sandbox/state")
        sales = state.json()["sales"] if state is not None and state.is_success else []
        if not sales:
            return None
        sale = self.chance.choice(sales)
        return shop, sale["order_id"], sale["checkout"]

    async def _do(self, shop: str, method: str, where: str) -> httpx.Response | None:
        """Asks the shop's machine, to which its own people need no wire."""
        market = self.world.market
        assert market is not None, "clerks take part where there is a market"
        try:
            return await self.http.request(method, market.shops[shop].url + where, timeout=CLERK_SECONDS)
        except httpx.HTTPError as error:
            self.note("shop_away", shop=shop, error=type(error).__name__)
            return None

    async def _until_seen(self, refunds: list[tuple[str, str]]) -> None:
        """Waits until each purchase shows what its order's ledger says went back, and notes how it stands."""
        deadline = time.monotonic() + SEEN_SECONDS
        waiting = set(refunds)
        while waiting and time.monotonic() < deadline:
            listed = await self.ask("list", "GET", "/purchases?limit=100", key=self.world.key("service"))
            for view in listed.body if listed.ok else ():
                adjustments = (view["order"] or {}).get("adjustments") or []
                checkout = (view["cart"] or {}).get("checkout_id")
                if any(one["status"] == "completed" for one in adjustments):
                    waiting = {one for one in waiting if one[1] != checkout}
            await asyncio.sleep(0.5)
        for shop, checkout in sorted(set(refunds)):
            self.note("refunded", shop=shop, checkout=checkout, seen=(shop, checkout) not in waiting)


class Impostor(Acting):
    """Sends order events that nobody should believe: unsigned, for others' orders, of too much, odd."""

    async def run(self) -> None:
        while self.goes_on:
            await self.rest(0.3, 2)
            manner = self.chance.choice(
                ["unsigned", "wrong secret", "other's order", "too much", "odd", "deep", "huge"]
            )
            shop = HONEST_SHOP if manner in ("unsigned", "wrong secret", "other's order") else "shop-2"
            body = await self._body(shop, manner)
            secret = secrets.token_hex(16) if manner == "wrong secret" else WEBHOOK_SECRETS["shop-2"]
            await self._send(body, manner, None if manner == "unsigned" else secret)

    async def _body(self, shop: str, manner: str) -> bytes:
        if manner == "odd":
            event = {"type": "order_update", "data": odd(self.chance)}
            return json.dumps(self.chance.choice([event, odd(self.chance)])).encode()
        if manner == "deep":
            return b'{"type": "order_update", "data": ' + b"[" * DEEP + b"]" * DEEP + b"}"
        order = await self._order(shop)
        if manner == "huge":
            order["support"] = {"email": "x" * HUGE_CHARACTERS}
        order["adjustments"] = [
            *(order.get("adjustments") or []),
            {
                "id": f"adj_{secrets.token_hex(6)}", "type": "refund", "status": "completed",
                "occurred_at": "2026-01-01T00:00:00Z", "amount": self.chance.choice([1, 10**6, 10**15]),
                "currency": "usd",
            },
        ]  # fmt: skip
        return json.dumps({"type": "order_update", "data": order}).encode()

    async def _order(self, shop: str) -> dict[str, Any]:
        """Returns an order of the shop's, as it is."""
        market = self.world.market
        assert market is not None, "impostors take part where there is a market"
        url, headers = market.shops[shop].url, {"Authorization": f"Bearer {SHOP_KEY}"}
        headers["API-Version"] = acp.API_VERSION
        try:
            state = await self.http.get(f"{url}/sandbox/state", timeout=CLERK_SECONDS)
            order = self.chance.choice(state.json()["sales"])["order_id"]
            read = await self.http.get(url + path("orders", order), headers=headers, timeout=CLERK_SECONDS)
            found: dict[str, Any] = read.json()
        except (httpx.HTTPError, ValueError, LookupError):
            return {"id": "ord_none", "checkout_session_id": "cs_none", "permalink_url": f"{url}/orders/x"}
        return found

    async def _send(self, body: bytes, manner: str, secret: str | None) -> None:
        headers = {"Content-Type": "application/json"}
        if secret is not None:
            headers[acp.HEADER_MERCHANT_SIGNATURE] = sign_webhook(secret, body, int(time.time()))
        try:
            answer = await self.http.post(self.url() + acp.WEBHOOK_PATH, content=body, headers=headers)
        except httpx.HTTPError as error:
            self.note("impostor_unheard", manner=manner, error=type(error).__name__)
            return
        told = {name: answer.headers.get(name) for name in ("content-type", "retry-after")}
        known = manner in ("unsigned", "wrong secret")
        self.note("order_event", manner=manner, known_as_wrong=known, status=answer.status_code,
                  proxied=PROXY_HEADER in answer.headers, told=told if answer.is_error else None,
                  answer=read_json(answer))  # fmt: skip
