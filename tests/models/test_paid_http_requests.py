"""A paid request is accepted only if it can be sent: what can't be would be tried again and again."""

import base64

import h11
import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from waystation.models.payments import PaidHttpRequest

URL = "https://api.example/report"
TEXT = st.text(max_size=12) | st.text(alphabet="aB-_ :\t\r\n\0", max_size=6)


@given(name=TEXT, value=TEXT)
@example(name="X-A", value="a\r\nB: c")
@example(name="X A", value="a")
@example(name="", value="a")
@example(name="X-A", value="\u0151")
@example(name="X-A", value=" a")
@example(name="X-A", value="")
def test_every_header_that_is_accepted_can_be_sent(name: str, value: str) -> None:
    try:
        wanted = PaidHttpRequest(url=URL, headers=((name, value),))
    except ValidationError:
        return
    built = httpx.Request("GET", URL, headers=list(wanted.headers))
    h11.Request(method="GET", target="/report", headers=built.headers.raw)
    assert built.headers[name] == value


@pytest.mark.parametrize("value", ["a", "a b", "", "text/plain; q=0.5", '"quoted"'])
def test_ordinary_headers_are_accepted(value: str) -> None:
    assert PaidHttpRequest(url=URL, headers=(("Accept", value),)).headers == (("Accept", value),)


@given(st.binary(max_size=40))
def test_every_body_is_accepted(body: bytes) -> None:
    assert PaidHttpRequest(url=URL, body_base64=base64.b64encode(body).decode())
    assert PaidHttpRequest(url=URL, body_base64=base64.encodebytes(body).decode())  # in lines


@pytest.mark.parametrize("text", ["!!", "a", "YQ", "Y Q=="])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="base64"):
        PaidHttpRequest(url=URL, body_base64=text)
