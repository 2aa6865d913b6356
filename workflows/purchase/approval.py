"""Whether a purchase is approved: a record of who agreed to which digest, which lasts for a while."""

from dataclasses import replace

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.policies as policies
    from waystation.models.decisions import ApprovalRecord
    from waystation.models.purchases import PayableCart
    from workflows.purchase.journal import Detail, PurchaseJournal
    from workflows.purchase.state import ApprovalState


class PurchaseApproval:
    """Keeps the approval, and voids it when the cart changes."""

    def __init__(self, journal: PurchaseJournal) -> None:
        self._journal = journal

    def stands(self) -> bool:
        """Whether the cart as it stands is approved, and recently enough to pay."""
        state = self._journal.state
        record = state.approval.record
        if record is None or record.digest != state.checkout.digest:
            return False
        return workflow.now() - record.at < policies.APPROVAL_LIFETIME

    def void(self, why: str) -> None:
        """Forgets the approval and any decision that waits."""
        journal, record = self._journal, self._journal.state.approval.record
        if record is not None:
            journal.note("approval.voided", "waystation", {"why": why, "digest": record.digest})
        journal.replace(approval=ApprovalState(), inbox=replace(journal.state.inbox, decision=None))

    def give_by_person(self, digest: str, approver: str) -> None:
        """Records that a person agreed to the cart with this digest."""
        self._give(ApprovalRecord(digest=digest, approver=approver, at=workflow.now()))
        self._journal.announce("approval.granted", {"digest": digest, "approver": approver})

    def give_by_mandate(self, payable: PayableCart) -> None:
        """Records that the mandate allows this cart without a person."""
        journal = self._journal
        approver = f"mandate:{journal.state.request.mandate_id}"
        self._give(ApprovalRecord(digest=payable.digest, approver=approver, at=workflow.now(), auto=True))
        detail: Detail = {"digest": payable.digest, "total": payable.total.amount}
        journal.note("approval.automatic", "mandate", detail)
        journal.announce("approval.granted", {"digest": payable.digest, "approver": "mandate", "auto": True})

    def _give(self, record: ApprovalRecord) -> None:
        self._journal.replace(approval=replace(self._journal.state.approval, record=record))
