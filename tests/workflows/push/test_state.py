"""What browsers are told: what is new to them, once, while it waits."""

from datetime import UTC, datetime, timedelta

import pytest

from waystation.models.attention import AttentionItem, AttentionKind
from waystation.models.push import MAX_BROWSERS, PushTarget, body_of, key_of
from waystation.models.webhooks import WebhookAttempt
from workflows.policies import PUSH_RETRY_DELAYS
from workflows.push.state import MAX_TOLD, PushBook, PushState, TooManyError

BEGAN = datetime(2026, 5, 1, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def item(name: str, *, minutes: int = 1, deadline: datetime | None = None) -> AttentionItem:
    since = BEGAN + minutes * MINUTE
    kind = AttentionKind.QUESTION
    return AttentionItem(kind=kind, id=name, session_id="s", line=name, since=since, deadline=deadline)


def target(name: str, ends: datetime | None = None) -> PushTarget:
    return PushTarget(
        subscription_id=name, endpoint=f"https://push.example/{name}", p256dh="p", auth="a", ends=ends
    )


class Told:
    """A book, and what is sent by it."""

    def __init__(self, *browsers: PushTarget) -> None:
        self.state = PushState()
        self.book = PushBook(self.state, PUSH_RETRY_DELAYS)
        for one in browsers:
            self.book.subscribe(one, BEGAN)

    def take(self, *items: AttentionItem, now: datetime = BEGAN + MINUTE) -> None:
        self.book.take(items, now, ())

    def send(
        self, *, delivered: bool = True, final: bool = False, now: datetime = BEGAN + MINUTE
    ) -> list[str]:
        """Attempts all that is due; returns to which browser what was sent."""
        sent = []
        while (due := self.book.next_due(())) and due.next_attempt and due.next_attempt <= now:
            found = self.book.to_send(due.delivery_id, now)
            if found is None:
                self.book.drop(due.delivery_id)
                continue
            browser, message, _ = found
            sent.append(f"{browser.subscription_id} {message.id}")
            attempt = WebhookAttempt(time=now, milliseconds=1)
            self.book.attempted(
                due.delivery_id, attempt, delivered=delivered, final=final, wait=None, now=now
            )
        return sent


def test_each_browser_is_told_once() -> None:
    told = Told(target("a"), target("b"))
    told.take(item("x"))
    assert told.send() == ["a x", "b x"]
    told.take(item("x"), item("y"))
    told.take(item("y"), item("x"))
    assert told.send() == ["a y", "b y"]
    told.take()
    told.take(item("x"), item("y"))
    assert told.send() == [], "an API process that was late says nothing new"
    assert [one.status for one in told.book.view().deliveries] == ["delivered"] * 4


def test_what_waited_before_is_not_told() -> None:
    told = Told(target("a"))
    told.book.subscribe(target("b"), BEGAN + 5 * MINUTE)
    told.book.subscribe(target("a"), BEGAN + 5 * MINUTE)  # renewed
    told.take(item("x", minutes=3), item("old", minutes=0))
    assert told.send() == ["a x"]


def test_what_is_settled_is_not_told_any_more() -> None:
    told = Told(target("a"))
    told.take(item("x"), item("y"))
    assert len(told.send(delivered=False)) == 2
    told.take(item("y"))
    later = BEGAN + 2 * MINUTE
    assert told.send(now=later) == ["a y"]
    told.take(item("x"), item("y"), now=later)
    assert told.send(now=later) == ["a x"], "it waits after all: it was not known for a moment"
    overdue = item("z", deadline=later)
    told.take(overdue, now=later)
    assert told.send(now=later) == []
    assert told.state.deliveries.waiting == []


def test_what_is_no_use_is_not_tried_again() -> None:
    told = Told(target("a"))
    told.take(item("x"))
    assert told.send(delivered=False, final=True) == ["a x"]
    assert told.send(now=BEGAN + timedelta(days=2)) == []
    [delivery] = told.book.view().deliveries
    assert (delivery.status, delivery.next_attempt) == ("failed", None)
    told.take(item("y"))
    now = BEGAN + MINUTE
    for tries in range(1, len(PUSH_RETRY_DELAYS) + 2):
        assert told.send(delivered=False, now=now) == ["a y"], tries
        now += PUSH_RETRY_DELAYS[min(tries, len(PUSH_RETRY_DELAYS)) - 1]
    assert told.send(now=now + timedelta(days=2)) == []


def test_a_browser_goes_with_its_token() -> None:
    ends = BEGAN + 5 * MINUTE
    told = Told(target("a", ends=ends), target("b"))
    assert told.book.next_end() == ends
    told.take(item("x"))
    told.book.expire(ends)
    assert told.send(now=ends) == ["b x"]
    assert told.book.next_end() is None
    told.book.subscribe(target("b", ends=ends), BEGAN)
    assert told.book.next_end() == ends, "renewed with another token, it ends with that"


def test_bounds() -> None:
    told = Told(*(target(str(n)) for n in range(MAX_BROWSERS)))
    with pytest.raises(TooManyError):
        told.book.subscribe(target("another"), BEGAN)
    told.book.subscribe(target("0"), BEGAN)
    told.book.unsubscribe("1")
    told.book.subscribe(target("another"), BEGAN)
    for n in range(8):
        told.take(*(item(f"{n}-{i}") for i in range(20)))
        told.send()
    told.take()
    assert len(told.state.told) <= MAX_TOLD
    assert len(told.state.messages) == len(told.state.deliveries.logged) <= 200
    assert len(told.state.model_dump_json()) < 1_000_000


def test_what_is_asked_anew_is_another() -> None:
    first = AttentionItem(kind=AttentionKind.FAILURE, id="s", session_id="s", line="x", since=BEGAN)
    again = first.model_copy(update={"since": BEGAN + MINUTE})
    assert key_of(first) != key_of(again)
    asked = item("q", minutes=1)
    assert key_of(asked) == key_of(asked.model_copy(update={"since": BEGAN, "line": "other"}))
    cart = AttentionItem(kind=AttentionKind.PURCHASE, id="p", line="x", since=BEGAN, deadline=BEGAN)
    assert key_of(cart) == key_of(cart.model_copy(update={"since": BEGAN + MINUTE}))
    assert key_of(cart) != key_of(cart.model_copy(update={"deadline": BEGAN + MINUTE}))
    assert len(body_of(item("q").model_copy(update={"line": "ü" * 10_000}))) < 600
