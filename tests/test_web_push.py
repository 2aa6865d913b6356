"""The standards' own example of a message, and what the reference library reads."""

import http_ece
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from waystation.web_push import (
    MAX_MESSAGE_BYTES,
    VapidSigner,
    check_browser_key,
    encrypted,
    from_base64,
    new_vapid_keys,
    to_base64,
)

# RFC 8291, 5 and appendix A.
PLAIN = "V2hlbiBJIGdyb3cgdXAsIEkgd2FudCB0byBiZSBhIHdhdGVybWVsb24"
SENDER = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
BROWSER = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"
P256DH = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
SALT = "DGv6ra1nlYgDCS1FRnbzlw"
MESSAGE = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6"
    "cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)


def key(scalar: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(from_base64(scalar), "big"), ec.SECP256R1())


def test_the_example_of_the_standard() -> None:
    made = encrypted(from_base64(PLAIN), P256DH, AUTH, salt=from_base64(SALT), once=key(SENDER))
    assert to_base64(made) == MESSAGE


@given(st.binary(max_size=MAX_MESSAGE_BYTES))
def test_the_reference_library_reads_every_message(message: bytes) -> None:
    made = encrypted(message, P256DH, AUTH)
    assert len(made) <= 4_096
    auth = from_base64(AUTH)
    assert http_ece.decrypt(made, private_key=key(BROWSER), auth_secret=auth, version="aes128gcm") == message


def test_each_message_has_a_key_and_a_salt_of_its_own() -> None:
    one, two = encrypted(b"x", P256DH, AUTH), encrypted(b"x", P256DH, AUTH)
    assert one[:16] != two[:16]
    assert one[21:86] != two[21:86]


def test_what_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 3993 bytes"):
        encrypted(b"x" * (MAX_MESSAGE_BYTES + 1), P256DH, AUTH)


def test_a_key_is_checked() -> None:
    check_browser_key(P256DH)
    with pytest.raises(ValueError):  # noqa: PT011 - the library's own words
        check_browser_key(P256DH[:-4] + "AAAA")
    for wrong in ("", "A" * 42, "é"):
        with pytest.raises(ValueError):  # noqa: PT011
            VapidSigner(wrong, "mailto:x@example.com")
    private, public = new_vapid_keys()
    assert VapidSigner(private, "mailto:x@example.com").public_key == public
