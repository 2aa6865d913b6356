"""Who wants other people's money: with another agent's key, another person's, or Temporal's own client."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from temporalio.service import RPCError

from tests.torture.actors.attackers import odd
from tests.torture.actors.base import Acting
from tests.torture.actors.spenders import wish
from tests.torture.market import AGENT
from waystation.client.paths import path

KINDS: Final = ("purchases", "payments", "allowances", "mandates")
DEEP: Final = 100_000
"""Lists within each other in a body."""
NAMES: Final = (
    "request", "terms", "purchase_id", "payment_id", "mandate_id", "digest", "reason", "items", "outcome",
    "payment_method", "buyer", "amount", "by", "proof", "approver",
)  # fmt: skip
"""What bodies about money have in them."""
IDS: Final = ("none", "%00", "..", "x" * 300, "%F0%9F%92%B8", "a b", "m1-1", "{}")
"""What may stand in a path in an id's place."""
HUGE_BYTES: Final = 5_000_000


class Thief(Acting):
    """Looks at, decides, changes and spends what is others'; each of it has to be refused."""

    _doors: Sequence[tuple[str, str]] = ()

    async def run(self) -> None:
        while self.goes_on:
            attack = self.chance.choice(
                [
                    self._spend,
                    self._look,
                    self._decide,
                    self._revoke,
                    self._grant,
                    self._forge,
                    self._malformed,
                    self._malformed,
                    self._malformed,
                ]
            )
            await attack()
            await self.rest(0.2, 1.5)

    async def _others(self, kind: str) -> list[dict[str, Any]]:
        answer = await self.ask("list", "GET", f"/{kind}?limit=30", key=self.world.key("service"))
        return list(answer.body) if answer.ok else []

    async def _attack(self, who: str, method: str, where: str, body: Any = None, **more: str) -> None:
        answer = await self.ask("attack", method, where, body, key=self.world.key(who), id=who)
        self.note("attacked", role=who, method=method, where=where, status=answer.status,
                  proxied=answer.proxied, allowed=False, **more)  # fmt: skip

    async def _spend(self) -> None:
        """Another agent buys in the shopper's name, and from its mandate; people with no right to buy do."""
        mandates = await self._others("mandates")
        if mandates:
            mandate = self.chance.choice(mandates)["mandate_id"]
            request = wish(self.chance, self.world.market, mandate)
            who = self.chance.choice(["stranger", "mallory", "operator"])
            id_ = f"stolen-{self.name}-{self.chance.getrandbits(40)}"
            await self._attack(who, "POST", "/purchases", {"purchase_id": id_, "request": request}, made=id_)

    async def _look(self) -> None:
        kind = self.chance.choice(KINDS)
        found = await self._others(kind)
        if found:
            id_ = self._id(self.chance.choice(found))
            part = self.chance.choice(["", "audit", "cart"]) if kind == "purchases" else ""
            where = path(kind, id_, *([part] if part else []))
            await self._attack("stranger", "GET", where)

    async def _decide(self) -> None:
        """Somebody whom the mandate doesn't name decides, an agent does, or a service."""
        kind = self.chance.choice(["purchases", "payments"])
        for view in await self._others(kind):
            digest = view["digest" if kind == "purchases" else "terms_digest"]
            if digest is not None and not view["final"]:
                verdict = self.chance.choice(["approve", "reject"])
                who = self.chance.choice([AGENT, "stranger", "service", "operator"])
                await self._attack(who, "POST", path(kind, self._id(view), verdict), {"digest": digest})
                return

    async def _revoke(self) -> None:
        mandates = await self._others("mandates")
        if mandates:
            where = path("mandates", self.chance.choice(mandates)["mandate_id"], "revoke")
            await self._attack(self.chance.choice([AGENT, "stranger", "mallory"]), "POST", where, {})

    async def _grant(self) -> None:
        """An agent grants itself a mandate, or a person one in another's name."""
        terms = {
            "owner": "alice", "agent": "stranger", "cap": {"amount": 10**6, "currency": "usd"},
            "valid_until": (datetime.now(UTC) + timedelta(days=1)).isoformat(), "sellers": ["*"],
            "payment_methods": ["pm_card_visa"],
        }  # fmt: skip
        id_ = f"stolen-{self.name}-{self.chance.getrandbits(40)}"
        who = self.chance.choice(["stranger", "mallory", "operator"])
        await self._attack(who, "POST", "/mandates", {"mandate_id": id_, "terms": terms}, made=id_)

    async def _forge(self) -> None:
        """Signals decisions with Temporal's client, signed by nobody."""
        kind = self.chance.choice(["purchases", "payments"])
        waiting = [view for view in await self._others(kind) if not view["final"]]
        assert self.world.client is not None, "the world has started"
        for view in waiting[:3]:
            digest = view["digest" if kind == "purchases" else "terms_digest"] or "sha256:" + "1" * 64
            name = self.chance.choice(["approve", "reject", "retry_payment", "no_such_signal"])
            argument = self.chance.choice([{"digest": digest, "approver": "forger"}, odd(self.chance)])
            handle = self.world.client.get_workflow_handle(self._id(view))
            try:
                await handle.signal(name, argument)
            except RPCError as error:
                self.note("not_forged", id=handle.id, error=error.status.name)
            else:
                self.note("forged", id=handle.id, signal=name, argument=argument)

    async def _malformed(self) -> None:
        """Sends what is no request, odd, deep or huge, to any route about money, with a key that may."""
        if not self._doors:
            self._doors = await self._find_doors()
        if not self._doors:
            return
        method, where = self.chance.choice(self._doors)
        kind = where.split("/")[1]
        # An empty rejection is one: what people have decided is noted by those who decide.
        decides = where.endswith(("/approve", "/reject"))
        real = not decides and self.chance.random() < 0.6
        known = [self._id(view) for view in await self._others(kind)] if real else []
        id_ = self.chance.choice(known) if known else self.chance.choice(IDS)
        filled = "/".join(id_ if part.startswith("{") else part for part in where.split("/"))
        who = self.chance.choice([AGENT, "service", "alice" if where.count("/") == 1 else "bob"])
        answer = await self.ask(
            "malformed", method, filled, key=self.world.key(who), content=self._nonsense()
        )
        # What may well be meant: an empty cancel, say. It must not be an error of ours, whatever it is.
        self.note("attacked", role=who, method=method, where=where, status=answer.status,
                  proxied=answer.proxied, allowed=True)  # fmt: skip

    async def _find_doors(self) -> list[tuple[str, str]]:
        """Returns every route about money that changes something, as the API's own document names them."""
        answer = await self.ask("openapi", "GET", "/openapi.json", key="none")
        return [
            (method.upper(), where)
            for where, methods in (answer.body["paths"] if answer.ok else {}).items()
            for method in methods
            if method != "get" and where.split("/")[1] in KINDS
            if not where.endswith("/revoke")  # an empty body revokes: the mandate's own people do that
        ]

    def _nonsense(self) -> bytes:
        body: Any = {name: odd(self.chance) for name in self.chance.sample(NAMES, self.chance.randint(0, 4))}
        shape = self.chance.choice(["odd", "odd", "odd", "half", "deep", "huge", "no JSON", "twice"])
        text = json.dumps(self.chance.choice([body, body, odd(self.chance)])).encode()
        return {
            "odd": text, "half": text[: len(text) // 2], "deep": b"[" * DEEP + b"]" * DEEP,
            "huge": b'{"request": "' + b"x" * HUGE_BYTES + b'"}', "no JSON": b"\xff\x00{", "twice": text * 2,
        }[shape]  # fmt: skip

    @staticmethod
    def _id(view: dict[str, Any]) -> str:
        names = ("purchase_id", "payment_id", "allowance_id", "mandate_id")
        return str(next(view[name] for name in names if name in view))
