"""EIP-3009 authorizations: the EIP-712 message that moves a token by signature.

Pure. An authorization is a dict of strings as it goes over the wire:
``from, to, value, validAfter, validBefore, nonce``.
"""

from dataclasses import dataclass

from waystation.protocols.http402.ethereum import Account, SignableMessage, encode_typed_data
from waystation.protocols.http402.wire import evm_asset


@dataclass(frozen=True, slots=True)
class TokenAsset:
    """An EIP-3009 token: where it lives and the EIP-712 domain it signs with."""

    chain_id: int
    address: str
    name: str
    version: str
    decimals: int

    @property
    def currency(self) -> str:
        """The asset id used in ``Money``."""
        return evm_asset(f"eip155:{self.chain_id}", self.address)

    @property
    def network(self) -> str:
        """CAIP-2 id of the chain."""
        return f"eip155:{self.chain_id}"


USDC_BASE = TokenAsset(8453, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin", "2", 6)
USDC_BASE_SEPOLIA = TokenAsset(84532, "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC", "2", 6)

_AUTHORIZATION_TYPES = {
    "TransferWithAuthorization": [
        {"name": "from", "type": "address"},
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "validAfter", "type": "uint256"},
        {"name": "validBefore", "type": "uint256"},
        {"name": "nonce", "type": "bytes32"},
    ]
}


def authorization_message(asset: TokenAsset, authorization: dict[str, str]) -> SignableMessage:
    """Returns the EIP-712 message that a payer signs (EIP-3009 ``TransferWithAuthorization``)."""
    return encode_typed_data(
        domain_data={
            "name": asset.name,
            "version": asset.version,
            "chainId": asset.chain_id,
            "verifyingContract": asset.address,
        },
        message_types=_AUTHORIZATION_TYPES,
        message_data={
            "from": authorization["from"],
            "to": authorization["to"],
            "value": int(authorization["value"]),
            "validAfter": int(authorization["validAfter"]),
            "validBefore": int(authorization["validBefore"]),
            "nonce": bytes.fromhex(authorization["nonce"].removeprefix("0x")),
        },
    )


def recover_signer(asset: TokenAsset, authorization: dict[str, str], signature: str) -> str | None:
    """Returns the EIP-55 address that signed, or None if the signature is invalid."""
    try:
        message = authorization_message(asset, authorization)
        return str(Account.recover_message(message, signature=signature))
    except Exception:  # eth-account raises many types, none of which matters here
        return None
