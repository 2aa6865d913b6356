"""Asks a chain what became of an authorization: the token contract itself knows whether its nonce was used.

A used nonce proves little: its payer may have signed a second authorization with it, for somebody else, or
canceled it. What proves a payment is the ``Transfer`` that follows ``AuthorizationUsed`` in a transaction.
"""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar

import httpx
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from pydantic import BeforeValidator, Field, JsonValue, StringConstraints, ValidationError

from waystation.foreign_json import ForeignJsonError, read_json
from waystation.models.base import FrozenOpen, JsonObject
from waystation.protocols.http402.eip3009 import TokenAsset
from waystation.seller.paywall.entries import Charge, Entry, SignedTransfer
from waystation.seller.paywall.rails import Outcome, Refused, Settled, Unclear

RPC_TIMEOUT_SECONDS: Final = 10.0
BLOCKS_PER_SEARCH: Final = 2_000
"""Endpoints limit the blocks of one search for logs."""
MAX_SEARCHES: Final = 300
SETTLED_BEFORE_SECONDS: Final = 3_600
"""An authorization may have been used so long before it reached the paywall."""
FINAL_AFTER_SECONDS: Final = 600
"""So long after an authorization expired, its being unused is final: no node is that far behind."""

_AUTHORIZATION_STATE: Final = keccak(text="authorizationState(address,bytes32)")[:4]
_USED: Final = "0x" + keccak(text="AuthorizationUsed(address,bytes32)").hex()
_CANCELED: Final = "0x" + keccak(text="AuthorizationCanceled(address,bytes32)").hex()
_TRANSFER: Final = "0x" + keccak(text="Transfer(address,address,uint256)").hex()


Read = TypeVar("Read", bound=FrozenOpen)


class ChainUnavailableError(Exception):
    """The endpoint gave no usable answer."""


Hex = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]*$")]


Quantity = Annotated[int, BeforeValidator(lambda value: int(str(value), 16))]


class _Log(FrozenOpen):
    address: str
    topics: tuple[str, ...]
    data: Hex = "0x0"
    transaction_hash: Hex = Field(alias="transactionHash")


class _Receipt(FrozenOpen):
    status: Quantity
    logs: tuple[_Log, ...]


class _Block(FrozenOpen):
    number: Quantity
    timestamp: Quantity


class TokenChain:
    """One token, seen through a JSON-RPC endpoint."""

    def __init__(self, asset: TokenAsset, rpc_url: str, client: httpx.AsyncClient) -> None:
        self._asset = asset
        self._rpc_url = rpc_url
        self._client = client

    async def outcome(self, entry: Entry, transfer: SignedTransfer) -> Outcome:
        """Returns whether a payment moved money, as far as the chain can say."""
        try:
            return await self._outcome(entry, transfer)
        except ChainUnavailableError as error:
            return Unclear(f"{error}; check rpc_url")

    async def _outcome(self, entry: Entry, transfer: SignedTransfer) -> Outcome:
        if entry.transaction is not None:
            settled = await self._settled_by(entry.transaction, entry, transfer)
            if settled is not None:
                return settled
        latest = await self._block("latest")
        if not await self._was_used(transfer):
            if latest.timestamp >= transfer.valid_before + FINAL_AFTER_SECONDS:
                return Refused("the authorization expired without being used")
            return Unclear("the chain doesn't know the authorization so far")
        transaction = await self._used_in(latest, entry, transfer)
        if transaction is None:
            return Unclear("the authorization was used, in a transaction that wasn't found")
        settled = await self._settled_by(transaction, entry, transfer)
        return settled or Refused("the authorization was canceled, or used for another payment")

    async def _was_used(self, transfer: SignedTransfer) -> bool:
        nonce = bytes.fromhex(transfer.nonce.removeprefix("0x"))
        data = _AUTHORIZATION_STATE + encode(["address", "bytes32"], [transfer.payer, nonce])
        call: JsonObject = {"to": self._asset.address, "data": "0x" + data.hex()}
        return _number(await self._ask("eth_call", call, "latest")) != 0

    async def _used_in(self, latest: _Block, entry: Entry, transfer: SignedTransfer) -> str | None:
        """Returns the transaction that used or canceled an authorization, searching from the newest block."""
        earliest = int(entry.created_at.timestamp()) - SETTLED_BEFORE_SECONDS
        last = latest.number
        for _ in range(MAX_SEARCHES):
            first = max(0, last - BLOCKS_PER_SEARCH + 1)
            wanted: JsonObject = {
                "address": self._asset.address,
                "topics": [[_USED, _CANCELED], _topic(transfer.payer), transfer.nonce],
                "fromBlock": hex(first),
                "toBlock": hex(last),
            }
            found = await self._ask("eth_getLogs", wanted)
            if isinstance(found, list) and found:
                return _read(_Log, found[0]).transaction_hash
            if first == 0 or (await self._block(hex(first))).timestamp < earliest:
                return None
            last = first - 1
        return None

    async def _settled_by(self, transaction: str, entry: Entry, transfer: SignedTransfer) -> Settled | None:
        """Returns the charge that a transaction made for an entry, or None if it made none."""
        found = await self._ask("eth_getTransactionReceipt", transaction)
        if found is None:
            return None
        receipt = _read(_Receipt, found)
        if receipt.status != 1 or not self._pays(receipt.logs, entry, transfer):
            return None
        charge = Charge(
            reference=transaction,
            network=self._asset.network,
            payer=transfer.payer,
            charged_at=datetime.now(UTC),
        )
        return Settled(charge)

    def _pays(self, logs: Sequence[_Log], entry: Entry, transfer: SignedTransfer) -> bool:
        """Returns whether the token moved the price to the payee under this very authorization.

        A transaction may carry several: only the transfer right after the authorization's use belongs to it.
        """
        own = [log for log in logs if log.address.lower() == self._asset.address.lower()]
        used = [_USED, _topic(transfer.payer), transfer.nonce.lower()]
        moved = [_TRANSFER, _topic(transfer.payer), _topic(entry.payee)]
        return any(
            _lower(before.topics) == used
            and _lower(after.topics) == moved
            and _number(after.data) == entry.price.amount
            for before, after in itertools.pairwise(own)
        )

    async def _block(self, which: str) -> _Block:
        return _read(_Block, await self._ask("eth_getBlockByNumber", which, False))

    async def _ask(self, method: str, *params: JsonValue) -> JsonValue:
        body: JsonObject = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        try:
            answer = await self._client.post(
                self._rpc_url, json=body, timeout=RPC_TIMEOUT_SECONDS, follow_redirects=False
            )
            read = read_json(answer.content)
        except (httpx.HTTPError, ForeignJsonError) as error:
            raise ChainUnavailableError(f"{method} wasn't answered ({type(error).__name__})") from None
        if not isinstance(read, dict) or "result" not in read:
            raise ChainUnavailableError(f"{method} failed (HTTP {answer.status_code})")
        return read["result"]


def _read(model: type[Read], found: JsonValue) -> Read:
    try:
        return model.model_validate(found)
    except ValidationError:
        raise ChainUnavailableError(f"the endpoint's {model.__name__} can't be read") from None


def _number(value: JsonValue) -> int:
    try:
        return int(str(value), 16)
    except ValueError:
        raise ChainUnavailableError("the endpoint's number can't be read") from None


def _topic(address: str) -> str:
    return "0x" + address.removeprefix("0x").lower().rjust(64, "0")


def _lower(topics: Sequence[str]) -> list[str]:
    return [topic.lower() for topic in topics]
