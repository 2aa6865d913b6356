"""No token, credential or key in clear: not in histories, events, trails, logs or reprs."""

import base64
import json
import logging
from pathlib import Path

import pytest
from pydantic import SecretStr
from temporalio.client import Client

from tests.buyer.bench import USDC, Bench, has_credential, times, usd
from waystation.buyer.wallet import Wallet
from waystation.models.money import Money
from waystation.models.payments import REVEAL, MintedCredential
from waystation.redaction import install_redaction
from waystation.settings import WalletSettings
from workflows.paid_request import PaidRequest


def credentials(bench: Bench) -> set[str]:
    """Every credential and token that went over the wire."""
    found = set()
    for request in filter(has_credential, bench.network.seen):
        for name in ("authorization", "payment-signature"):
            value = request.headers.get(name, "").removeprefix("Payment ")
            if value:
                found.add(value)
    return found


@pytest.mark.parametrize("card", [True, False])
async def test_no_secret_in_history_trail_view_or_logs(
    tmp_path: Path, encrypted: Client, temporal: Client, caplog: pytest.LogCaptureFixture, card: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    install_redaction()
    async with Bench(tmp_path, encrypted).working() as bench:
        bench.network.lose = times(1, has_credential)
        if card:
            mandate = await bench.mandate(usd(1_000))
            handle = await bench.start("/v1/reports/rain", usd(60), mandate)
        else:
            mandate = await bench.mandate(Money(amount=10_000, currency=USDC))
            handle = await bench.start("/v1/quotes/A", Money(amount=1_000, currency=USDC), mandate)
        view = await handle.result()
        assert view.status == "delivered"
        secrets = credentials(bench) | set(await bench.all_tokens())
        assert secrets
        trail = await handle.query(PaidRequest.audit)
        shown = view.model_dump_json() + trail.model_dump_json() + repr(view)
        history = (await temporal.get_workflow_handle(handle.id).fetch_history()).to_json()
        parts = [part for part in _strings(json.loads(history)) if _is_base64(part)]
        decoded = "".join(base64.b64decode(part).decode(errors="replace") for part in parts)
    logged = "\n".join(record.getMessage() + str(record.exc_text) for record in caplog.records)
    for secret in secrets:
        assert secret not in shown
        assert secret not in history
        assert secret not in decoded
        assert secret not in logged


@pytest.mark.parametrize("card", [True, False])
async def test_a_decrypted_history_gives_no_credential_away(bench: Bench, card: bool) -> None:
    """Agents have the payload keys. What they could read here is all that they can read."""
    price = usd(60) if card else Money(amount=1_000, currency=USDC)
    mandate = await bench.mandate(usd(1_000) if card else Money(amount=10_000, currency=USDC))
    handle = await bench.start("/v1/reports/rain" if card else "/v1/quotes/A", price, mandate)
    await handle.result()
    history = json.loads((await handle.fetch_history()).to_json())
    clear = "".join(
        base64.b64decode(part).decode(errors="replace") for part in _strings(history) if _is_base64(part)
    )
    assert "https://paid.test/v1/" in clear, "the search finds what is there"
    assert "sealed:tests:" in clear
    for secret in credentials(bench) | set(await bench.all_tokens()):
        assert secret not in clear
        assert base64.b64encode(secret.encode()).decode() not in clear


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return []


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


def test_a_credential_shows_nothing_of_itself() -> None:
    credential = MintedCredential(
        header="authorization",
        value=SecretStr("Payment very-secret"),
        fingerprint="sha256:f",
        token_id=SecretStr("spt_secret"),
    )
    assert "secret" not in repr(credential).replace("SecretStr", "")
    assert "secret" not in credential.model_dump_json(), "a payload can't give it away"
    assert MintedCredential.model_validate_json(credential.model_dump_json(context=REVEAL)) == credential


def test_the_wallets_key_is_encrypted_at_rest_and_in_no_repr(tmp_path: Path) -> None:
    path, passphrase = tmp_path / "wallet" / "key.json", SecretStr("correct horse")
    made = Wallet.create_keystore(path, passphrase)
    key = bytes(made._account.key).hex()
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    settings = WalletSettings(keystore=path, passphrase=passphrase)
    opened = Wallet.from_settings(settings)
    assert opened is not None
    assert opened.address == made.address
    assert key not in repr(opened) + repr(settings)
    with pytest.raises(ValueError, match="passphrase is wrong") as wrong:
        Wallet.from_keystore(path, SecretStr("wrong"))
    assert key not in str(wrong.value)
    with pytest.raises(FileExistsError):
        Wallet.create_keystore(path, passphrase)


@pytest.mark.parametrize("key", ["nonsense", "0x12", "ff" * 33])
def test_a_bad_key_is_refused_without_quoting_it(key: str) -> None:
    with pytest.raises(ValueError, match="32 bytes of hex") as refused:
        Wallet.from_settings(WalletSettings(private_key=SecretStr(key)))
    assert key not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
