"""Webhooks out: where news is sent, what is sent, and what became of it. Headers and signatures are those of
Standard Webhooks (https://www.standardwebhooks.com)."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, JsonValue, StrictBool, StrictInt, StringConstraints

from waystation.models.base import Frozen, WorkflowStart
from waystation.models.events import Event, EventType, SessionId
from waystation.models.proofs import Sealed
from waystation.models.urls import is_loopback, parse_url

MAX_WEBHOOKS: Final = 50
"""Endpoints of one deployment: each is a signal for each piece of news."""
MAX_WEBHOOK_URL_CHARACTERS: Final = 2_000
MAX_DESCRIPTION_CHARACTERS: Final = 200
MAX_DETAILS_BYTES: Final = 16 * 1024
"""The most that ``details`` adds to one message; what is larger is left out and said to be."""
MAX_EVENTS_IN_NEWS: Final = 20
MAX_OVERLAP_SECONDS: Final = 7 * 24 * 3_600
DEFAULT_OVERLAP_SECONDS: Final = 24 * 3_600
MAX_DELIVERIES_IN_PAGE: Final = 100


class OwnWebhookType(StrEnum):
    """What webhooks say of themselves, beside the events of sessions."""

    TEST = "webhook.test"
    DISABLED = "webhook.disabled"


SESSION_NEWS: Final[Mapping[str, tuple[str, ...]]] = {
    EventType.SESSION_CLOSED: (),
    EventType.TURN_COMPLETED: ("attempt",),
    EventType.TURN_STOPPED: ("attempt",),
    EventType.TURN_FAILED: ("attempt", "code"),
    EventType.INPUT_REQUESTED: ("question_id", "kind", "tool", "audience", "deadline", "digest"),
    EventType.INPUT_ANSWERED: ("question_id", "rule"),
    EventType.INPUT_EXPIRED: ("question_id",),
    EventType.INPUT_WITHDRAWN: ("question_id",),
    EventType.SESSION_ASSIGNED: ("operator",),
    EventType.TAKEOVER_STARTED: (),
    EventType.TAKEOVER_RELEASED: (),
}
"""What sessions tell of, and what of an event's data everybody hears: ids, kinds and times, no texts that
agents or users wrote. The rest comes with ``details``."""

_MONEY_FACTS: Final = (
    "purchase_id", "payment_id", "session_id", "agent", "mandate_id", "turn_id", "status", "seller", "rail",
    "payee", "currency", "amount", "total", "digest", "deadline", "approver", "approvers",
    "auto", "money_moved", "charge",
)  # fmt: skip
MONEY_NEWS: Final[Mapping[str, tuple[str, ...]]] = {
    EventType.APPROVAL_REQUESTED: _MONEY_FACTS,
    EventType.APPROVAL_GRANTED: _MONEY_FACTS,
    EventType.APPROVAL_DENIED: _MONEY_FACTS,
    EventType.APPROVAL_EXPIRED: _MONEY_FACTS,
    EventType.PURCHASE_UPDATED: _MONEY_FACTS,
    EventType.PAYMENT_UPDATED: _MONEY_FACTS,
}
"""The same of purchases and paid requests, which tell it themselves."""

WEBHOOK_TYPES: Final = frozenset({*SESSION_NEWS, *MONEY_NEWS, *OwnWebhookType})
_FAMILIES: Final = frozenset(f"{kind.partition('.')[0]}.*" for kind in WEBHOOK_TYPES)


def _check_pattern(text: str) -> str:
    if text == "*" or text in _FAMILIES or text in WEBHOOK_TYPES:
        return text
    known = ", ".join(sorted(WEBHOOK_TYPES))
    raise ValueError(
        f"no webhook is sent for this type; use one of {known}, a family such as 'turn.*', or '*'"
    )


def _check_endpoint(text: str) -> str:
    url = parse_url(text)
    if url.fragment or url.userinfo:
        raise ValueError("a webhook's URL has no fragment, user name or password")
    if url.scheme != "https" and not is_loopback(url.host):
        raise ValueError("webhooks go over https only (http is allowed on loopback)")
    return text


WebhookPattern = Annotated[str, StringConstraints(max_length=64), AfterValidator(_check_pattern)]
"""A type, all types of a family (``turn.*``), or all there are (``*``)."""

WebhookUrl = Annotated[
    str,
    StringConstraints(pattern=r"^https?://", max_length=MAX_WEBHOOK_URL_CHARACTERS),
    AfterValidator(_check_endpoint),
]

WebhookId = SessionId
"""A webhook's id, which is that of its workflow."""


