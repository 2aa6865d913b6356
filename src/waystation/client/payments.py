"""Paid requests (HTTP 402) through Waystation's API: makes them, looks at them, decides on them.

>>> async with Client() as client:  # doctest: +SKIP
...     view = await Payments(client).payment("payment-1")
"""

from collections.abc import Mapping
from typing import Final

from waystation.client.client import Client
from waystation.client.paths import path
from waystation.models.payments import AllowanceView, PaidRequestStart, PaidRequestView
from waystation.models.trail import AuditTrail

POLL_SECONDS: Final = 20
"""How long one call waits for a paid request to end; well below the clients' own timeout."""


class Payments:
    """What agents, people and services can do about paid requests; their key decides what they may."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def start(self, start: PaidRequestStart, *, payment_id: str | None = None) -> PaidRequestView:
        """Makes a paid request; the same ``payment_id`` again returns the same one."""
        body = {"payment_id": payment_id, "request": start.model_dump(mode="json")}
        return await self._client.request("POST", "/payments", PaidRequestView, body)

    async def payment(self, payment_id: str, *, wait: bool = False) -> PaidRequestView:
        """Returns it as it stands; with ``wait``, once it is final or some seconds have passed."""
        query = {"wait_seconds": str(POLL_SECONDS)} if wait else None
        return await self._client.request("GET", path("payments", payment_id), PaidRequestView, query=query)

    async def approve(self, payment_id: str, digest: str) -> PaidRequestView:
        """Approves the terms with this digest. Other terms are refused as ``stale-digest``."""
        return await self._post(payment_id, "approve", {"digest": digest})

    async def reject(self, payment_id: str, *, reason: str = "") -> PaidRequestView:
        """Rejects the terms; nothing is paid."""
        return await self._post(payment_id, "reject", {"reason": reason})

    async def cancel(self, payment_id: str, *, reason: str = "") -> PaidRequestView:
        """Stops the paid request, if nothing was sent yet."""
        return await self._post(payment_id, "cancel", {"reason": reason})

    async def audit(self, payment_id: str) -> AuditTrail:
        """Returns every step of a paid request."""
        return await self._client.request("GET", path("payments", payment_id, "audit"), AuditTrail)

    async def allowance(self, allowance_id: str) -> AllowanceView:
        """Returns what is spent and held of an allowance."""
        return await self._client.request("GET", path("allowances", allowance_id), AllowanceView)

    async def allowance_audit(self, allowance_id: str) -> AuditTrail:
        """Returns every payment and step of an allowance."""
        return await self._client.request("GET", path("allowances", allowance_id, "audit"), AuditTrail)

    async def settle(self, allowance_id: str, *, reason: str = "") -> AllowanceView:
        """Ends an allowance: what was spent is committed, the rest is released."""
        return await self._client.request(
            "POST", path("allowances", allowance_id, "settle"), AllowanceView, {"reason": reason}
        )

    async def _post(self, payment_id: str, what: str, body: Mapping[str, object]) -> PaidRequestView:
        return await self._client.request("POST", path("payments", payment_id, what), PaidRequestView, body)
