"""Order events out: signed, in order, repeated until taken, also over a kill -9 of the shop."""

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from tests.seller.shop.agent import Agent, check, total
from tests.support import wait_until
from tests.world.sandbox import Processor, Shop, running_shop
from waystation.protocols import acp
from waystation.protocols.acp.webhooks import InvalidSignatureError, verify_webhook
from waystation.seller.shop.webhooks import MAX_WAIT_MS, wait_ms

SECRET = "whsec_for_tests"


class Receiver:
    """An agent's webhook endpoint that can be told to fail."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.failures_left = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
                outer.failures_left -= 1
                self.send_response(500 if outer.failures_left >= 0 else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}{acp.WEBHOOK_PATH}"
        self._thread = Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def taken(self) -> list[dict[str, Any]]:
        """The events of the last attempt of each delivery, in the order of their arrival."""
        by_delivery = {headers["request-id"]: json.loads(body) for headers, body in self.received}
        return list(by_delivery.values())

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.close()


@pytest.fixture
def hooked(tmp_path: Path, seller_processor: Processor, receiver: Receiver) -> Iterator[Shop]:
    options = ("--webhook-url", receiver.url, "--webhook-secret", SECRET)
    with running_shop(tmp_path, seller_processor, *options) as shop:
        yield shop


async def test_the_life_of_an_order(hooked: Shop, receiver: Receiver) -> None:
    async with Agent(hooked.url, hooked.processor.url) as agent:
        receiver.failures_left = 2
        session = await agent.ready(("mug_blue", 2), ("ebook_tides", 1))
        done = (await agent.complete(session["id"], await agent.token(total(session)))).json()
        order_id = done["order"]["id"]
        hooked.order(order_id, "ship")
        hooked.order(order_id, "deliver")
        hooked.order(order_id, "refund", amount=1000, key="r1", reason="chipped")
        hooked.order(order_id, "refund", amount=1000, key="r1", reason="chipped")
        wait_until(lambda: len(receiver.taken()) == 4, "four events have arrived")

        events = receiver.taken()
        assert [event["type"] for event in events] == ["order_create"] + ["order_update"] * 3
        assert [event["data"]["status"] for event in events] == [
            "created",
            "shipped",
            "delivered",
            "partially_refunded",
        ]
        assert len(receiver.received) == 6
        for event in events:
            check(event["data"], "Order")
            assert event["data"]["type"] == "order"
        for headers, body in receiver.received:
            assert verify_webhook(SECRET, body, headers["merchant-signature"], int(time.time())) > 0
            with pytest.raises(InvalidSignatureError):
                verify_webhook("other", body, headers["merchant-signature"], int(time.time()))

        last = events[-1]["data"]
        assert last["line_items"][0]["quantity"] == {"ordered": 2, "current": 2, "fulfilled": 2}
        parcel = next(one for one in last["fulfillments"] if one["type"] == "shipping")
        assert [step["type"] for step in parcel["events"]] == ["shipped", "delivered"]
        assert [(one["type"], one["amount"]) for one in last["adjustments"]] == [("refund", 1000)]
        assert last["totals"][-1] == {"type": "amount_refunded", "display_text": "Refunded", "amount": 1000}
        assert [entry["amount"] for entry in hooked.entries_of(session["id"], "refund")] == [1000]
        assert (await agent.send("GET", f"/orders/{order_id}")).json() == last


async def test_refunds_have_an_end(hooked: Shop, receiver: Receiver) -> None:
    async with Agent(hooked.url, hooked.processor.url) as agent:
        session = await agent.ready(("mug_blue", 1))
        done = (await agent.complete(session["id"], await agent.token(total(session)))).json()
        order = hooked.order(done["order"]["id"], "refund", amount=total(session), key="all")
        assert order["status"] == "refunded"
        with pytest.raises(httpx.HTTPStatusError):
            hooked.order(done["order"]["id"], "refund", amount=1, key="more")
        assert [entry["amount"] for entry in hooked.entries_of(session["id"], "refund")] == [total(session)]


async def test_events_survive_kill_9_of_the_shop(hooked: Shop, receiver: Receiver) -> None:
    async with Agent(hooked.url, hooked.processor.url) as agent:
        receiver.failures_left = 1_000_000
        session = await agent.ready(("mug_blue", 1))
        await agent.complete(session["id"], await agent.token(total(session)))
        wait_until(lambda: bool(receiver.received), "a first attempt")
        hooked.kill()
        receiver.failures_left = 0
        attempts = len(receiver.received)
        hooked.start().wait()
        wait_until(lambda: len(receiver.received) > attempts, "the event is sent again after the restart")
        assert {event["type"] for event in receiver.taken()} == {"order_create"}
        assert len({headers["request-id"] for headers, _ in receiver.received}) == 1


def test_waits_double_up_to_an_hour() -> None:
    assert [wait_ms(attempts, 1000) for attempts in (1, 2, 3)] == [1000, 2000, 4000]
    assert wait_ms(20, 1000) == wait_ms(10_000, 1000) == MAX_WAIT_MS