def wants(patterns: tuple[str, ...], kind: str) -> bool:
    """Returns whether an endpoint with these patterns is sent this type.

    >>> wants(("turn.*",), "turn.failed"), wants(("session.closed",), "turn.failed")
    (True, False)
    """
    return "*" in patterns or kind in patterns or f"{kind.partition('.')[0]}.*" in patterns


# What is sent


class WebhookEvent(Frozen):
    """One piece of news. ``id`` follows from what happened: it is the same however often it is told."""

    id: str = Field(max_length=64)
    type: str = Field(max_length=64)
    time: datetime
    data: dict[str, JsonValue] = Field(default_factory=dict)
    details: dict[str, JsonValue] | None = None

    def body(self) -> str:
        """Returns what is sent and signed: ``{"type", "timestamp", "data"}``."""
        data = self.data if self.details is None else {**self.data, "details": self.details}
        whole = {"type": self.type, "timestamp": _wire_time(self.time), "data": data}
        return json.dumps(whole, ensure_ascii=False, separators=(",", ":"))


def _wire_time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"


class WebhookNews(Frozen):
    """What a session, a purchase or a paid request tells an endpoint."""

    events: tuple[WebhookEvent, ...] = Field(max_length=MAX_EVENTS_IN_NEWS)


def event_id(*parts: str) -> str:
    """Returns the id of a message: the same for the same parts, and without the dot that signatures part by.

    >>> event_id("s", "1")
    'msg_71d256607481df12d5f8e48c7a1ba666'
    """
    return f"msg_{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}"


def news_of_session(session_id: str, agent: str, event: Event) -> WebhookEvent | None:
    """Returns what webhooks say of an event of a session; ``None`` if they say nothing."""
    fields = SESSION_NEWS.get(event.type)
    if fields is None:
        return None
    data: dict[str, JsonValue] = {
        "session_id": session_id,
        "seq": event.seq,
        "agent": agent,
        "actor": event.actor.model_dump(mode="json", include={"id", "role"}),
        **({"turn_id": event.turn_id} if event.turn_id else {}),
        **_picked(event.data, fields),
    }
    time = _wire_time(event.time)
    return WebhookEvent(
        id=event_id(session_id, str(event.seq), event.type, time),
        type=event.type,
        time=event.time,
        data=data,
        details=_details(event.data, fields),
    )


def news_of_money(workflow_id: str, kind: str, time: datetime, data: Mapping[str, JsonValue]) -> WebhookEvent:
    """Returns what webhooks say of a purchase or paid request."""
    # The same news twice at the same moment is one: what differs is in the data.
    said = json.dumps(data, sort_keys=True)
    return WebhookEvent(
        id=event_id(workflow_id, kind, _wire_time(time), said),
        type=kind,
        time=time,
        data=_picked(data, _MONEY_FACTS),
        details=_details(data, _MONEY_FACTS),
    )


def _picked(data: Mapping[str, JsonValue], fields: tuple[str, ...]) -> dict[str, JsonValue]:
    return {name: data[name] for name in fields if data.get(name) is not None}


def _details(data: Mapping[str, JsonValue], fields: tuple[str, ...]) -> dict[str, JsonValue] | None:
    rest: dict[str, JsonValue] = {
        name: value for name, value in data.items() if name not in fields and value is not None
    }
    if not rest:
        return None
    if len(json.dumps(rest).encode()) > MAX_DETAILS_BYTES:
        return {"omitted": f"more than {MAX_DETAILS_BYTES} bytes; read them over the API"}
    return rest


# Endpoints


class WebhookSettings(Frozen):
    """Where news is sent, and which."""

    url: WebhookUrl
    events: tuple[WebhookPattern, ...] = Field(min_length=1, max_length=len(WEBHOOK_TYPES))
    description: str = Field(default="", max_length=MAX_DESCRIPTION_CHARACTERS)
    details: StrictBool = False
    """Whether messages carry what agents and users wrote: prompts, arguments, answers, results."""


