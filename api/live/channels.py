"""The sessions that this process's agents write to: what is written goes two ways at the same time.

Deltas go over the live bus to every screen, in order with what only the log shows (api/live/order.py), and
everything goes into the session's next durable batch (api/live/batcher.py).
"""

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from pydantic import TypeAdapter

from api.errors import Invalid
from api.gateways.sessions import Gateway
from api.live.batcher import Batcher
from api.live.bus import LiveBus
from api.live.feed import Feed
from api.live.feeds import Feeds
from api.live.order import WriterOrder
from api.live.receipts import Author, Handed
from waystation.answers import SchemaError, check_schema
from waystation.models.events import (
    MAX_DATA_BYTES,
    MAX_MESSAGE_CHARACTERS,
    EventType,
    Item,
    LiveDelta,
    Write,
    is_agent_writable,
    is_encodable,
)
from waystation.models.live import Delta, Tick
from waystation.models.needs import what_is_missing
from waystation.settings import Settings

_LIVE: TypeAdapter[LiveDelta] = TypeAdapter(LiveDelta)
_SURROGATE = re.compile("[\ud800-\udfff]")


class Channel:
    """A session being written to by this process: its feed and its batcher."""

    def __init__(self, feed: Feed, bus: LiveBus, gateway: Gateway, interval_seconds: float) -> None:
        self.feed, self._bus = feed, bus
        self._batcher = Batcher(feed.session_id, gateway, interval_seconds, self._hand_over)
        self._orders: dict[str, WriterOrder] = {}

    def _hand_over(self, handed: Sequence[Handed], quiet: bool) -> None:
        self.feed.expect(handed)
        self._bus.publish(self.feed.session_id, Tick(quiet=quiet))

    async def write(self, write: Write, author: Author, *, flush: bool) -> None:
        """Shows deltas as early as their order allows, and hands everything to the durable path."""
        order = self._order(write.writer, author)
        for item in write.items:
            order.write(write, item)
        await self._batcher.add(write, order, flush=flush)
        if flush:
            self.feed.settle_soon()

    def know(self, writer: str, author: Author, seq: int) -> None:
        """Notes that the writer knows of the event ``seq``: what it writes from now on comes after it."""
        self._order(writer, author).know(seq)

    def catch_up(self, writer: str, author: Author) -> None:
        """Holds what the writer says until ``caught_up``, when the log was read for it."""
        self._order(writer, author).catch_up()

    def caught_up(self, writer: str, author: Author) -> None:
        """Shows what the writer has said since ``catch_up``."""
        self._order(writer, author).caught_up()

    def forget(self, writer: str, author: Author) -> None:
        """Forgets a writer that writes nothing more."""
        order = self._orders.get(writer)
        if order is not None and order.author is author:
            del self._orders[writer]

    def _order(self, writer: str, author: Author) -> WriterOrder:
        order = self._orders.get(writer)
        if order is None or order.author is not author:
            # Another connection writes now; it sends again whatever the last one doesn't know to be settled.
            order = self._orders[writer] = WriterOrder(author, self._show)
        return order

    def _show(self, write: Write, item: Item, after: int) -> None:
        message_id, text, offset = item.message_id, item.data["text"], item.data["offset"]
        # ``check_item`` has made sure of it.
        assert isinstance(message_id, str)
        assert isinstance(text, str)
        assert isinstance(offset, int)
        live = LiveDelta.model_construct(
            actor=write.actor, turn_id=write.turn_id, message_id=message_id, data=item.data
        )
        self._bus.publish(
            self.feed.session_id,
            Delta(
                turn_id=write.turn_id,
                attempt=write.attempt,
                message_id=message_id,
                offset=offset,
                length=len(text),
                wire=_LIVE.dump_json(live, exclude_none=True, exclude={"attempt"}),
                after=max(after, self.feed.heading),
            ),
        )

    def fenced(self, turn_id: str | None, attempt: int) -> bool:
        """Returns whether the turn is known to have moved on to a later attempt.

        An earlier one says nothing: this process may not have read yet that this attempt has begun.
        """
        known = self.feed.gate.attempts.get(turn_id or "")
        return known is not None and known > attempt


