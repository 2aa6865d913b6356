"""Who may see a mandate, purchase, payment or allowance, and what those are told who may not."""

from collections.abc import Callable

from api.auth import Principal
from api.errors import Conflict, Problem
from api.gateways.calls import Wording
from waystation.models.payments import AllowanceView, PaidRequestView
from waystation.models.purchases import PurchaseView


class NotFound(Problem):
    """There is no such mandate or purchase, or the caller may not see it."""

    status, code, title = 404, "not-found", "Not found"


def no_mandate(mandate_id: str) -> NotFound:
    """There is none, or the caller may not see it: the answer is the same, so that nobody can tell."""
    return NotFound(f"There is no mandate '{mandate_id}', or you may not see it.", code="unknown-mandate")


def no_purchase(purchase_id: str) -> NotFound:
    """As ``no_mandate``, of a purchase."""
    return NotFound(f"There is no purchase '{purchase_id}', or you may not see it.", code="unknown-purchase")


def no_payment(payment_id: str) -> NotFound:
    """As ``no_mandate``, of a paid request."""
    return NotFound(f"There is no payment '{payment_id}', or you may not see it.", code="unknown-payment")


def no_allowance(allowance_id: str) -> NotFound:
    """As ``no_mandate``, of an allowance."""
    return NotFound(f"There is no allowance '{allowance_id}', or you may not see it.", code="unknown-payment")


def _unreadable(workflow_id: str) -> Problem:
    return NotFound(f"'{workflow_id}' was encrypted with a key that is no longer set.")


def wording_of(noun: str, unknown: Callable[[str], Problem]) -> Wording:
    return Wording(
        unknown=unknown,
        unreadable=_unreadable,
        ended=lambda: Conflict("It has ended and accepts nothing more.", code="ended"),
        not_taken=f"The {noun} takes no more requests at the moment.",
        no_worker="No worker answered in time; is 'waystation worker' running?",
    )


Spending = PurchaseView | PaidRequestView | AllowanceView


def sees(caller: Principal, view: Spending) -> bool:
    """Whether a caller may see a purchase, payment or allowance: of its sessions and of agents it speaks for.

    Agent and session come from the workflow itself, never from a memo, which whoever starts it may write.
    """
    agent: str | None
    if isinstance(view, PurchaseView):
        agent, session_id = view.request.agent.id, view.request.session_id
    else:
        agent, session_id = view.agent, view.session_id
    if caller.sessions is not None and session_id not in caller.sessions:
        return False
    return caller.role != "agent" or (agent is not None and caller.speaks_for(agent))
