"""The activities of a paid request, each with its timeouts and retries."""

from dataclasses import replace
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
    from workflows.calls import Detail, PeerCall, call_options, once_local, peer_options
    from workflows.minting import PATIENTLY
    from workflows.paid_request.journal import PaymentJournal, offer_facts

MAX_UNUSABLE_NOTED: Final = 10
"""Of the reasons why offers can't be taken, as many as the trail keeps."""
_HEARTBEAT: Final = policies.PAID_REQUEST_HEARTBEAT

CLOSE: Final = peer_options(
    policies.CLOSE_CALL_TIMEOUT,
    policies.CLOSE_CALL_RETRY,
    peer="processor",
    heartbeat=_HEARTBEAT,
    give_up=policies.CLOSE_GIVE_UP,
)
_READ: Final = call_options(
    policies.READ_OFFERS_TIMEOUT, policies.READ_OFFERS_RETRY, silence=contract.HOUSE_UNAVAILABLE
)
_PROBE: Final = PeerCall(
    method=PaidRequestCalls.probe_paid_resource,
    options=peer_options(
        policies.PROBE_CALL_TIMEOUT, policies.PROBE_CALL_RETRY, peer="server", heartbeat=_HEARTBEAT
    ),
    answered="server.probed",
    failed="server.unreachable",
)
_MINT: Final = PeerCall(
    method=PaidRequestCalls.mint_payment_credential,
    options=peer_options(
        policies.MINT_CALL_TIMEOUT, policies.MINT_CALL_RETRY, peer="processor", heartbeat=_HEARTBEAT
    ),
    answered="credential.minted",
    failed="credential.mint_failed",
)
_MINT_ONCE_LOCAL: Final = replace(_MINT, once_local=True)
_FIND_MINTED: Final = replace(
    _MINT,
    options=PATIENTLY,
    answered="credential.found",
    failed="credential.unclear",
)
_REDEEM: Final = PeerCall(
    method=PaidRequestCalls.redeem_payment_credential,
    options=peer_options(
        policies.REDEEM_CALL_TIMEOUT, policies.REDEEM_CALL_RETRY, peer="server", heartbeat=_HEARTBEAT
    ),
    asked="credential.sent",
    answered="server.answered",
    failed="server.silent",
)
_REDEEM_LATE: Final = replace(
    _REDEEM,
    options=peer_options(
        policies.REDEEM_CALL_TIMEOUT, policies.LATE_REDEEM_RETRY, peer="server", heartbeat=_HEARTBEAT
    ),
)
_CLOSE: Final = PeerCall(
    method=PaidRequestCalls.close_payment_credential,
    options=CLOSE,
    answered="credential.looked_up",
    failed="credential.unclear",
)


async def read_offers(call: ReadOffers) -> ProbeAnswer:
    """Returns the offers in an answer that the caller already has."""
    return await once_local(PaidRequestCalls.read_payment_offers, call, _READ)


async def probe(journal: PaymentJournal, request: PaidHttpRequest) -> ProbeAnswer:
    """Asks the server without paying."""
    return await _PROBE.make(journal, request, heard=_probed)


async def mint(journal: PaymentJournal, call: MintCall) -> SealedCredential:
    """Mints a credential."""
    return await _MINT.make(journal, call, heard=_minted, about=offer_facts(call.offer))


async def mint_once_local(journal: PaymentJournal, call: MintCall) -> SealedCredential:
    """As ``mint``, where earlier releases minted within the task.

    There the call may be made twice, so nothing in it may come from the clock of the task.
    """
    return await _MINT_ONCE_LOCAL.make(journal, call, heard=_minted, about=offer_facts(call.offer))


async def find_minted(journal: PaymentJournal, call: MintCall) -> SealedCredential:
    """Returns the credential that an unanswered call may have made; see ``workflows.minting``."""
    return await _FIND_MINTED.make(journal, call, heard=_minted, about=offer_facts(call.offer))


async def redeem(journal: PaymentJournal, call: RedeemCall, *, patiently: bool = False) -> RedeemAnswer:
    """Sends a credential; ``patiently`` where money has moved and the answer is owed."""
    about: Detail = {"credential": call.credential.fingerprint, "key": call.key}
    sending = _REDEEM_LATE if patiently else _REDEEM
    return await sending.make(journal, call, heard=_redeemed, about=about)


async def close(journal: PaymentJournal, call: CloseCall) -> ClosedCredential:
    """Asks processor or chain what became of a credential, and makes it worthless where that is possible."""
    about: Detail = {"credential": call.credential.fingerprint}
    return await _CLOSE.make(journal, call, heard=_closed, about=about)


def _probed(probed: ProbeAnswer) -> Detail:
    answer = probed.answer
    return {
        "url": probed.request.url,
        "status": answer.status if answer else None,
        "body_sha256": answer.body_sha256 if answer else None,
        "offers": len(probed.offers),
        "unusable": [*probed.unusable[:MAX_UNUSABLE_NOTED]],
    }


def _minted(credential: SealedCredential) -> Detail:
    return {"credential": credential.fingerprint}


def _redeemed(redeemed: RedeemAnswer) -> Detail:
    answer, receipt = redeemed.answer, redeemed.receipt
    return {
        "kind": redeemed.kind,
        "status": answer.status if answer else None,
        "body_sha256": answer.body_sha256 if answer else None,
        "problem": redeemed.problem,
        "receipt": receipt.reference if receipt else None,
    }


def _closed(closed: ClosedCredential) -> Detail:
    return {"source": closed.source, "money_moved": closed.money_moved, "amount": closed.amount}
