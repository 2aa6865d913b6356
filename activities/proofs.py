"""The activity that checks who decided (``waystation.proofs``). Its verdict is recorded in the history."""

from temporalio import activity

from activities.contract import ProofCalls
from waystation.models.proofs import ProofQuestion, ProofVerdict
from waystation.proofs import Verifier


class ProofActivities(ProofCalls):
    """Knows the public keys of those who authenticate people."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    @activity.defn
    async def check_proof(self, question: ProofQuestion) -> ProofVerdict:
        """Returns whether a decision about the workflow that asks counts."""
        workflow_id = activity.info().workflow_id
        assert workflow_id is not None, "only workflows ask"
        return self._verifier.judge(workflow_id, question)
