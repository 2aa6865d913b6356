"""The sandbox's x402 facilitator: real signature checks, a simulated chain.

It verifies EIP-3009 authorizations as a facilitator does, and keeps balances and
used nonces in SQLite instead of a token contract. It serves
``POST /verify``, ``POST /settle``, ``GET /supported`` and, so that a payer can
ask the chain, ``POST /rpc`` with ``eth_chainId`` and ``eth_call`` of
``balanceOf`` and ``authorizationState``.

    python -m waystation.sandbox.facilitator --port 8790 --data .waystation/sandbox
"""

import argparse
import asyncio
import time
from pathlib import Path

import aiosqlite
import uvicorn
from eth_abi.abi import decode
from eth_utils.crypto import keccak
from fastapi import FastAPI
from pydantic import Field, JsonValue
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

from waystation.models.base import Frozen, JsonObject
from waystation.protocols.http402 import WireError, as_object, as_text, parse_address
from waystation.protocols.http402.eip3009 import USDC_BASE_SEPOLIA, TokenAsset, recover_signer
from waystation.redaction import install_redaction
from waystation.sqlite_files import open_sqlite

FAUCET_BASE_UNITS = 1_000_000_000
"""Every address starts with 1,000 simulated USDC."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS balances (address TEXT PRIMARY KEY, amount INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS transfers (
    payer TEXT NOT NULL, nonce TEXT NOT NULL, payee TEXT NOT NULL, amount INTEGER NOT NULL,
    tx TEXT NOT NULL UNIQUE, settled_at REAL NOT NULL, PRIMARY KEY (payer, nonce)
) WITHOUT ROWID;
"""
_BALANCE_OF = keccak(text="balanceOf(address)")[:4].hex()
_AUTHORIZATION_STATE = keccak(text="authorizationState(address,bytes32)")[:4].hex()


class Transfer(Frozen):
    """One settled authorization, in base units of the token."""

    payer: str
    nonce: str
    payee: str
    amount: int
    tx: str


class RpcRequest(Frozen):
    """A JSON-RPC 2.0 call."""

    jsonrpc: str = "2.0"
    id: int | str = 1
    method: str
    params: list[JsonValue] = Field(default_factory=list)


