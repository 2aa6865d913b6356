"""A turn's purse: search, buy, fetch.

The ids of purchases and paid requests derive from session, turn and a key, so a turn that is tried again
finds what its first attempt began, and never buys or pays twice.
"""

import asyncio
import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from temporalio import activity

from waystation.agent.steps import place_of_counting
from waystation.buyer.networks import read_networks
from waystation.buyer.outcomes import ID_TAKEN, KEY_REUSED
from waystation.buyer.payer import Paid, Payer, PaymentRefusedError
from waystation.buyer.products import FoundProduct, search_products
from waystation.client import Session
from waystation.client.purchases import Buying
from waystation.errors import ConflictError, ConnectionLost, TryLater
from waystation.models.money import Money
from waystation.models.payments import telling_headers
from waystation.models.purchases import PurchaseView
from waystation.settings import Settings

if TYPE_CHECKING:
    from waystation.buyer.allowance.journal import AllowanceJournal
    from waystation.buyer.credentials import Credentials

PAUSE_SECONDS: Final = 1.0
"""The pause before the API is asked again after it was unreachable."""


@dataclass(frozen=True)
class Spender:
    """The turn and agent that a purse spends for."""

    session_id: str
    turn_id: str
    agent: str


class Purse:
    """What a turn spends with: opened by the first payment, closed when the turn is over.

    Args:
        spender: whose payments these are; their ids derive from it.
        session: where purchases are started, and announced.
        settle: completes what the turn has written and waits until it is durable, so that a payment stands
            after it.
        settings: what this process can pay with, and where payments may go.
        comes_back: says of what ended the turn's code whether another attempt goes on with what it has begun;
            allowances stay open for it.
    """

    def __init__(
        self,
        spender: Spender,
        session: Session,
        settle: Callable[[], Awaitable[None]],
        settings: Settings,
        comes_back: Callable[[BaseException], bool],
    ) -> None:
        self._spender, self._session, self._settle, self._settings = spender, session, settle, settings
        self._comes_back = comes_back
        self._bought: Counter[str] = Counter()
        self._allowances: Counter[str] = Counter()
        self._terms: dict[str, list[object]] = {}
        self._payers: dict[str, Payer] = {}
        self._opening = asyncio.Lock()
        self._opened = AsyncExitStack()

    async def search_products(
        self, seller: str, query: str = "", *, feed: str = "catalog", limit: int = 20
    ) -> tuple[FoundProduct, ...]:
        """See ``Turn.search_products``."""
        return await search_products(seller, query, feed=feed, limit=limit, settings=self._settings.money)

    async def buy(
        self,
        seller: str,
        items: Mapping[str, int],
        *,
        mandate_id: str,
        currency: str = "usd",
        key: str | None = None,
        **details: Any,
    ) -> PurchaseView:
        """See ``Turn.buy``."""
        place = place_of_counting()
        self._bought[place] += 1
        purchase_id = self._money_id("buy", key or f"{place}{self._bought[place]}")
        await self._settle()
        buying = Buying(self._session.client)
        while True:
            try:
                await buying.buy(
                    mandate_id,
                    seller,
                    items,
                    agent=self._spender.agent,
                    currency=currency,
                    purchase_id=purchase_id,
                    session_id=self._spender.session_id,
                    turn_id=self._spender.turn_id,
                    **details,
                )
                view = await buying.wait(purchase_id)
                while not view.final:
                    view = await buying.wait(purchase_id)
            except (ConnectionLost, TryLater):
                await asyncio.sleep(PAUSE_SECONDS)
            except ConflictError as conflict:
                if conflict.code != "id-taken":
                    raise
                raise ConflictError(
                    conflict.status,
                    conflict.code,
                    "An earlier attempt of this turn bought something else at this place; "
                    "give each purchase of a turn its own 'key', as in turn.buy(…, key='mugs').",
                ) from conflict
            else:
                return view

    async def fetch(
        self,
        url: str,
        *,
        max_price: Money,
        mandate_id: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        key: str | None = None,
    ) -> Paid:
        """See ``Turn.fetch``."""
        same = [method, url, hashlib.sha256(content).hexdigest()]
        # What a retry finds depends on the order of different terms, never on the terms themselves: one that
        # comes with another limit than its first attempt is told so, rather than paying a second time.
        terms = (mandate_id, max_price, telling_headers((headers or {}).items()))
        place = key or _numbered(same, self._place(same, terms))
        payer = await self._payer(mandate_id)
        try:
            return await payer.fetch(
                url,
                max_price=max_price,
                method=method,
                headers=headers,
                content=content,
                payment_id=self._money_id("pay", place),
            )
        except PaymentRefusedError as refused:
            raise _in_a_turn(refused, "fetch", "give each paid request of a turn") from None

    def _place(self, same: list[str], terms: object) -> int:
        """Returns which payment for one request this is in the turn: the one on its first terms, second, …"""
        known = self._terms.setdefault(json.dumps(same), [])
        if terms not in known:
            known.append(terms)
        return known.index(terms) + 1

    @contextlib.asynccontextmanager
    async def allowance(
        self,
        seller: str,
        *,
        budget: Money,
        max_price: Money,
        mandate_id: str,
        lifetime: timedelta = timedelta(hours=1),
        key: str | None = None,
    ) -> AsyncIterator[str]:
        """See ``Turn.allowance``."""
        within = place_of_counting()
        counted = [seller, within] if within else [seller]
        if key is None:
            self._allowances[json.dumps(counted)] += 1
        place = key or _numbered(counted, self._allowances[json.dumps(counted)])
        payer = await self._payer(mandate_id)
        opened = payer.allowance(
            seller,
            budget=budget,
            max_price=max_price,
            lifetime=lifetime,
            allowance_id=self._money_id("allowance", place),
        )
        async with AsyncExitStack() as block:
            try:
                allowance_id = await block.enter_async_context(opened)
            except PaymentRefusedError as refused:
                raise _in_a_turn(refused, "allowance", "give each allowance of a turn") from None
            yield allowance_id

    async def _payer(self, mandate_id: str) -> Payer:
        """Returns the turn's payer for a mandate; with keys to pay, it makes allowances' payments itself."""
        async with self._opening:  # of two calls at once, both pay from one allowance
            return self._payers.get(mandate_id) or await self._new_payer(mandate_id)

    async def _new_payer(self, mandate_id: str) -> Payer:
        credentials, journal = await self._means()
        payer = self._payers[mandate_id] = Payer(
            activity.client(),
            mandate_id=mandate_id,
            agent=self._spender.agent,
            session_id=self._spender.session_id,
            turn_id=self._spender.turn_id,
            allowed_networks=read_networks(self._settings.money.allowed_networks),
            credentials=credentials,
            journal=journal,
            before_announcing=self._settle,
            comes_back=self._comes_back,
        )
        self._opened.push_async_callback(payer.close)
        return payer

    async def _means(self) -> "tuple[Credentials, AllowanceJournal] | tuple[None, None]":
        """Returns what this process can pay with itself; nothing if it holds no keys."""
        try:
            from waystation.buyer.allowance.journal import AllowanceJournal
            from waystation.buyer.credentials import open_credentials
        except ImportError:  # the payment libraries come with the extra 'payments'
            return None, None
        credentials = await open_credentials(self._settings, self._opened)
        if not credentials.can_pay:
            return None, None
        codec = activity.client().data_converter.payload_codec
        journal = AllowanceJournal(self._settings.money.allowance_journal, codec)
        self._opened.push_async_callback(journal.close)
        return credentials, journal

    async def close(self) -> None:
        """Closes the connections of the turn's payments."""
        await self._opened.aclose()

    def _money_id(self, kind: str, key: str | list[str]) -> str:
        """Returns an id that doesn't depend on the attempt: a retry must find what was begun."""
        parts = json.dumps([self._spender.session_id, self._spender.turn_id, kind, key])
        return f"{kind}-{hashlib.sha256(parts.encode()).hexdigest()[:40]}"


def _numbered(same: list[str], number: int) -> list[str]:
    """Returns the key of the first, second, … of its kind in a turn."""
    return same if number == 1 else [*same, str(number)]


def _in_a_turn(refused: PaymentRefusedError, call: str, each: str) -> PaymentRefusedError:
    """Returns a refusal as an author can act on it, whom the ids of payments and allowances say nothing."""
    if refused.rule not in (ID_TAKEN, KEY_REUSED):
        return refused
    return PaymentRefusedError(
        refused.rule,
        "An earlier attempt of this turn, or another call with this key, began something else at this place; "
        f"{each} its own 'key', as in turn.{call}(…, key='rain').",
        refused.money_moved,
        refused.payment_id,
    )
