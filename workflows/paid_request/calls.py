"""The activities of a paid request, each with its timeouts and retries."""

from typing import Final

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import activities.contract as contract
    import workflows.policies as policies
    from activities.contract import CloseCall, PaidRequestCalls, ReadOffers, RedeemCall
    from waystation.models.payments import (
        ClosedCredential,
        MintCall,
        PaidHttpRequest,
        ProbeAnswer,
        RedeemAnswer,
        SealedCredential,
    )
    from workflows.calls import call_options, durable, quick, settle
    from workflows.minting import PATIENTLY

PROBE: Final = call_options(
    policies.PROBE_CALL_TIMEOUT,
    policies.PROBE_CALL_RETRY,
    silence=contract.SELLER_UNAVAILABLE,
    heartbeat=policies.PAID_REQUEST_HEARTBEAT,
)
MINT: Final = call_options(
    policies.MINT_CALL_TIMEOUT,
    policies.MINT_CALL_RETRY,
    silence=contract.PROCESSOR_UNAVAILABLE,
    heartbeat=policies.PAID_REQUEST_HEARTBEAT,
)
REDEEM: Final = call_options(
    policies.REDEEM_CALL_TIMEOUT,
    policies.REDEEM_CALL_RETRY,
    silence=contract.SELLER_UNAVAILABLE,
    heartbeat=policies.PAID_REQUEST_HEARTBEAT,
)
LATE_REDEEM: Final = call_options(
    policies.REDEEM_CALL_TIMEOUT,
    policies.LATE_REDEEM_RETRY,
    silence=contract.SELLER_UNAVAILABLE,
    heartbeat=policies.PAID_REQUEST_HEARTBEAT,
)
CLOSE: Final = call_options(
    policies.CLOSE_CALL_TIMEOUT,
    policies.CLOSE_CALL_RETRY,
    silence=contract.PROCESSOR_UNAVAILABLE,
    heartbeat=policies.PAID_REQUEST_HEARTBEAT,
    give_up=policies.CLOSE_GIVE_UP,
)


async def read_offers(call: ReadOffers) -> ProbeAnswer:
    """Returns the offers in an answer that the caller already has."""
    return await settle(
        workflow.execute_local_activity_method(
            PaidRequestCalls.read_payment_offers,
            call,
            start_to_close_timeout=policies.READ_OFFERS_TIMEOUT,
            retry_policy=policies.READ_OFFERS_RETRY,
        ),
        silence=contract.HOUSE_UNAVAILABLE,
    )


async def probe(request: PaidHttpRequest) -> ProbeAnswer:
    """Asks the server without paying."""
    return await durable(PaidRequestCalls.probe_paid_resource, request, PROBE)


async def mint(call: MintCall) -> SealedCredential:
    """Mints a credential."""
    return await durable(PaidRequestCalls.mint_payment_credential, call, MINT)


async def mint_patiently(call: MintCall) -> SealedCredential:
    """Mints a credential, however long that takes; see ``workflows.minting``."""
    return await durable(PaidRequestCalls.mint_payment_credential, call, PATIENTLY)


async def mint_at_once(call: MintCall) -> SealedCredential:
    """Mints a credential within the task where that is possible, which spares a round trip.

    What it made is in the history before the next step begins. It may run twice, so nothing in the call may
    come from the clock of the task.
    """
    return await quick(PaidRequestCalls.mint_payment_credential, call, MINT)


async def redeem(call: RedeemCall, *, patiently: bool = False) -> RedeemAnswer:
    """Sends a credential; ``patiently`` where money has moved and the answer is owed."""
    return await durable(
        PaidRequestCalls.redeem_payment_credential, call, LATE_REDEEM if patiently else REDEEM
    )


async def close(call: CloseCall) -> ClosedCredential:
    """Asks processor or chain what became of a credential, and makes it worthless where that is possible."""
    return await durable(PaidRequestCalls.close_payment_credential, call, CLOSE)
