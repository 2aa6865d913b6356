"""Gives a charge back where the paid answer is an error, if the route was declared so."""

import logging
from collections.abc import Callable

from waystation.seller.paywall.entries import Entry, Refund
from waystation.seller.paywall.rails import RefundingRail, SellerRail

RefundRule = Callable[[int], bool]
"""Whether an answer with this status gives the money back."""

logger = logging.getLogger(__name__)


def never(_: int) -> bool:
    """A charge stays a charge, whatever the answer."""
    return False


def on_client_error(status: int) -> bool:
    """An answer from 400 to 499 gives the money back. (What says "not now" is no answer and runs again.)"""
    return 400 <= status < 500


async def give_back(rail: SellerRail | None, entry: Entry) -> Refund | None:
    """Refunds a charge, once, however often it is called; None if that isn't certain yet."""
    if not isinstance(rail, RefundingRail):
        logger.warning("%s can't refund challenge %s; see refunds_due()", entry.rail, entry.challenge_id)
        return None
    try:
        return await rail.refund(entry)
    except Exception:  # asked again by reconcile(), with the same key
        logger.exception("refunding challenge %s failed", entry.challenge_id)
        return None
