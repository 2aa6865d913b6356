"""Makes a payment token or credential, and finds the one that a call without an answer has made.

The call stays on record from before it leaves until its answer has come, or a refusal after which nothing
exists. Before a payment ends, what is on record is asked for again, patiently: the same call has the same
idempotency key, so it gives what the first one made. That is then closed like any other.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import activities.contract as contract
    import workflows.policies as policies
    from workflows.calls import CallFailure, peer_options

Call = TypeVar("Call")
Minted = TypeVar("Minted")

NEVER_MINTED: Final = frozenset(
    {
        contract.CREDENTIAL_NOT_MINTED,
        contract.REQUEST_INVALID,
        contract.PAYMENT_METHOD_DECLINED,
        contract.PROCESSOR_REFUSED,
    }
)
"""Failures after which nothing exists that anybody could charge."""

PATIENTLY: Final = peer_options(
    policies.MINT_CALL_TIMEOUT, policies.CLOSE_CALL_RETRY, peer="processor", give_up=policies.CLOSE_GIVE_UP
)
"""How what was perhaps made is asked for."""


async def mint(
    call: Call, make: Callable[[Call], Awaitable[Minted]], record: Callable[[Call | None], None]
) -> Minted:
    """Returns what the call makes. ``record`` keeps the call; whoever keeps what was made takes it off.

    Raises:
        CallFailure: nothing was made, or there was no answer; then the call is still on record.
    """
    record(call)
    try:
        return await make(call)
    except CallFailure as failure:
        # Whether it can seal is checked by the activity before it asks for anything.
        if failure.kind in NEVER_MINTED or failure.kind == contract.SEALING_FAILED:
            record(None)
        raise


async def find(call: Call, make: Callable[[Call], Awaitable[Minted]]) -> Minted | None:
    """Returns what a call on record has made; ``None`` if it is certain that it made nothing.

    Raises:
        CallFailure: nobody can say.
    """
    try:
        return await make(call)
    except CallFailure as failure:
        if failure.kind in NEVER_MINTED:
            return None
        raise