class Chain:
    """A token's ledger: each (payer, nonce) moves money once, as EIP-3009 demands."""

    def __init__(self, path: Path, asset: TokenAsset = USDC_BASE_SEPOLIA) -> None:
        self.asset = asset
        self._path = path
        self._connection: aiosqlite.Connection | None = None
        self._lock = asyncio.Lock()

    async def _open(self) -> aiosqlite.Connection:
        if self._connection is None:
            self._connection = await open_sqlite(self._path, _SCHEMA)
        return self._connection

    async def balance(self, address: str) -> int:
        """Returns the base units held. A new address holds what the faucet gave it."""
        async with self._lock:
            return await self._balance(await self._open(), address)

    async def transfer_of(self, payer: str, nonce: str) -> Transfer | None:
        """Returns the transfer that used an authorization, or None."""
        async with self._lock:
            return await self._transfer_of(await self._open(), payer, nonce)

    async def transfers(self) -> list[Transfer]:
        """Returns all transfers, oldest first."""
        query = "SELECT payer, nonce, payee, amount, tx FROM transfers ORDER BY settled_at"
        async with self._lock:
            rows = await (await self._open()).execute_fetchall(query)
        return [_transfer(row) for row in rows]

    async def move(self, payer: str, payee: str, amount: int, nonce: str) -> Transfer | None:
        """Moves tokens once for a nonce and returns the transfer, or None if the payer has too little."""
        async with self._lock:
            connection = await self._open()
            await connection.execute("BEGIN IMMEDIATE")
            try:
                done = await self._move(connection, payer, payee, amount, nonce)
            except BaseException:
                await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")
            return done

    async def _move(
        self, connection: aiosqlite.Connection, payer: str, payee: str, amount: int, nonce: str
    ) -> Transfer | None:
        before = await self._transfer_of(connection, payer, nonce)
        if before is not None:
            return before
        held = await self._balance(connection, payer)
        if held < amount:
            return None
        tx = "0x" + keccak(text=f"{self.asset.currency}|{payer}|{nonce}").hex()
        await self._set_balance(connection, payer, held - amount)
        await self._set_balance(connection, payee, await self._balance(connection, payee) + amount)
        row = (payer, nonce, payee, amount, tx, time.time())
        await connection.execute("INSERT INTO transfers VALUES (?, ?, ?, ?, ?, ?)", row)
        return Transfer(payer=payer, nonce=nonce, payee=payee, amount=amount, tx=tx)

    async def _balance(self, connection: aiosqlite.Connection, address: str) -> int:
        query = "SELECT amount FROM balances WHERE address = ?"
        async with connection.execute(query, (address,)) as cursor:
            row = await cursor.fetchone()
        return int(row[0]) if row else FAUCET_BASE_UNITS

    async def _set_balance(self, connection: aiosqlite.Connection, address: str, amount: int) -> None:
        await connection.execute("INSERT OR REPLACE INTO balances VALUES (?, ?)", (address, amount))

    async def _transfer_of(self, connection: aiosqlite.Connection, payer: str, nonce: str) -> Transfer | None:
        query = "SELECT payer, nonce, payee, amount, tx FROM transfers WHERE payer = ? AND nonce = ?"
        async with connection.execute(query, (payer, nonce)) as cursor:
            row = await cursor.fetchone()
        return _transfer(row) if row else None

    async def close(self) -> None:
        """Closes the ledger's file."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


def _transfer(row: aiosqlite.Row) -> Transfer:
    payer, nonce, payee, amount, tx = tuple(row)
    return Transfer(payer=payer, nonce=nonce, payee=payee, amount=amount, tx=tx)


class Facilitator:
    """Verifies and settles ``exact`` payments on the simulated chain."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain

    async def verify(self, payload: PaymentPayload, terms: PaymentRequirements) -> VerifyResponse:
        """Returns whether a payment could be settled now."""
        reason, payer, _ = await self._check(payload, terms)
        return VerifyResponse(is_valid=reason is None, invalid_reason=reason, payer=payer)

    async def settle(self, payload: PaymentPayload, terms: PaymentRequirements) -> SettleResponse:
        """Settles once. A second call for the same authorization names the same transaction."""
        reason, payer, authorization = await self._check(payload, terms)
        if reason is None and payer is not None:
            moved = await self.chain.move(
                payer, authorization["to"], int(authorization["value"]), authorization["nonce"]
            )
            if moved is not None:
                return SettleResponse(
                    success=True,
                    transaction=moved.tx,
                    network=terms.network,
                    payer=payer,
                    amount=str(moved.amount),
                )
            reason = "invalid_exact_evm_insufficient_balance"
        return SettleResponse(
            success=False, error_reason=reason, transaction="", network=terms.network, payer=payer
        )

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
        return await self._refusal(authorization, signature, pay_to, amount), payer, authorization

    async def _refusal(
        self, authorization: dict[str, str], signature: str, pay_to: str, amount: int
    ) -> str | None:
        payer, now = authorization["from"], int(time.time())
        if authorization["to"] != pay_to:
            return "invalid_exact_evm_payload_recipient_mismatch"
        if int(authorization["value"]) != amount:
            return "invalid_exact_evm_payload_authorization_value_mismatch"
        if recover_signer(self.chain.asset, authorization, signature) != payer:
            return "invalid_exact_evm_payload_signature"
        settled = await self.chain.transfer_of(payer, authorization["nonce"])
        if settled is not None:
            same = (settled.payee, settled.amount) == (pay_to, amount)
            return None if same else "invalid_exact_evm_nonce_already_used"
        if int(authorization["validAfter"]) > now:
            return "invalid_exact_evm_payload_authorization_valid_after"
        if int(authorization["validBefore"]) <= now:
            return "invalid_exact_evm_payload_authorization_valid_before"
        if await self.chain.balance(payer) < amount:
            return "invalid_exact_evm_insufficient_balance"
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
            return {**answer, "result": await _rpc(chain, request)}
        except (ValueError, KeyError, IndexError, TypeError):
            return {**answer, "error": {"code": -32602, "message": "unsupported call"}}

    return app


async def _rpc(chain: Chain, request: RpcRequest) -> str:
    if request.method == "eth_chainId":
        return hex(chain.asset.chain_id)
    if request.method != "eth_call":
        raise ValueError(request.method)
    call = as_object(request.params[0], "the call")
    if parse_address(call["to"]) != parse_address(chain.asset.address):
        raise ValueError("no contract at this address")
    data = bytes.fromhex(as_text(call["data"], "data").removeprefix("0x"))
    selector, arguments = data[:4].hex(), data[4:]
    if selector == _BALANCE_OF:
        (address,) = decode(["address"], arguments)
        return _word(await chain.balance(parse_address(address)))
    if selector == _AUTHORIZATION_STATE:
        address, nonce = decode(["address", "bytes32"], arguments)
        used = await chain.transfer_of(parse_address(address), "0x" + nonce.hex())
        return _word(int(used is not None))
    raise ValueError(selector)


def _word(value: int) -> str:
    return "0x" + value.to_bytes(32, "big").hex()


def main() -> None:
    """Serves the facilitator."""
    parser = argparse.ArgumentParser(description="Sandbox x402 facilitator")
    parser.add_argument("--port", type=int, default=8790)
    parser.add_argument("--data", type=Path, default=Path(".waystation/sandbox"))
    arguments = parser.parse_args()
    install_redaction()
    chain = Chain(arguments.data / "chain.sqlite3")
    uvicorn.run(create_facilitator_app(chain), host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
