"""Who grants and decides: principals, approvers who decide at any time and in any way, and meddlers."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.torture.actors.base import Acting, Answer
from tests.torture.actors.spenders import Spender
from tests.torture.market import AGENT
from waystation.client.paths import path

WATCH_SECONDS: Final = 0.7
NO_DIGEST: Final = "sha256:" + "0" * 64


class Principal(Spender):
    """Grants a mandate, watches what it holds all the time, and perhaps revokes it in the middle."""

    async def run(self) -> None:
        settings, market = self.actor.settings, self.world.market
        assert market is not None, "principals take part where there is a market"
        owner = settings["terms"]["owner"]
        terms = {
            **settings["terms"],
            "agent": AGENT,
            "sellers": [market.seller(name) for name in settings["sellers"]],
            "valid_until": (datetime.now(UTC) + timedelta(seconds=settings["valid_seconds"])).isoformat(),
        }
        body = {"mandate_id": self.mandate, "terms": terms}
        key = self.world.key(owner)
        if not (await self.insist("grant", "POST", "/mandates", body, key=key, id=self.mandate)).ok:
            return
        revokes_at = time.monotonic() + settings["revoke_after_seconds"] if settings["revokes"] else None
        while self.goes_on or not self.calm.is_set():
            if revokes_at is not None and time.monotonic() > revokes_at:
                revokes_at = None
                where = path("mandates", self.mandate, "revoke")
                await self.insist("revoke", "POST", where, {"reason": "enough"}, key=key, id=self.mandate)
            answer = await self.ask("balance", "GET", path("mandates", self.mandate), key=key)
            if answer.ok:
                self._note_balance(answer.body)
            await asyncio.sleep(WATCH_SECONDS)

    def _note_balance(self, view: dict[str, Any]) -> None:
        self.note(
            "held",
            mandate=self.mandate,
            status=view["status"],
            payments=view["payments"],
            cap=view["terms"]["cap"]["amount"],
            **{name: view[name]["amount"] for name in ("spent", "reserved", "refunded", "left")},
        )


class Approver(Acting):
    """Decides what waits: at once or late, on what is shown or on something else, once or twice."""

    async def run(self) -> None:
        while self.goes_on:
            for kind, digest in (("purchases", "digest"), ("payments", "terms_digest")):
                where = f"/{kind}?waiting=true&limit=50"
                listed = await self.ask("list", "GET", where, key=self._key)
                for view in listed.body if listed.ok else ():
                    if view[digest] is not None and self.chance.random() < 0.7:
                        await self._decide(kind, view, view[digest])
            await self.rest(0.3, 2.5)

    @property
    def _who(self) -> str:
        return str(self.actor.settings["who"])

    @property
    def _key(self) -> str:
        return self.world.key(self._who)

    async def _decide(self, kind: str, view: dict[str, Any], digest: str) -> None:
        manner = self.chance.choices(
            ["approve", "reject", "stale", "twice", "both", "late"], [60, 8, 8, 8, 8, 8]
        )[0]
        if manner == "late":
            await self.rest(1, 8)
        if manner == "stale":
            await self._say("approve", kind, view, NO_DIGEST)
        elif manner == "reject":
            await self._say("reject", kind, view, self.chance.choice([digest, None]))
        elif manner == "both":
            await asyncio.gather(
                self._say("approve", kind, view, digest), self._say("reject", kind, view, digest)
            )
        else:
            times = 2 if manner == "twice" else 1
            await asyncio.gather(*(self._say("approve", kind, view, digest) for _ in range(times)))

    async def _say(self, verdict: str, kind: str, view: dict[str, Any], digest: str | None) -> None:
        id_ = view["purchase_id" if kind == "purchases" else "payment_id"]
        body = {} if digest is None else {"digest": digest}
        answer = await self.ask("decide", "POST", path(kind, id_, verdict), body, key=self._key, id=id_)
        self._note_decision(answer, id=id_, kind=kind, verdict=verdict, digest=digest, total=_total(view))

    def _note_decision(self, answer: Answer, **what: Any) -> None:
        code = answer.body.get("code") if answer.status and answer.status >= 400 and answer.body else None
        status = answer.status if not answer.proxied else None
        self.note("decided", who=self._who, status=status, code=code, definite=answer.definite, **what)


def _total(view: dict[str, Any]) -> int | None:
    """Returns the amount that the approver is shown."""
    shown: int | None = None
    if view.get("cart"):
        shown = view["cart"]["total"]
    elif view.get("offer"):
        shown = view["offer"]["price"]["amount"]
    return shown


class Meddler(Spender):
    """Revises, cancels, retries and reports authentications, of any purchase of a mandate at any moment."""

    async def run(self) -> None:
        if not await self.granted():
            return
        while self.goes_on:
            listed = await self.ask("list", "GET", "/purchases?limit=50", key=self.world.key("service"))
            for view in listed.body if listed.ok else ():
                mine = view["request"]["mandate_id"] == self.mandate
                if mine and not view["final"] and self.chance.random() < 0.35:
                    await self._meddle(view)
            await self.rest(0.5, 4)

    async def _meddle(self, view: dict[str, Any]) -> None:
        purchase = view["purchase_id"]
        what = self.chance.choice(["revise", "cancel", "retry", "authentication"])
        key = self.world.key("alice" if what == "retry" else "service" if what == "authentication" else AGENT)
        bodies: dict[str, dict[str, Any]] = {
            "revise": {"items": [{"id": "ebook_tides", "quantity": self.chance.choice([1, 2])}]},
            "cancel": {"reason": f"canceled by {self.name}"},
            "retry": {},
            "authentication": {"outcome": "denied"},
        }
        await self.ask(what, "POST", path("purchases", purchase, what), bodies[what], key=key, id=purchase)
