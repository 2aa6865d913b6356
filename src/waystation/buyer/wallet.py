"""The wallet that pays in tokens: one EVM key, the tokens it may spend, EIP-3009 signatures.

The key comes from an encrypted keystore file (Web3 Secret Storage) or from the
environment, stays in this object, and appears in no repr, log or error text.
"""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import httpx
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from pydantic import SecretStr

from waystation.buyer.chain import ChainUnavailableError
from waystation.errors import StartError
from waystation.foreign_json import read_json
from waystation.models.payments import MintedCredential, Offer, Rail
from waystation.protocols import http402
from waystation.protocols.http402 import WireError
from waystation.protocols.http402.eip3009 import (
    USDC_BASE,
    USDC_BASE_SEPOLIA,
    TokenAsset,
    authorization_message,
)
from waystation.protocols.http402.ethereum import Account, LocalAccount
from waystation.redaction import fingerprint
from waystation.settings import WalletSettings

DEFAULT_AUTHORIZATION_SECONDS = 300
MAX_AUTHORIZATION_SECONDS = 900
"""How long a signed authorization may live, whatever the seller asks for."""
RPC_TIMEOUT_SECONDS = 10.0
_AUTHORIZATION_STATE = keccak(text="authorizationState(address,bytes32)")[:4]


class WalletError(StartError, ValueError):
    """The wallet can't be opened with its settings; the message holds neither key nor passphrase."""


