"""What passes a model, a workflow can reckon with: URLs have an origin, times stay within the calendar."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from waystation.buyer.origins import RequestInvalidError, check_transport, origin_of
from waystation.models.questions import ApprovalAnswer, QuestionAsked
from waystation.models.times import EARLIEST, LATEST, Instant, clamped
from waystation.models.urls import Origin, Url

URL: TypeAdapter[str] = TypeAdapter(Url)
ORIGIN: TypeAdapter[str] = TypeAdapter(Origin)
INSTANT: TypeAdapter[datetime] = TypeAdapter(Instant)
ODD_HOSTS = [
    "xn--",
    "[::1",
    "[1::2::3]",
    "a:99999",
    "a:0",
    "",
    "a\ud800",
    "999.1.1.1",
    "u:p@",
    "a\x00",
    "\u3002",
]
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
A_CENTURY = timedelta(days=36_525)


@given(st.text() | st.sampled_from(ODD_HOSTS), st.text(max_size=5))
@example("xn--", "")
def test_a_url_that_passes_has_an_origin(host: str, path: str) -> None:
    text = f"https://{host}/{path}"
    try:
        URL.validate_python(text)
    except ValidationError:
        with pytest.raises(RequestInvalidError):
            origin_of(text)
    else:
        assert origin_of(text).startswith("https://")


@pytest.mark.parametrize("host", ["xn--", "[::1", "a:99999", "a:0"])
def test_an_origin_is_one_that_can_be_called(host: str) -> None:
    with pytest.raises(ValidationError, match="URL"):
        ORIGIN.validate_python(f"https://{host}")
    with pytest.raises(RequestInvalidError) as refused:
        check_transport(f"https://{host}/")
    assert refused.value.rule == "url_invalid"


@given(st.datetimes(timezones=OFFSETS))
@example(datetime.max.replace(tzinfo=UTC))
@example(datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))))
@example(datetime.min.replace(tzinfo=timezone(timedelta(hours=14))))
def test_time_that_passes_can_be_reckoned_with(moment: datetime) -> None:
    try:
        passed = INSTANT.validate_python(moment)
    except ValidationError:
        passed = clamped(moment)
    assert EARLIEST <= passed < LATEST
    assert (passed + A_CENTURY).astimezone(UTC) > (passed - A_CENTURY).astimezone(UTC)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_nobody_decides_on_a_number_that_they_cannot_see(odd: float) -> None:
    arguments = {"to": [{"amount": odd}]}
    asked = {"question_id": "q", "kind": "approval", "prompt": "Pay?", "tool": "pay", "arguments": arguments}
    with pytest.raises(ValidationError, match="NaN and infinities are no JSON"):
        QuestionAsked.model_validate(asked)
    with pytest.raises(ValidationError, match="NaN and infinities are no JSON"):
        ApprovalAnswer.model_validate({"decision": "approve", "arguments": arguments})
