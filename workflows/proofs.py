"""Whether whoever may vouch for a decision has signed it. The verdict is recorded, so keys can rotate."""

from typing import Final

from pydantic import BaseModel
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.policies as policies
    from activities.contract import HOUSE_UNAVAILABLE, ProofCalls
    from waystation.models.proofs import DecisionKind, Proof, ProofQuestion, ProofVerdict, facts
    from workflows.calls import CallFailure, call_options, once_local

DECISIONS_ARE_PROVEN: Final = "decisions-are-proven"
"""The patch by which workflows that began before proofs existed replay what they heard without any."""

_CHECK: Final = call_options(
    policies.PROOF_CALL_TIMEOUT, policies.PROOF_CALL_RETRY, silence=HOUSE_UNAVAILABLE
)


async def verdict_on(
    kind: DecisionKind, said: BaseModel, proof: Proof | None, *, at_start: bool = False
) -> ProofVerdict:
    """Returns whether a decision counts.

    Args:
        said: the decision; a field ``proof`` of it is left out.
        at_start: judge by when this workflow began, and not by when a worker gets round to it.
    """
    if not workflow.patched(DECISIONS_ARE_PROVEN):
        return ProofVerdict(valid=True)
    at = int(workflow.info().start_time.timestamp()) if at_start else None
    question = ProofQuestion(kind=kind, said=facts(said), proof=proof, at=at)
    try:
        return await once_local(ProofCalls.check_proof, question, _CHECK)
    except CallFailure as failure:
        return ProofVerdict(valid=False, why=str(failure))
