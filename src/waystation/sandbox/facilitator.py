"""The sandbox's x402 facilitator: real signature checks, a simulated chain.

It verifies EIP-3009 authorizations and answers as x402's own facilitator does. That includes being asked to
settle again: it doesn't recognize an authorization that it has settled, and says that the nonce was used.
Instead of a token contract it has a ledger (``waystation.sandbox.chain``). It serves ``POST /verify``,
``POST /settle``, ``GET /supported`` and, so that payers and sellers can ask the chain, ``POST /rpc``
(``waystation.sandbox.chain_rpc``).

    python -m waystation.sandbox.facilitator --port 8790 --data .waystation/sandbox
"""

import argparse
import time
from pathlib import Path

from fastapi import FastAPI
from x402.schemas import (
    PaymentPayload,
    PaymentRequirements,
    SettleRequest,
    SettleResponse,
    SupportedKind,
    SupportedResponse,
    VerifyRequest,
    VerifyResponse,
)

from waystation.models.base import JsonObject
from waystation.protocols.http402 import WireError, parse_address
from waystation.protocols.http402.eip3009 import recover_signer
from waystation.sandbox.chain import Chain, NonceUsedError, Transfer
from waystation.sandbox.chain_rpc import RpcRequest, answer_rpc
from waystation.sandbox.serving import serve

__all__ = ["Chain", "Facilitator", "create_facilitator_app"]

NONCE_ALREADY_USED = "invalid_exact_evm_nonce_already_used"
INSUFFICIENT_BALANCE = "invalid_exact_evm_insufficient_balance"
SETTLING_SECONDS = 6
"""What expires within so many seconds is refused."""


class Facilitator:
    """Verifies and settles ``exact`` payments on the simulated chain."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain

    async def verify(self, payload: PaymentPayload, terms: PaymentRequirements) -> VerifyResponse:
        """Returns whether a payment could be settled now."""
        reason, payer, authorization = await self._check(payload, terms)
        if reason is None and payer is not None:
            reason = await self._simulated(payer, authorization)
        return VerifyResponse(is_valid=reason is None, invalid_reason=reason, payer=payer)

    async def settle(self, payload: PaymentPayload, terms: PaymentRequirements) -> SettleResponse:
        """Settles, once for an authorization: a second call finds its nonce used."""
        reason, payer, authorization = await self._check(payload, terms)
        if reason is None and payer is not None:
            try:
                moved = await self.chain.move(
                    payer, authorization["to"], int(authorization["value"]), authorization["nonce"]
                )
            except NonceUsedError:
                reason = NONCE_ALREADY_USED
            else:
                if moved is not None:
                    return SettleResponse(
                        success=True, transaction=moved.tx, network=terms.network, payer=payer
                    )
                reason = INSUFFICIENT_BALANCE
        return SettleResponse(
            success=False, error_reason=reason, transaction="", network=terms.network, payer=payer
        )

    async def _simulated(self, payer: str, authorization: dict[str, str]) -> str | None:
        if await self.chain.transfer_of(payer, authorization["nonce"]) is not None:
            return NONCE_ALREADY_USED
        short = await self.chain.balance(payer) < int(authorization["value"])
        return INSUFFICIENT_BALANCE if short else None

    async def _check(
        self, payload: PaymentPayload, terms: PaymentRequirements
    ) -> tuple[str | None, str | None, dict[str, str]]:
        """Returns ``(reason to refuse, payer, normalized authorization)``."""
        if terms.scheme != "exact" or payload.accepted.scheme != "exact":
            return "unsupported_scheme", None, {}
        if terms.network != self.chain.asset.network or payload.accepted.network != terms.network:
            return "network_mismatch", None, {}
        try:
            authorization = _normalized(payload.payload["authorization"])
            signature = str(payload.payload["signature"])
            if parse_address(terms.asset) != parse_address(self.chain.asset.address):
                return "asset_not_deployed_contract", None, {}
            pay_to, amount = parse_address(terms.pay_to), int(terms.amount)
        except (KeyError, TypeError, ValueError, AttributeError):
            return "invalid_payload", None, {}
        payer = authorization["from"]
        return self._refusal(authorization, signature, pay_to, amount), payer, authorization

    def _refusal(self, authorization: dict[str, str], signature: str, pay_to: str, amount: int) -> str | None:
        payer, now = authorization["from"], int(time.time())
        if authorization["to"] != pay_to:
            return "invalid_exact_evm_payload_recipient_mismatch"
        if int(authorization["value"]) != amount:
            return "invalid_exact_evm_payload_authorization_value_mismatch"
        if int(authorization["validBefore"]) < now + SETTLING_SECONDS:
            return "invalid_exact_evm_payload_authorization_valid_before"
        if int(authorization["validAfter"]) > now:
            return "invalid_exact_evm_payload_authorization_valid_after"
        if recover_signer(self.chain.asset, authorization, signature) != payer:
            return "invalid_exact_evm_payload_signature"
        return None


def _normalized(raw: JsonObject) -> dict[str, str]:
    nonce = bytes.fromhex(str(raw["nonce"]).removeprefix("0x"))
    if len(nonce) != 32:
        raise WireError("nonce isn't 32 bytes")
    return {
        "from": parse_address(raw["from"]),
        "to": parse_address(raw["to"]),
        "value": str(int(str(raw["value"]))),
        "validAfter": str(int(str(raw["validAfter"]))),
        "validBefore": str(int(str(raw["validBefore"]))),
        "nonce": "0x" + nonce.hex(),
    }


def create_facilitator_app(chain: Chain) -> FastAPI:
    """Returns the facilitator as an ASGI application."""
    facilitator = Facilitator(chain)
    app = FastAPI(title="Sandbox x402 facilitator")

    @app.post("/verify", response_model_exclude_none=True)
    async def verify(request: VerifyRequest) -> VerifyResponse:
        return await facilitator.verify(request.payment_payload, request.payment_requirements)

    @app.post("/settle", response_model_exclude_none=True)
    async def settle(request: SettleRequest) -> SettleResponse:
        return await facilitator.settle(request.payment_payload, request.payment_requirements)

    @app.get("/supported", response_model_exclude_none=True)
    async def supported() -> SupportedResponse:
        kind = SupportedKind(x402_version=2, scheme="exact", network=chain.asset.network)
        return SupportedResponse(kinds=[kind])

    @app.get("/sandbox/transfers")
    async def transfers() -> list[Transfer]:
        return await chain.transfers()

    @app.post("/rpc")
    async def rpc(request: RpcRequest) -> JsonObject:
        answer: JsonObject = {"jsonrpc": "2.0", "id": request.id}
        try:
            return {**answer, "result": await answer_rpc(chain, request)}
        except (ValueError, KeyError, IndexError, TypeError):
            return {**answer, "error": {"code": -32602, "message": "unsupported call"}}

    return app


def main() -> None:
    """Serves the facilitator."""
    parser = argparse.ArgumentParser(description="Sandbox x402 facilitator")
    parser.add_argument("--port", type=int, default=8790)
    parser.add_argument("--data", type=Path, default=Path(".waystation/sandbox"))
    arguments = parser.parse_args()
    chain = Chain(arguments.data / "chain.sqlite3")
    serve(create_facilitator_app(chain), arguments.port)


if __name__ == "__main__":
    main()
