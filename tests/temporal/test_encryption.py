"""The payload codec: round trips, rotation, plain JSON, and errors that say what to do."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter

from waystation.temporal.encryption import (
    ENCODING,
    EncryptionKeyError,
    encrypting_data_converter,
    encryption_codec,
    generate_key,
    parse_key,
)
from waystation.temporal.payload_converter import PayloadDecryptionError

OLD, NEW = f"2025:{generate_key()}", f"2026:{generate_key()}"


@given(data=st.binary(max_size=2000), metadata=st.dictionaries(st.text(max_size=20), st.binary(max_size=20)))
async def test_what_goes_in_comes_out_and_is_not_readable_between(
    data: bytes, metadata: dict[str, bytes]
) -> None:
    codec = encryption_codec([NEW])
    payload = Payload(metadata=metadata, data=data)
    [sealed] = await codec.encode([payload])
    assert sealed.metadata["encoding"] == ENCODING
    assert sealed.metadata["encryption-key-id"] == b"2026"
    if len(data) > 3:
        assert data not in sealed.data
    assert await codec.decode([sealed]) == [payload]


async def test_the_same_payload_never_looks_the_same_twice() -> None:
    codec = encryption_codec([NEW])
    first, second = await codec.encode([Payload(data=b"same"), Payload(data=b"same")])
    assert first.data != second.data


async def test_old_keys_still_read_and_new_keys_write() -> None:
    [written_before] = await encryption_codec([OLD]).encode([Payload(data=b"old")])
    rotated = encryption_codec([NEW, OLD])
    assert (await rotated.decode([written_before]))[0].data == b"old"
    [written_now] = await rotated.encode([Payload(data=b"new")])
    assert written_now.metadata["encryption-key-id"] == b"2026"


async def test_a_missing_key_is_named() -> None:
    [sealed] = await encryption_codec([OLD]).encode([Payload(data=b"x")])
    with pytest.raises(PayloadDecryptionError, match=r"'2025'.*not configured"):
        await encryption_codec([NEW]).decode([sealed])


@pytest.mark.parametrize("position", [0, 5, 13, -1])
async def test_a_changed_payload_is_refused(position: int) -> None:
    codec = encryption_codec([NEW])
    [sealed] = await codec.encode([Payload(data=b"pay 25 dollars")])
    changed = bytearray(sealed.data)
    changed[position] ^= 1
    with pytest.raises(PayloadDecryptionError, match="changed"):
        await codec.decode([Payload(metadata=dict(sealed.metadata), data=bytes(changed))])


async def test_a_relabelled_payload_is_refused() -> None:
    same_key = generate_key()
    codec = encryption_codec([f"a:{same_key}", f"b:{same_key}"])
    [sealed] = await codec.encode([Payload(data=b"x")])
    relabelled = Payload(metadata={**sealed.metadata, "encryption-key-id": b"b"}, data=sealed.data)
    with pytest.raises(PayloadDecryptionError):
        await codec.decode([relabelled])


async def test_plain_json_from_the_command_line_is_read() -> None:
    converter = encrypting_data_converter(encryption_codec([NEW]))
    typed = Payload(metadata={"encoding": b"json/plain"}, data=json.dumps({"by": "alice"}).encode())
    assert await converter.decode([typed]) == [{"by": "alice"}]


async def test_the_converter_encrypts_failures_too() -> None:
    from temporalio.api.failure.v1 import Failure
    from temporalio.exceptions import ApplicationError

    converter = encrypting_data_converter(encryption_codec([NEW]))
    failure = Failure()
    await converter.encode_failure(ApplicationError("spt_verysecret was refused"), failure)
    assert b"verysecret" not in failure.SerializeToString()
    assert "verysecret" in str(await converter.decode_failure(failure))


async def test_both_converters_read_what_was_written_in_clear() -> None:
    [clear] = await pydantic_data_converter.encode([{"a": 1}])
    assert await encrypting_data_converter(encryption_codec([NEW])).decode([clear]) == [{"a": 1}]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ([], "no encryption key"),
        (["nokeyid"], "<key id>:"),
        ([":AAAA"], "<key id>:"),
        (["a b:AAAA"], "<key id>:"),
        (["k:!!!!"], "not base64"),
        (["k:QUJD"], "has 3 bytes"),
        ([NEW, NEW], "same key id"),
    ],
)
def test_bad_keys_say_what_to_do_and_never_show_the_key(keys: list[str], says: str) -> None:
    with pytest.raises(EncryptionKeyError, match=says) as caught:
        encryption_codec(keys)
    for key in keys:
        material = key.partition(":")[2]
        assert not material or len(material) < 5 or material not in str(caught.value)


def test_keys_are_read_with_and_without_padding_and_in_both_alphabets() -> None:
    key_id, key = parse_key(NEW)
    assert parse_key(NEW.rstrip("=")) == (key_id, key)
    assert parse_key(NEW.replace("-", "+").replace("_", "/")) == (key_id, key)


def test_a_codec_does_not_show_its_keys() -> None:
    assert NEW.partition(":")[2] not in repr(encryption_codec([NEW]))


def test_converters_keep_their_validators_from_call_to_call() -> None:
    """With external storage the SDK makes a payload converter for every call."""
    make = encrypting_data_converter(encryption_codec([NEW])).payload_converter_class
    first, again = make(), make()
    assert isinstance(first, PydanticPayloadConverter)
    assert isinstance(again, PydanticPayloadConverter)
    assert first.converters[b"json/plain"] is again.converters[b"json/plain"]
