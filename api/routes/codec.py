"""The codec endpoint: lets operators read encrypted payloads with Temporal's CLI and web UI.

temporal workflow show -w <id> --codec-endpoint http://127.0.0.1:8470/codec --codec-auth "Bearer <key>"
"""

import json

from fastapi import APIRouter
from google.protobuf import json_format
from temporalio.api.common.v1 import Payloads
from temporalio.converter import PayloadCodec

from api.auth import Principal
from api.dependencies import Caller, Parts
from api.door import MAX_BATCH_BODY_BYTES, DoorRoute, takes_body_of
from api.errors import PROBLEM_RESPONSES, Forbidden, Invalid
from waystation.models.base import JsonObject
from waystation.temporal.payload_converter import PayloadDecryptionError

router = APIRouter(route_class=DoorRoute, responses=PROBLEM_RESPONSES, tags=["operations"], prefix="/codec")


@router.post("/decode", summary="Decrypt payloads")
@takes_body_of(MAX_BATCH_BODY_BYTES)
async def decode(body: JsonObject, caller: Caller, parts: Parts) -> JsonObject:
    """Returns payloads in Temporal's JSON form, decrypted; only for operators."""
    return await _coded(body, caller, parts.gateway.client.data_converter.payload_codec, decoding=True)


@router.post("/encode", summary="Encrypt payloads")
@takes_body_of(MAX_BATCH_BODY_BYTES)
async def encode(body: JsonObject, caller: Caller, parts: Parts) -> JsonObject:
    """Returns payloads in Temporal's JSON form, encrypted; only for operators."""
    return await _coded(body, caller, parts.gateway.client.data_converter.payload_codec, decoding=False)


async def _coded(
    body: JsonObject, caller: Principal, codec: PayloadCodec | None, *, decoding: bool
) -> JsonObject:
    if caller.role != "operator" or caller.sessions is not None:
        raise Forbidden("Only operators read and write payloads.")
    payloads = Payloads()
    try:
        json_format.ParseDict(body, payloads, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise Invalid('Give {"payloads": [...]} in Temporal\'s JSON form.') from error
    if codec is not None:
        work = codec.decode if decoding else codec.encode
        try:
            coded = await work(payloads.payloads)
        except PayloadDecryptionError as error:
            raise Invalid(str(error), code="not-decryptable") from error
        payloads = Payloads(payloads=coded)
    answer: JsonObject = json.loads(json_format.MessageToJson(payloads))
    return answer
