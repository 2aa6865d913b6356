"""The JSON-RPC endpoint of the sandbox's chain: what a payer or a seller asks about a payment."""

import time

from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak
from pydantic import Field, JsonValue

from waystation.models.base import Frozen, JsonObject
from waystation.protocols.http402 import as_object, as_text, parse_address
from waystation.sandbox.chain import Chain, Transfer

_BALANCE_OF = keccak(text="balanceOf(address)")[:4].hex()
_AUTHORIZATION_STATE = keccak(text="authorizationState(address,bytes32)")[:4].hex()
_USED = "0x" + keccak(text="AuthorizationUsed(address,bytes32)").hex()
_TRANSFER = "0x" + keccak(text="Transfer(address,address,uint256)").hex()


class RpcRequest(Frozen):
    """A JSON-RPC 2.0 call."""

    jsonrpc: str = "2.0"
    id: int | str = 1
    method: str
    params: list[JsonValue] = Field(default_factory=list)


async def answer_rpc(chain: Chain, request: RpcRequest) -> JsonValue:
    """Returns the result of a call.

    Raises:
        ValueError: The call is unsupported or malformed; also ``KeyError``, ``IndexError``, ``TypeError``.
    """
    if request.method == "eth_chainId":
        return hex(chain.asset.chain_id)
    if request.method == "eth_getBlockByNumber":
        number = int(time.time()) if request.params[0] == "latest" else _quantity(request.params[0])
        return {"number": hex(number), "timestamp": hex(number)}
    if request.method == "eth_getTransactionReceipt":
        made = await chain.transfer_in(as_text(request.params[0], "transaction hash"))
        return None if made is None else _receipt(chain, made)
    if request.method == "eth_getLogs":
        return await _logs(chain, as_object(request.params[0], "the filter"))
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


async def _logs(chain: Chain, wanted: JsonObject) -> list[JsonValue]:
    """Returns the logs in a range of blocks that have the topics asked for, where any are."""
    topics = wanted["topics"]
    if not isinstance(topics, list):
        raise TypeError("topics must be a list")
    first, last = _quantity(wanted["fromBlock"]), _quantity(wanted["toBlock"])
    made = [one for one in await chain.transfers() if first <= one.block <= last]
    return [log for one in made for log in _logs_of(chain, one) if _has(log, topics)]


def _has(log: JsonObject, topics: list[JsonValue]) -> bool:
    own = log["topics"]
    if not isinstance(own, list) or len(own) < len(topics):
        return False
    pairs = zip(own, topics, strict=False)
    return all(
        asked is None or topic in (asked if isinstance(asked, list) else [asked]) for topic, asked in pairs
    )


def _receipt(chain: Chain, made: Transfer) -> JsonObject:
    logs: list[JsonValue] = [*_logs_of(chain, made)]
    return {"transactionHash": made.tx, "blockNumber": hex(made.block), "status": "0x1", "logs": logs}


def _logs_of(chain: Chain, made: Transfer) -> list[JsonObject]:
    payer, payee = (_word(int(address, 16)) for address in (made.payer, made.payee))
    shared: JsonObject = {
        "address": chain.asset.address,
        "transactionHash": made.tx,
        "blockNumber": hex(made.block),
    }
    amount = "0x" + encode(["uint256"], [made.amount]).hex()
    return [
        {**shared, "topics": [_USED, payer, made.nonce], "data": "0x"},
        {**shared, "topics": [_TRANSFER, payer, payee], "data": amount},
    ]


def _quantity(value: JsonValue) -> int:
    return int(as_text(value, "a quantity"), 16)
