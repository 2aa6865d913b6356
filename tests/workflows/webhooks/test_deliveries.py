"""What an endpoint is still to be sent: each message once, in turn, within its bounds."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waystation.models.events import SYSTEM, Actor, Event, EventType, Role
from waystation.models.webhooks import (
    MAX_DETAILS_BYTES,
    DeliveriesWanted,
    WebhookAttempt,
    WebhookChange,
    WebhookEvent,
    WebhookSecret,
    WebhookSettings,
    event_id,
    news_of_session,
)
from workflows.policies import WEBHOOK_RETRY_DELAYS
from workflows.webhooks.deliveries import (
    MAX_ATTEMPTS_LOGGED,
    MAX_LOGGED,
    MAX_LOGGED_BYTES,
    MAX_WAITING,
    MAX_WAITING_BYTES,
    Deliveries,
    DeliveriesState,
)
from workflows.webhooks.state import MAX_SECRETS, EndpointState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DELAYS = (timedelta(seconds=5), timedelta(minutes=1))


def news(number: int, size: int = 10) -> WebhookEvent:
    return WebhookEvent(
        id=event_id(str(number)),
        type="turn.failed",
        time=NOW + timedelta(seconds=number),
        data={"x": "x" * size},
    )


def attempt(status: int = 500) -> WebhookAttempt:
    return WebhookAttempt(time=NOW, milliseconds=1, status=status)


def new() -> Deliveries:
    return Deliveries(DeliveriesState(), DELAYS)


def test_what_is_told_twice_is_delivered_once() -> None:
    deliveries = new()
    assert deliveries.take(news(1), NOW) is not None
    assert deliveries.take(news(1), NOW) is None
    deliveries.attempted(event_id("1"), attempt(200), delivered=True, wait=None, now=NOW)
    assert deliveries.take(news(1), NOW) is None, "also after it was delivered"
    assert deliveries.state.waiting == []


def test_attempts_follow_the_schedule_and_end() -> None:
    deliveries, now = new(), NOW
    deliveries.take(news(1), now)
    for delay in DELAYS:
        waits = deliveries.attempted(event_id("1"), attempt(), delivered=False, wait=None, now=now)
        assert waits is not None
        assert waits.next_attempt == now + delay
        now += delay
    ended = deliveries.attempted(event_id("1"), attempt(), delivered=False, wait=None, now=now)
    assert ended is not None
    assert (ended.status, ended.tried, ended.next_attempt) == ("failed", 3, None)
    assert deliveries.next_due(()) is None


def test_the_schedule_lasts_about_a_day_and_grows() -> None:
    assert timedelta(hours=24) < sum(WEBHOOK_RETRY_DELAYS, timedelta(0)) < timedelta(hours=27)
    assert list(WEBHOOK_RETRY_DELAYS) == sorted(WEBHOOK_RETRY_DELAYS)


def test_a_receiver_may_ask_for_more_time_but_not_for_less() -> None:
    deliveries = new()
    deliveries.take(news(1), NOW)
    wait = timedelta(seconds=30)
    later = deliveries.attempted(event_id("1"), attempt(503), delivered=False, wait=wait, now=NOW)
    assert later is not None
    assert later.next_attempt == NOW + wait
    wait = timedelta(seconds=1)
    later = deliveries.attempted(event_id("1"), attempt(503), delivered=False, wait=wait, now=NOW)
    assert later is not None
    assert later.next_attempt == NOW + DELAYS[1]


def test_a_delivery_can_be_begun_anew_with_the_whole_schedule() -> None:
    deliveries = new()
    deliveries.take(news(1), NOW)
    assert deliveries.again(event_id("1"), NOW) is None, "it waits"
    for _ in range(len(DELAYS) + 1):
        deliveries.attempted(event_id("1"), attempt(), delivered=False, wait=None, now=NOW)
    again = deliveries.again(event_id("1"), NOW)
    assert again is not None
    assert (again.status, again.tried, len(again.attempts)) == ("waiting", 0, 3)
    assert deliveries.again(event_id("2"), NOW) is None


@given(st.lists(st.tuples(st.integers(0, 40_000), st.booleans()), min_size=1, max_size=60))
def test_whatever_comes_stays_within_the_bounds(given: list[tuple[int, bool]]) -> None:
    deliveries, kept = new(), 0
    for number, (size, fails) in enumerate(given):
        assert deliveries.take(news(number, size), NOW) is not None
        if not fails:
            deliveries.attempted(event_id(str(number)), attempt(200), delivered=True, wait=None, now=NOW)
            kept += 1
    state = deliveries.state
    for listed, most in ((state.waiting, MAX_WAITING_BYTES), (state.logged, MAX_LOGGED_BYTES)):
        sizes = [len((one.body or "").encode()) for one in listed]
        assert sum(sizes) <= most or len(sizes) == 1
    assert len(state.waiting) + state.dropped + kept == len(given)
    assert state.waiting == sorted(state.waiting, key=lambda one: one.time), "the newest stay, in order"


def test_too_many_drop_the_oldest_but_none_that_is_under_way() -> None:
    deliveries = new()
    for number in range(MAX_WAITING + 5):
        deliveries.take(news(number, 0), NOW, {event_id("0")})
    assert deliveries.state.dropped >= 5
    assert deliveries.find(event_id("0")) is not None
    assert deliveries.find(event_id("1")) is None
    assert deliveries.find(event_id(str(MAX_WAITING + 4))) is not None


def test_what_was_delivered_is_remembered_for_a_while() -> None:
    deliveries = new()
    for number in range(MAX_LOGGED + 5):
        deliveries.take(news(number), NOW)
        deliveries.attempted(event_id(str(number)), attempt(200), delivered=True, wait=None, now=NOW)
    assert len(deliveries.state.logged) <= MAX_LOGGED
    assert deliveries.find(event_id("0")) is None


def test_attempts_that_are_kept_of_one_delivery_are_bounded() -> None:
    deliveries = new()
    deliveries.take(news(1), NOW)
    for _ in range(MAX_ATTEMPTS_LOGGED):
        while (one := deliveries.find(event_id("1"))) and one.status == "waiting":
            deliveries.attempted(event_id("1"), attempt(), delivered=False, wait=None, now=NOW)
        deliveries.again(event_id("1"), NOW)
    found = deliveries.find(event_id("1"))
    assert found is not None
    assert len(found.attempts) == MAX_ATTEMPTS_LOGGED


def test_pages_are_newest_first_and_show_no_bodies() -> None:
    deliveries = new()
    for number in range(5):
        deliveries.take(news(number), NOW)
    deliveries.attempted(event_id("3"), attempt(200), delivered=True, wait=None, now=NOW)
    first = deliveries.page(DeliveriesWanted(limit=2))
    assert [one.delivery_id for one in first.deliveries] == [event_id("4"), event_id("3")]
    assert first.more
    assert all(one.body is None for one in first.deliveries)
    rest = deliveries.page(DeliveriesWanted(limit=9, before=event_id("3")))
    assert [one.delivery_id for one in rest.deliveries] == [event_id("2"), event_id("1"), event_id("0")]
    assert not rest.more
    [only] = deliveries.page(DeliveriesWanted(status="delivered")).deliveries
    assert only.delivery_id == event_id("3")


# Secrets


def endpoint() -> EndpointState:
    return EndpointState(
        settings=WebhookSettings(url="https://receiver.example/", events=("*",)), created=NOW
    )


def secret(number: int) -> WebhookSecret:
    return WebhookSecret(sealed=f"sealed:k:{number}", created=NOW + timedelta(hours=number))


def signing(state: EndpointState, hours: int) -> list[str]:
    return [one.sealed for one in state.live_secrets(NOW + timedelta(hours=hours))]


def test_an_earlier_secret_signs_until_the_overlap_ends() -> None:
    state = endpoint()
    state.add_secret(secret(0), overlap=timedelta(hours=1))
    state.add_secret(secret(10), overlap=timedelta(hours=1))
    assert signing(state, 10) == ["sealed:k:10", "sealed:k:0"]
    assert signing(state, 11) == ["sealed:k:10"]


def test_a_rotation_without_overlap_ends_what_was_there() -> None:
    state = endpoint()
    state.add_secret(secret(0), overlap=timedelta(0))
    state.add_secret(secret(1), overlap=timedelta(hours=9))
    state.add_secret(secret(2), overlap=timedelta(0))
    assert signing(state, 2) == ["sealed:k:2"]


def test_only_so_many_secrets_sign() -> None:
    state = endpoint()
    for number in range(4):
        state.add_secret(secret(number), overlap=timedelta(days=1))
    assert "sealed:k:0" in signing(state, 4), "the receiver's, when three answers were lost"
    for number in range(4, MAX_SECRETS + 2):
        state.add_secret(secret(number), overlap=timedelta(days=1))
    assert len(signing(state, MAX_SECRETS + 2)) == MAX_SECRETS


def test_a_change_changes_what_is_given() -> None:
    state = endpoint()
    state.change(WebhookChange(events=("turn.*",)))
    assert (state.settings.url, state.settings.events) == ("https://receiver.example/", ("turn.*",))
    state.change(WebhookChange(enabled=False))
    assert state.view("w", NOW).status == "disabled"
    state.change(WebhookChange(enabled=True))
    assert (state.status, state.disabled_because) == ("enabled", None)


# What is said


@pytest.mark.parametrize(
    "url",
    ["http://example.com/", "https://u:p@example.com/", "https://example.com/#x", "ftp://x", "https://"],
)
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        WebhookSettings(url=url, events=("*",))


def test_a_type_that_nobody_sends_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no webhook is sent for this type; use one of approval\.denied"):
        WebhookSettings(url="https://example.com/", events=("turn.exploded",))


def test_texts_come_with_the_details_only() -> None:
    event = Event(
        seq=4,
        time=NOW,
        type=EventType.INPUT_REQUESTED,
        actor=Actor(id="bot", role=Role.AGENT),
        turn_id="t1",
        data={"question_id": "t1:q", "kind": "approval", "prompt": "Delete?", "arguments": {"path": "/"}},
    )
    said = news_of_session("s", "bot", event)
    assert said is not None
    assert said.data == {
        "session_id": "s",
        "seq": 4,
        "agent": "bot",
        "actor": {"id": "bot", "role": "agent"},
        "turn_id": "t1",
        "question_id": "t1:q",
        "kind": "approval",
    }
    assert said.details == {"prompt": "Delete?", "arguments": {"path": "/"}}


def test_details_that_are_too_large_are_left_out_and_said_to_be() -> None:
    data = {"result": "x" * MAX_DETAILS_BYTES}
    event = Event(seq=4, time=NOW, type=EventType.TURN_COMPLETED, actor=SYSTEM, data=dict(data))
    said = news_of_session("s", "bot", event)
    assert said is not None
    assert said.details is not None
    assert set(said.details) == {"omitted"}


def test_of_messages_nothing_is_said() -> None:
    event = Event(seq=4, time=NOW, type=EventType.MESSAGE_COMPLETED, actor=SYSTEM, data={"text": "x"})
    assert news_of_session("s", "bot", event) is None
