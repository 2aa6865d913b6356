"""Payment secrets in histories: sealed for one workflow, opened with any known key, never in clear."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from activities.contract import CompleteCheckout
from waystation.models.payments import SealedCredential
from waystation.models.proofs import FORGOTTEN
from waystation.models.purchases import PaymentToken
from waystation.temporal.encryption import EncryptionKeyError, generate_key
from waystation.temporal.sealing import SealError, Vault

OLD, NEW = f"old:{generate_key()}", f"new:{generate_key()}"


@given(st.text(max_size=5_000), st.text(max_size=50), st.text(max_size=50))
def test_it_opens_for_its_own_workflow_alone(secret: str, one: str, other: str) -> None:
    vault = Vault([OLD])
    sealed = vault.seal(secret, workflow_id=one)
    assert vault.open(sealed, workflow_id=one) == secret
    PaymentToken(sealed=sealed, fingerprint="f", status="active")
    if one != other:
        with pytest.raises(SealError, match="another workflow"):
            vault.open(sealed, workflow_id=other)


def test_keys_rotate() -> None:
    sealed = Vault([OLD]).seal("spt_1", workflow_id="p1")
    both = Vault([NEW, OLD])
    assert both.open(sealed, workflow_id="p1") == "spt_1"
    assert both.seal("spt_1", workflow_id="p1").startswith("sealed:new:")
    with pytest.raises(SealError, match=r"'old'.*WAYSTATION_TOKEN_KEYS") as missing:
        Vault([NEW]).open(sealed, workflow_id="p1")
    assert not missing.value.final, "it opens once the key is set"


def test_without_a_key_nothing_is_sealed_and_the_setting_is_named() -> None:
    with pytest.raises(SealError, match="WAYSTATION_TOKEN_KEYS"):
        Vault().seal("spt_1", workflow_id="p1")
    with pytest.raises(EncryptionKeyError):
        Vault([OLD, OLD])


def test_what_an_earlier_release_wrote_in_clear_is_forgotten() -> None:
    token = PaymentToken.model_validate({"id": "spt_clear", "fingerprint": "f", "status": "active"})
    credential = SealedCredential.model_validate(
        {"header": "authorization", "value": "Payment clear", "fingerprint": "f", "token_id": "spt_clear"}
    )
    for kept in (token, credential):
        assert kept.sealed == FORGOTTEN
        assert "clear" not in kept.model_dump_json()
    assert credential.is_token
    with pytest.raises(SealError, match="earlier release"):
        Vault([OLD]).open(FORGOTTEN, workflow_id="p1")


@pytest.mark.parametrize("text", ["spt_1", "", "sealed", "sealed:", "sealed:k:spt 1", "Payment abc"])
def test_an_unsealed_secret_fits_no_payload(text: str) -> None:
    with pytest.raises(ValidationError):
        PaymentToken(sealed=text, fingerprint="f", status="active")
    with pytest.raises(ValidationError):
        SealedCredential(sealed=text, fingerprint="f")
    assert CompleteCheckout.model_fields["token"].annotation is str
    with pytest.raises(ValidationError) as refused:
        CompleteCheckout.model_validate({"token": text})
    assert ("token",) in {error["loc"] for error in refused.value.errors()}
