"""Which status of an ACP checkout may follow which."""

from collections.abc import Mapping
from typing import Final

from waystation.models.commerce import (
    CheckoutStatus,
)

_OPEN = frozenset(
    {CheckoutStatus.INCOMPLETE, CheckoutStatus.NOT_READY_FOR_PAYMENT, CheckoutStatus.READY_FOR_PAYMENT}
)
_COMPLETING = frozenset({CheckoutStatus.COMPLETE_IN_PROGRESS, CheckoutStatus.IN_PROGRESS})
_ALWAYS = frozenset({CheckoutStatus.REQUIRES_ESCALATION, CheckoutStatus.CANCELED, CheckoutStatus.EXPIRED})
_PAYING = _COMPLETING | {
    CheckoutStatus.AUTHENTICATION_REQUIRED,
    CheckoutStatus.PENDING_APPROVAL,
    CheckoutStatus.COMPLETED,
}

TRANSITIONS: Final[Mapping[CheckoutStatus, frozenset[CheckoutStatus]]] = {
    CheckoutStatus.INCOMPLETE: _OPEN | _ALWAYS,
    CheckoutStatus.NOT_READY_FOR_PAYMENT: _OPEN | _ALWAYS,
    CheckoutStatus.READY_FOR_PAYMENT: _OPEN | _PAYING | _ALWAYS,
    # An edited cart or a failed authentication leads back to an open status.
    CheckoutStatus.AUTHENTICATION_REQUIRED: _OPEN | _PAYING | _ALWAYS,
    CheckoutStatus.PENDING_APPROVAL: _OPEN | _PAYING | _ALWAYS,
    CheckoutStatus.REQUIRES_ESCALATION: _OPEN | _PAYING | _ALWAYS,
    # A decline leads back to ready_for_payment, and sellers do cancel while completing.
    CheckoutStatus.COMPLETE_IN_PROGRESS: _PAYING | {CheckoutStatus.READY_FOR_PAYMENT} | _ALWAYS,
    CheckoutStatus.IN_PROGRESS: _PAYING | {CheckoutStatus.READY_FOR_PAYMENT} | _ALWAYS,
    CheckoutStatus.COMPLETED: frozenset(),
    CheckoutStatus.CANCELED: frozenset(),
    CheckoutStatus.EXPIRED: frozenset(),
}
"""Which status may come directly after which. The specification publishes no table; this one is ours.

Staying in a status is always allowed. Someone who only polls may miss steps: see ``may_be_seen_after``.
"""


def may_be_seen_after(before: CheckoutStatus, after: CheckoutStatus) -> bool:
    """Returns whether a reader who saw ``before`` may see ``after`` next, having missed steps in between."""
    seen, frontier = {before}, [before]
    while frontier:
        for following in TRANSITIONS[frontier.pop()] - seen:
            seen.add(following)
            frontier.append(following)
    return after in seen
