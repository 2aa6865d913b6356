"""Payers' names for their payments: a second payment under a name is not charged.

A name is an x402 ``payment-identifier``, or an ``Idempotency-Key`` together with the request it came with.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Final

import rfc8785

from waystation.seller.paywall.asking import TurnedAway
from waystation.seller.paywall.entries import Entry, EntryState
from waystation.seller.paywall.journal import Journal

MAX_IDEMPOTENCY_KEY_CHARACTERS: Final = 255
CLAIMING_SECONDS: Final = 30
"""A name is written before its payment. If that is still missing after so long, its writer has died."""


def identifier_name(identifier: str, payer: str) -> str:
    """Returns the journal's key for an x402 ``payment-identifier``. Payers share no names."""
    return f"name:{payer}:{identifier}"


def idempotency_name(key: str, scope: str, payer: str | None) -> str:
    """Returns the journal's key for an ``Idempotency-Key`` of a request, by its scope's digest.

    Raises:
        TurnedAway: The key is unusable.
    """
    if not 0 < len(key) <= MAX_IDEMPOTENCY_KEY_CHARACTERS:
        detail = f"An Idempotency-Key has 1 to {MAX_IDEMPOTENCY_KEY_CHARACTERS} characters."
        raise TurnedAway("idempotency-key-invalid", 400, detail)
    digest = hashlib.sha256(rfc8785.dumps([scope, "" if payer is None else payer, key])).hexdigest()
    return f"idempotency:{digest}"


class Names:
    """Keeps names, each for one payment until that is refused."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def keep(self, name: str, payment: Entry) -> Entry | None:
        """Gives a payment its name. Returns the other payment that has it already, or None.

        Raises:
            TurnedAway: Another payment is being written down under the name at this moment.
        """
        if await self._journal.insert(payment.named(name)):
            return None
        known = await self._journal.load(name)
        if known is None or known.fingerprint == payment.fingerprint:
            return None
        other = await self._journal.load(known.key if known.names is None else known.names)
        if other is not None and other.state is not EntryState.REFUSED:
            return other
        settled = other is not None or known.created_at + _CLAIMING < datetime.now(UTC)
        if settled and await self._journal.replace(known.renamed(payment)):
            return None
        detail = "Another payment for this is being made. Send the same request again."
        raise TurnedAway("payment-in-progress", 409, detail, {"retry-after": "2"})


_CLAIMING: Final = timedelta(seconds=CLAIMING_SECONDS)