class Wallet:
    """Signs payments for offers that have been checked against a price and a mandate."""

    def __init__(
        self,
        account: LocalAccount,
        *,
        assets: tuple[TokenAsset, ...] = (USDC_BASE, USDC_BASE_SEPOLIA),
        rpc_url: str | None = None,
        rpc_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._account = account
        self._rpc_transport = rpc_transport
        self._rpc: httpx.AsyncClient | None = None
        self._assets = {asset.currency: asset for asset in assets}
        self._rpc_url = rpc_url

    def __repr__(self) -> str:
        return f"Wallet({self.address})"

    async def close(self) -> None:
        """Closes the connection to the chain's endpoint."""
        if self._rpc is not None:
            await self._rpc.aclose()
            self._rpc = None

    @classmethod
    def from_settings(cls, settings: WalletSettings) -> Self | None:
        """Returns the configured wallet, or None if there is none.

        Raises:
            WalletError: The configuration is incomplete, or what it names can't be used.
        """
        if settings.private_key is not None:
            return cls(_account(settings.private_key), rpc_url=settings.rpc_url)
        if settings.keystore is None:
            return None
        if settings.passphrase is None:
            raise WalletError("WAYSTATION_WALLET_KEYSTORE needs WAYSTATION_WALLET_PASSPHRASE")
        return cls.from_keystore(settings.keystore, settings.passphrase, rpc_url=settings.rpc_url)

    @classmethod
    def from_keystore(cls, path: Path, passphrase: SecretStr, *, rpc_url: str | None = None) -> Self:
        """Opens an encrypted keystore.

        Raises:
            WalletError: The file can't be read or is not a keystore, or the passphrase is wrong.
        """
        try:
            key = Account.decrypt(json.loads(path.read_text()), passphrase.get_secret_value())
        except OSError as error:
            why = f"{path} can't be read ({error.strerror}); see WAYSTATION_WALLET_KEYSTORE"
            raise WalletError(why) from None
        except (ValueError, TypeError, KeyError):
            raise WalletError(f"{path} is not a keystore, or the passphrase is wrong") from None
        return cls(Account.from_key(key), rpc_url=rpc_url)

    @classmethod
    def create_keystore(cls, path: Path, passphrase: SecretStr, *, rpc_url: str | None = None) -> Self:
        """Makes a new key and writes it, encrypted, to a file that only its owner can read."""
        account: LocalAccount = Account.create()
        encrypted = json.dumps(Account.encrypt(account.key, passphrase.get_secret_value()))
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(encrypted)
        return cls(account, rpc_url=rpc_url)

    @property
    def address(self) -> str:
        """The EIP-55 address that pays."""
        return str(self._account.address)

    def can_pay(self, offer: Offer) -> bool:
        """Returns whether the offer asks for a token that this wallet may spend."""
        return offer.rail is not Rail.MPP_STRIPE and offer.price.currency in self._assets

    def mint(self, offer: Offer, *, key: str, now: datetime | None = None) -> MintedCredential:
        """Signs one authorization for an offer.

        The nonce comes only from ``key`` (x402) or from the challenge (MPP), so two signatures for one
        payment can't both settle.

        Raises:
            WireError: The wallet can't pay the offer.
        """
        asset = self._assets.get(offer.price.currency)
        if asset is None:
            raise WireError(f"the wallet holds no {offer.price.currency}")
        now = now or datetime.now(UTC)
        valid_before = self._valid_before(offer, now)
        authorization = {
            "from": self.address,
            "to": offer.payee,
            "value": str(offer.price.amount),
            "validAfter": "0",
            "validBefore": str(int(valid_before.timestamp())),
            "nonce": self.nonce(offer, key),
        }
        signature = self._sign(asset, authorization)
        if offer.rail is Rail.MPP_EVM:
            header = http402.credential_header(offer.wire)
            value = http402.evm_credential(offer.wire, authorization, signature, chain_id=asset.chain_id)
        else:
            header = http402.PAYMENT_SIGNATURE
            value = http402.x402_credential(
                offer.wire,
                offer.wire_index,
                authorization,
                signature,
                identifier=http402.payment_identifier(key),
            )
        return MintedCredential(
            header=header,
            value=SecretStr(value),
            fingerprint=fingerprint(value),
            payer=self.address,
            nonce=authorization["nonce"],
            valid_before=valid_before,
        )

    def _valid_before(self, offer: Offer, now: datetime) -> datetime:
        seconds = DEFAULT_AUTHORIZATION_SECONDS
        if offer.rail is Rail.X402_EXACT:
            stated = http402.x402_timeout_seconds(offer.wire, offer.wire_index)
            seconds = min(stated, MAX_AUTHORIZATION_SECONDS)
        latest = now + timedelta(seconds=min(seconds, MAX_AUTHORIZATION_SECONDS))
        return min(latest, offer.expires_at) if offer.expires_at is not None else latest

    @staticmethod
    def nonce(offer: Offer, key: str) -> str:
        """Returns the EIP-3009 nonce of the authorization that pays an offer under a key."""
        if offer.rail is Rail.MPP_EVM:
            return http402.mpp_evm_nonce(offer.challenge_id, offer.realm)
        return "0x" + keccak(text=key).hex()

    def _sign(self, asset: TokenAsset, authorization: dict[str, str]) -> str:
        signed = self._account.sign_message(authorization_message(asset, authorization))
        return "0x" + bytes(signed.signature).hex()

    async def was_used(self, currency: str, payer: str, nonce: str) -> bool | None:
        """Returns whether an authorization moved money, according to the token contract itself.

        Returns None if no chain endpoint is configured.

        Raises:
            ChainUnavailableError: The endpoint doesn't answer.
        """
        asset = self._assets.get(currency)
        if self._rpc_url is None or asset is None:
            return None
        arguments = encode(["address", "bytes32"], [payer, bytes.fromhex(nonce.removeprefix("0x"))])
        call = {"to": asset.address, "data": "0x" + (_AUTHORIZATION_STATE + arguments).hex()}
        body = {"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": [call, "latest"]}
        try:
            if self._rpc is None:  # made here, in the event loop that uses it
                self._rpc = httpx.AsyncClient(transport=self._rpc_transport, timeout=RPC_TIMEOUT_SECONDS)
            answer = read_json((await self._rpc.post(self._rpc_url, json=body)).content)
            result = answer["result"] if isinstance(answer, dict) else None
            return int(str(result), 16) != 0
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise ChainUnavailableError(
                f"the chain endpoint gave no usable answer ({type(error).__name__}); "
                "check WAYSTATION_WALLET_RPC_URL"
            ) from None


def _account(private_key: SecretStr) -> LocalAccount:
    try:
        account: LocalAccount = Account.from_key(private_key.get_secret_value())
    except Exception:  # its message may quote the key
        raise WalletError("the wallet's private key isn't 32 bytes of hex") from None
    return account
