"""How something is shown whose workflow was ended in Temporal (terminated, say) while it went on.

Nothing more will come of it, and what its workflow said last would have people wait for it.
"""

from typing import Final

from waystation.models.base import replaced
from waystation.models.decisions import Refusal
from waystation.models.mandates import MandateView
from waystation.models.payments import AllowanceView, PaidRequestView, PaymentRefusal
from waystation.models.purchases import Charge, PurchaseStatus, PurchaseView
from workflows.refusals import ENDED_IN_TEMPORAL

_MAY_CHARGE: Final[frozenset[PurchaseStatus]] = frozenset({"paying", "authentication_required", "confirming"})
_WHY: Final = "its workflow was ended in Temporal; see there by whom"


def ended_mandate(view: MandateView) -> MandateView:
    """Shows it as revoked: nothing is reserved from it any more."""
    if view.status not in ("pending", "active"):
        return view
    return replaced(view, status="revoked", revoked_because=_WHY)


def ended_purchase(view: PurchaseView) -> PurchaseView:
    """Shows it as failed; if the seller may have a token that it can still charge, the charge as unknown."""
    if view.final:
        return view
    refusal = Refusal(rule=ENDED_IN_TEMPORAL, message=_WHY)
    ended = replaced(view, status="failed", final=True, waits_for_a_person=False, refusal=refusal)
    may_be_charged = view.payment_tries > 0 or view.status in _MAY_CHARGE
    known = view.charge is not None and view.charge.status in ("captured", "nothing")
    if known or not may_be_charged:
        return ended
    refusal = Refusal(rule=ENDED_IN_TEMPORAL, message=f"{_WHY}. Money may have moved: ask the processor")
    return replaced(ended, charge=Charge(status="unknown"), refusal=refusal)


def ended_payment(view: PaidRequestView) -> PaidRequestView:
    """Shows it as failed, or as unknown if there was a credential that may have been used."""
    if view.final:
        return view
    unsent = view.credential_fingerprint is None
    return replaced(
        view,
        status="failed" if unsent else "unknown",
        final=True,
        money_moved=view.money_moved if unsent or view.money_moved == "yes" else "unknown",
        refusal=PaymentRefusal(rule=ENDED_IN_TEMPORAL, message=_WHY),
    )


def ended_allowance(view: AllowanceView) -> AllowanceView:
    """Shows it as closed."""
    if not view.open:
        return view
    return replaced(view, open=False, refusal=PaymentRefusal(rule=ENDED_IN_TEMPORAL, message=_WHY))
