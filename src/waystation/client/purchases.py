"""Mandates and purchases through Waystation's API.

>>> async with Client() as client:  # doctest: +SKIP
...     buying = Buying(client)
...     bought = await buying.buy(mandate_id, "https://shop.example", {"mug": 2}, agent="shopper")
...     view = await buying.wait(bought.purchase_id)
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter

from waystation.client.client import Client
from waystation.client.paths import path
from waystation.errors import ConnectionLost, TryLater
from waystation.models.mandates import MandateTerms, MandateView
from waystation.models.purchases import (
    WAITS_FOR_A_PERSON,
    AgentRef,
    ItemWanted,
    PurchaseRequest,
    PurchaseView,
)
from waystation.models.trail import AuditTrail

POLL_SECONDS: Final = 20
"""How long one request waits for a purchase to end; well below the clients' own timeout."""

PAUSE_SECONDS: Final = 0.5
"""The pause before the API is asked again after it was unreachable."""

_QUANTITIES: TypeAdapter[dict[str, int]] = TypeAdapter(dict[str, int])


class Buying:
    """What agents, people and services can do about money; their key decides what they may."""

    def __init__(self, client: Client) -> None:
        self._client = client

    # Mandates

    async def grant(self, terms: MandateTerms, *, mandate_id: str | None = None) -> MandateView:
        """Grants a mandate; the same ``mandate_id`` again returns the same one."""
        body = {"mandate_id": mandate_id, "terms": terms.model_dump(mode="json")}
        return await self._client.request("POST", "/mandates", MandateView, body)

    async def mandate(self, mandate_id: str) -> MandateView:
        """Returns a mandate's terms and balance."""
        return await self._client.request("GET", path("mandates", mandate_id), MandateView)

    async def revoke(self, mandate_id: str, *, reason: str = "") -> MandateView:
        """Revokes a mandate."""
        return await self._client.request(
            "POST", path("mandates", mandate_id, "revoke"), MandateView, {"reason": reason}
        )

    # Purchases

    async def buy(
        self,
        mandate_id: str,
        seller: str,
        items: Mapping[str, int],
        *,
        agent: str,
        currency: str = "usd",
        purchase_id: str | None = None,
        **details: Any,
    ) -> PurchaseView:
        """Starts a purchase of ``{item id: quantity}``. There is no parameter for a price: sellers state it.

        ``details`` are further fields of ``PurchaseRequest`` (buyer, fulfillment_details, …).
        Pass a ``purchase_id`` to be able to repeat the call safely.
        """
        wanted = tuple(
            ItemWanted(id=item, quantity=n) for item, n in _QUANTITIES.validate_python(items).items()
        )
        request = PurchaseRequest.model_validate(
            {
                "mandate_id": mandate_id,
                "seller": seller,
                "currency": currency,
                "items": wanted,
                "agent": AgentRef(id=agent),
                **details,
            }
        )
        return await self.start(request, purchase_id=purchase_id)

    async def start(self, request: PurchaseRequest, *, purchase_id: str | None = None) -> PurchaseView:
        """Starts a purchase; the same ``purchase_id`` again returns the same one."""
        body = {"purchase_id": purchase_id, "request": request.model_dump(mode="json", exclude_none=True)}
        return await self._client.request("POST", "/purchases", PurchaseView, body)

    async def purchase(self, purchase_id: str) -> PurchaseView:
        """Returns the purchase as it stands."""
        return await self._client.request("GET", path("purchases", purchase_id), PurchaseView)

    async def wait(
        self, purchase_id: str, *, within_seconds: float = 3600, or_for_a_person: bool = False
    ) -> PurchaseView:
        """Returns the purchase once it is final, or as it stands after ``within_seconds``.

        Keeps waiting through lost connections until then. With ``or_for_a_person``, also returns as soon as
        somebody has to do something (approve, authenticate, …).
        """
        deadline = time.monotonic() + within_seconds
        while True:
            left = deadline - time.monotonic()
            query = {
                "wait_seconds": f"{max(min(left, POLL_SECONDS), 0):.3f}",
                "or_for_a_person": str(or_for_a_person).lower(),
            }
            try:
                view = await self._client.request(
                    "GET", path("purchases", purchase_id), PurchaseView, query=query
                )
            except (ConnectionLost, TryLater):
                if left <= 0:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if view.final or left <= 0 or (or_for_a_person and view.status in WAITS_FOR_A_PERSON):
                return view

    async def approve(self, purchase_id: str, digest: str) -> PurchaseView:
        """Approves the cart with this digest. A changed cart is refused as ``stale-digest``."""
        return await self._post(purchase_id, "approve", {"digest": digest})

    async def reject(self, purchase_id: str, *, reason: str = "") -> PurchaseView:
        """Rejects the purchase."""
        return await self._post(purchase_id, "reject", {"reason": reason})

    async def revise(self, purchase_id: str, **changes: object) -> PurchaseView:
        """Changes items, address, fulfillment option or discount codes."""
        return await self._post(purchase_id, "revise", changes)

    async def cancel(self, purchase_id: str, *, reason: str = "") -> PurchaseView:
        """Stops the purchase, if it is not too late."""
        return await self._post(purchase_id, "cancel", {"reason": reason})

    async def audit(self, purchase_id: str) -> AuditTrail:
        """Returns every step of a purchase."""
        return await self._client.request("GET", path("purchases", purchase_id, "audit"), AuditTrail)

    async def _post(self, purchase_id: str, what: str, body: Mapping[str, object]) -> PurchaseView:
        return await self._client.request("POST", path("purchases", purchase_id, what), PurchaseView, body)
