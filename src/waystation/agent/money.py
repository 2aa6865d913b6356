"""What a turn can do about money: search, buy, fetch.

Ids of purchases and payments come from session, turn and a key, so a turn that is tried again
finds what its first attempt has begun, and never buys or pays twice.
"""

import asyncio
import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Final

from temporalio import activity

from waystation.buyer.networks import read_networks
from waystation.buyer.payer import Paid, Payer
from waystation.buyer.products import FoundProduct, search_products
from waystation.client import Session
from waystation.client.purchases import Buying
from waystation.errors import ConflictError, ConnectionLost, TryLater
from waystation.models.money import Money
from waystation.models.purchases import PurchaseView
from waystation.money_settings import MoneySettings

PAUSE_SECONDS: Final = 1.0
"""Before the API is asked again when it was away."""


class MoneyTurn(ABC):
    """The part of :class:`waystation.agent.Turn` that has to do with money."""

    id: str
    session_id: str
    agent: str
    session: Session
    _bought = 0
    _payers: dict[str, Payer] | None = None
    _money: AsyncExitStack

    @abstractmethod
    async def flush(self) -> None:
        """Waits until everything written so far is durable. Raises when the turn is over."""

    async def search_products(
        self, seller: str, query: str = "", *, feed: str = "catalog", limit: int = 20
    ) -> tuple[FoundProduct, ...]:
        """Products from a seller's feed that match all words of the query.

        >>> found = await turn.search_products("https://shop.example", "red mug")  # doctest: +SKIP
        """
        return await search_products(seller, query, feed=feed, limit=limit)

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
        """Buys ``{item id: quantity}`` and waits for the end: completed, rejected, refused, …

        There is no place for a price: the seller's checkout states it, the mandate bounds it and
        a person approves the cart. ``key`` names the purchase within the turn; by default it is the
        turn's first, second, … one, whatever it is for. ``details`` are further fields of
        ``PurchaseRequest``. If the turn is stopped, a purchase that nobody has approved is canceled; one
        that was approved runs on, and the session tells its end.

        Raises:
            ConflictError: an earlier attempt of the turn bought something else at this place, as can happen
                where several run at once; give each a ``key``.

        >>> view = await turn.buy("https://shop.example", {"mug": 2}, mandate_id="m-1")  # doctest: +SKIP
        """
        self._bought += 1
        purchase_id = self._money_id("buy", key or str(self._bought))
        await self.flush()  # a purchase announces itself: behind what the agent wrote before it
        buying = Buying(self.session.client)
        while True:
            try:
                await buying.buy(
                    mandate_id,
                    seller,
                    items,
                    agent=self.agent,
                    currency=currency,
                    purchase_id=purchase_id,
                    session_id=self.session_id,
                    turn_id=self.id,
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
        """Makes a request and pays for it if it must be paid for (HTTP 402), up to ``max_price``.

        The same request in the same turn is paid once and gives its answer again; give a ``key`` to
        pay for it anew. Raises :class:`waystation.buyer.payer.PaymentRefusedError`.

        >>> paid = await turn.fetch(url, max_price=Money(amount=50, currency="usd"), mandate_id="m-1")
        ... # doctest: +SKIP
        """
        same = key or [method, url, hashlib.sha256(content).hexdigest()]
        payer = await self._payer(mandate_id)
        return await payer.fetch(
            url,
            max_price=max_price,
            method=method,
            headers=headers,
            content=content,
            payment_id=self._money_id("pay", same),
        )

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
        """Reserves a budget for one seller, for many small payments by :meth:`fetch` within the block.

        The same seller in the same turn is the same allowance, also when the turn is tried again;
        give a ``key`` for another one.

        >>> async with turn.allowance(api, budget=dollars, max_price=cents, mandate_id="m-1"):
        ...     paid = await turn.fetch(url, max_price=cents, mandate_id="m-1")  # doctest: +SKIP
        """
        payer = await self._payer(mandate_id)
        async with payer.allowance(
            seller,
            budget=budget,
            max_price=max_price,
            lifetime=lifetime,
            allowance_id=self._money_id("allowance", key or [seller]),
        ) as allowance_id:
            yield allowance_id

    async def _payer(self, mandate_id: str) -> Payer:
        """One for each mandate of the turn. With the keys to pay it makes an allowance's payments itself."""
        if self._payers is None:
            self._payers, self._money = {}, AsyncExitStack()
        payer = self._payers.get(mandate_id)
        if payer is None:
            settings = MoneySettings()
            payer = self._payers[mandate_id] = Payer(
                activity.client(),
                mandate_id=mandate_id,
                agent=self.agent,
                session_id=self.session_id,
                turn_id=self.id,
                allowed_networks=read_networks(settings.allowed_networks),
                **await self._means(settings),
            )
            self._money.push_async_callback(payer.close)
        return payer

    async def _means(self, settings: MoneySettings) -> dict[str, Any]:
        """What this process has to pay with by itself; nothing where it holds no keys."""
        try:
            from waystation.buyer.allowance.journal import AllowanceJournal
            from waystation.buyer.credentials import open_credentials
        except ImportError:  # the payment libraries come with the extra 'seller'
            return {}
        credentials = await open_credentials(settings, self._money)
        if not credentials.can_pay:
            return {}
        codec = activity.client().data_converter.payload_codec
        journal = AllowanceJournal(settings.allowance_journal, codec)
        self._money.push_async_callback(journal.close)
        return {"credentials": credentials, "journal": journal}

    async def close_payments(self) -> None:
        """Closes the connections of the turn's payments."""
        if self._payers is not None:
            await self._money.aclose()

    def _money_id(self, kind: str, key: str | list[str]) -> str:
        """Never from the attempt: a retry must find what was begun."""
        parts = json.dumps([self.session_id, self.id, kind, key])
        return f"{kind}-{hashlib.sha256(parts.encode()).hexdigest()[:40]}"