class WebhookChange(Frozen):
    """What to change of an endpoint; what isn't given stays."""

    url: WebhookUrl | None = None
    events: tuple[WebhookPattern, ...] | None = Field(
        default=None, min_length=1, max_length=len(WEBHOOK_TYPES)
    )
    description: str | None = Field(default=None, max_length=MAX_DESCRIPTION_CHARACTERS)
    details: StrictBool | None = None
    enabled: StrictBool | None = None


class WebhookSecret(Frozen):
    """A secret that signs, sealed. It ends when one that replaced it has been in use for long enough."""

    sealed: Sealed = Field(repr=False)
    created: datetime
    ends: datetime | None = None


WebhookStatus = Literal["enabled", "disabled", "deleted"]


class WebhookView(Frozen):
    """An endpoint as it stands. Its secrets are never shown again."""

    webhook_id: str
    url: str
    events: tuple[str, ...]
    description: str
    details: bool
    status: WebhookStatus
    disabled_because: str | None = None
    created: datetime
    waiting: int
    """Messages that are still to be delivered."""
    dropped: int = 0
    """Messages that were never delivered because too many waited."""
    failing_since: datetime | None = None
    """When the first attempt failed after which none has succeeded."""
    last_delivered: datetime | None = None
    secret_created: datetime | None = None
    old_secrets_end: datetime | None = None
    """Until then messages are signed with earlier secrets too."""


class WebhookList(Frozen):
    """The answer of ``GET /webhooks``: all there are, the newest first."""

    webhooks: tuple[WebhookView, ...]


class CreatedWebhook(Frozen):
    """A webhook with its new secret, shown this once; ``null`` for one that was there already."""

    webhook: WebhookView
    secret: str | None = Field(repr=False)


# Deliveries

DeliveryStatus = Literal["waiting", "delivered", "failed"]


class WebhookAttempt(Frozen):
    """One attempt at delivering: the status that came back, or why none did."""

    time: datetime
    milliseconds: StrictInt
    status: StrictInt | None = None
    error: str | None = Field(default=None, max_length=300)


class WebhookDelivery(Frozen):
    """One message to one endpoint. ``delivery_id`` is its ``webhook-id``, however often it is sent."""

    delivery_id: str
    type: str
    time: datetime
    """When what it tells of happened."""
    status: DeliveryStatus
    attempts: tuple[WebhookAttempt, ...] = ()
    """The latest ones."""
    tried: StrictInt = 0
    next_attempt: datetime | None = None
    body: str | None = None
    """What is sent. Lists leave it out."""


class WebhookDeliveries(Frozen):
    """Deliveries, newest first."""

    deliveries: tuple[WebhookDelivery, ...]
    more: bool


# Between processes


class WebhookOpening(WorkflowStart):
    """What starts an endpoint."""

    settings: WebhookSettings


class Subscription(Frozen):
    """What the registry knows of an endpoint. Of two about the same one the higher ``revision`` counts."""

    webhook_id: WebhookId
    events: tuple[str, ...]
    details: bool
    enabled: bool
    revision: StrictInt
    deleted: bool = False


class SubscriptionList(Frozen):
    """Everything that the registry knows; in its memo too, where it can be read without a worker."""

    subscriptions: tuple[Subscription, ...] = ()


class NewsTypes(Frozen):
    """Of which types there is news."""

    types: tuple[str, ...]


class RegistryStart(WorkflowStart):
    """What starts the registry."""

    CARRIED: ClassVar[frozenset[str]] = frozenset({"state"})

    state: SubscriptionList | None = None


class SecretWanted(Frozen):
    """Asks for a new secret, for the eyes of whoever holds the private half of ``recipient``."""

    recipient: str = Field(max_length=100)
    first: bool = False
    """Whether it is made only if there is none."""
    overlap_seconds: StrictInt = Field(default=DEFAULT_OVERLAP_SECONDS, ge=0, le=MAX_OVERLAP_SECONDS)


class SecretMade(Frozen):
    """A new secret, which only the recipient can open; ``None`` if there was one already."""

    box: str | None = Field(repr=False)


class DeliveryWanted(Frozen):
    """Which delivery."""

    delivery_id: str = Field(max_length=64)


class DeliveriesWanted(Frozen):
    """Which deliveries: those before one, of a status."""

    limit: StrictInt = Field(default=50, ge=1, le=MAX_DELIVERIES_IN_PAGE)
    before: str | None = Field(default=None, max_length=64)
    status: DeliveryStatus | None = None