class Channels:
    """The sessions that this process's agents write to."""

    def __init__(self, feeds: Feeds, bus: LiveBus, gateway: Gateway, settings: Settings) -> None:
        self._feeds, self._bus, self._gateway = feeds, bus, gateway
        self._interval = settings.durable_interval_ms / 1_000
        self._channels: dict[str, tuple[Channel, int]] = {}

    def tick(self, session_id: str) -> None:
        """Tells the live bus that the session has news."""
        self._bus.publish(session_id, Tick())

    @asynccontextmanager
    async def use(self, session_id: str) -> AsyncIterator[Channel]:
        """Yields the session's channel while the block runs; all who write to it here share one batcher."""
        async with self._feeds.use(session_id) as feed:
            channel, users = self._channels.get(session_id, (None, 0))
            if channel is None:
                channel = Channel(feed, self._bus, self._gateway, self._interval)
            self._channels[session_id] = (channel, users + 1)
            try:
                yield channel
            finally:
                channel, users = self._channels[session_id]
                if users > 1:
                    self._channels[session_id] = (channel, users - 1)
                else:
                    del self._channels[session_id]


def check_item(item: Item) -> None:
    """Refuses what no session would take, with a sentence that says what to do.

    Raises:
        Invalid: Says what is wrong with the item.
    """
    if not is_agent_writable(item.type):
        raise Invalid(
            f"Agents can't write '{item.type}'; use message.*, tool.*, input.requested or data.<name>.",
            code="bad-type",
        )
    text = item.data.get("text")
    if item.type == EventType.MESSAGE_DELTA:
        _check_delta(item, text)
        return
    if missing := what_is_missing(item):
        raise Invalid(f"The item {item.n}, {item.type}, is malformed: {missing}.", code="bad-item")
    if item.type == EventType.INPUT_REQUESTED:
        _check_question(item)
    if not is_encodable(item.data):
        raise _not_encodable()
    data = item.data
    if isinstance(text, str) and item.type == EventType.MESSAGE_COMPLETED:
        if len(text) > MAX_MESSAGE_CHARACTERS:
            raise _too_long()
        data = {key: value for key, value in data.items() if key != "text"}
    try:
        size_bytes = len(json.dumps(data, allow_nan=False))
    except ValueError:
        raise Invalid(
            "The data contains NaN or an infinity, which JSON doesn't know; leave it out."
        ) from None
    if size_bytes > MAX_DATA_BYTES:
        raise Invalid(
            f"One event carries at most {MAX_DATA_BYTES} bytes of data; store it and write a link.",
            code="data-too-large",
        )


def _check_question(item: Item) -> None:
    if item.data.get("reply_to") is not None:
        # The session would signal any workflow in the agent's name, about a question that is not its own.
        raise Invalid("'reply_to' is for workflows, which don't ask through the API.", code="bad-question")
    schema = item.data.get("schema")
    if isinstance(schema, dict):
        try:
            check_schema(schema)
        except SchemaError as error:
            raise Invalid(f"The question's schema can't be used: {error}.", code="bad-question") from None


def _check_delta(item: Item, text: object) -> None:
    offset = item.data.get("offset")
    bare = item.message_id is not None and item.data.keys() == {"offset", "text"}
    if not bare or not isinstance(text, str) or type(offset) is not int or offset < 0:
        raise Invalid(
            "A message.delta needs message_id and data {offset: int >= 0, text: str}, nothing else.",
            code="bad-delta",
        )
    if not text.isascii() and _SURROGATE.search(text):
        raise _not_encodable()
    if offset + len(text) > MAX_MESSAGE_CHARACTERS:
        raise _too_long()


def _not_encodable() -> Invalid:
    return Invalid("The data contains half a surrogate pair, which is not a character; leave it out.")


def _too_long() -> Invalid:
    return Invalid(
        f"A message has at most {MAX_MESSAGE_CHARACTERS} characters; complete it and start another.",
        code="message-too-long",
    )
