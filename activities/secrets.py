"""Payment secrets on their way into and out of the history of the workflow that an activity works for."""

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.contract import SEALING_FAILED
from waystation.models.payments import REVEAL, MintedCredential, SealedCredential
from waystation.models.proofs import Sealed
from waystation.temporal.sealing import SealError, Vault


def check_open(vault: Vault) -> None:
    """Checks that what is about to be made can be sealed.

    Raises:
        ApplicationError: ``SealingFailed``: this worker has no key; final.
    """
    try:
        vault.check_open()
    except SealError as error:
        raise _refusal(error) from None


def sealed(vault: Vault, secret: str) -> Sealed:
    """Returns a secret as the workflow that asks for it may keep it."""
    try:
        return vault.seal(secret, workflow_id=_workflow_id())
    except SealError as error:
        raise _refusal(error) from None


def opened(vault: Vault, secret: Sealed) -> str:
    """Returns what was sealed for the workflow that asks.

    Raises:
        ApplicationError: ``SealingFailed``: it is another workflow's (final), or this worker lacks the key.
    """
    try:
        return vault.open(secret, workflow_id=_workflow_id())
    except SealError as error:
        raise _refusal(error) from None


def sealed_credential(vault: Vault, minted: MintedCredential) -> SealedCredential:
    """Returns a credential as the workflow that asks for it may keep it."""
    return SealedCredential(
        sealed=sealed(vault, minted.model_dump_json(context=REVEAL)),
        fingerprint=minted.fingerprint,
        is_token=minted.token_id is not None,
        valid_before=minted.valid_before,
    )


def opened_credential(vault: Vault, credential: SealedCredential) -> MintedCredential:
    """Returns a credential that can be sent."""
    # Another worker, which may be newer, has sealed it.
    return MintedCredential.model_validate_json(opened(vault, credential.sealed), extra="ignore")


def _workflow_id() -> str:
    workflow_id = activity.info().workflow_id
    assert workflow_id is not None, "payments are made by workflows"
    return workflow_id


def _refusal(error: SealError) -> ApplicationError:
    return ApplicationError(str(error), "sealing_failed", type=SEALING_FAILED, non_retryable=error.final)
