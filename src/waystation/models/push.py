"""Web Push: which browsers of a person are told that something waits, and what became of it."""

import base64
import binascii
import hashlib
import json
from datetime import datetime
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, ConfigDict, Field, StrictFloat, StringConstraints

from waystation.models.attention import MAX_ITEMS, AttentionItem, AttentionKind
from waystation.models.base import Frozen, WorkflowStart, replaced
from waystation.models.urls import is_loopback, parse_url
from waystation.models.webhooks import DeliveryStatus, WebhookAttempt

MAX_BROWSERS: Final = 10
"""Of one person with the same rights."""
MAX_PUSH_PEOPLE: Final = 1_000
"""Who may be told at all: an API process keeps in mind what waits for each."""
MAX_ENDPOINT_CHARACTERS: Final = 2_000
MAX_LINE_CHARACTERS: Final = 200
"""Of what is pushed; a notification shows less."""
_POINT_BYTES: Final = 65
_UNCOMPRESSED: Final = b"\x04"
_AUTH_BYTES: Final = 16


def _bytes_of(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("not base64url") from None


def _check_p256dh(text: str) -> str:
    point = _bytes_of(text)
    if len(point) != _POINT_BYTES or not point.startswith(_UNCOMPRESSED):
        raise ValueError("a browser's key is an uncompressed point of P-256, 65 bytes in base64url")
    return text


def _check_auth(text: str) -> str:
    if len(_bytes_of(text)) != _AUTH_BYTES:
        raise ValueError("a browser's authentication secret has 16 bytes, in base64url")
    return text


def _check_endpoint(text: str) -> str:
    url = parse_url(text)
    if url.fragment or url.userinfo:
        raise ValueError("a push service's URL has no fragment, user name or password")
    if url.scheme != "https" and not is_loopback(url.host):
        raise ValueError("pushes go over https only (http is allowed on loopback)")
    return text


PushEndpoint = Annotated[
    str,
    StringConstraints(pattern=r"^https?://", max_length=MAX_ENDPOINT_CHARACTERS),
    AfterValidator(_check_endpoint),
]


class BrowserKeys(Frozen):
    """For whom messages are encrypted."""

    p256dh: Annotated[str, StringConstraints(max_length=100), AfterValidator(_check_p256dh)]
    auth: Annotated[str, StringConstraints(max_length=100), AfterValidator(_check_auth)] = Field(repr=False)


class BrowserSubscription(Frozen):
    """The body of ``PUT /push/subscriptions``: a browser's ``PushSubscription`` as its JSON."""

    model_config = ConfigDict(populate_by_name=True)

    endpoint: PushEndpoint = Field(repr=False)
    """Whoever knows it can send there."""
    keys: BrowserKeys
    expiration_time: StrictFloat | None = Field(default=None, alias="expirationTime")
    """When the push service ends it, if it says so; it answers 410 then."""

    @property
    def id(self) -> str:
        """The id, which follows from the endpoint: a browser that subscribes again has the same."""
        return f"push_{hashlib.sha256(self.endpoint.encode()).hexdigest()[:32]}"


class PushPerson(Frozen):
    """Who is told: a person with the rights of a credential. In the workflow's memo too, for the API."""

    subject: str
    role: str
    sessions: tuple[str, ...] | None
    """Those of a token for some sessions."""
    by_key: bool
    """Whether they came with an API key, whose rights end when it is taken out of the settings."""

    @property
    def workflow_id(self) -> str:
        """The same for the same person with the same rights."""
        who = [self.subject, self.role, self.sessions, self.by_key]
        return f"push-{hashlib.sha256(json.dumps(who).encode()).hexdigest()[:32]}"


class PushTarget(Frozen):
    """A browser of theirs."""

    subscription_id: str
    endpoint: str = Field(repr=False)
    p256dh: str
    auth: str = Field(repr=False)
    ends: datetime | None
    """When the token ends with which it was made or renewed; nothing is sent from then on."""
    created: datetime | None = None
    """What has waited before isn't told."""


# What a person sees of it


class PushSubscriptionView(Frozen):
    """A browser that is told."""

    subscription_id: str
    service: str
    """Whose push service it is: the host of its endpoint."""
    created: datetime
    ends: datetime | None = None


class PushDelivery(Frozen):
    """What one browser was told, or is still to be told, of one thing that waits."""

    subscription_id: str
    kind: AttentionKind
    id: str
    time: datetime
    status: DeliveryStatus
    attempts: tuple[WebhookAttempt, ...] = ()
    next_attempt: datetime | None = None


class PushView(Frozen):
    """The answer of ``GET /push``: the caller's browsers, and the latest that they were told."""

    public_key: str | None
    """With which a browser subscribes (``applicationServerKey``); ``null``: nothing is pushed here."""
    subscriptions: tuple[PushSubscriptionView, ...] = ()
    deliveries: tuple[PushDelivery, ...] = ()
    """Newest first."""


# Between processes


class PushOpening(WorkflowStart):
    """What starts a person's workflow."""

    CARRIED: ClassVar[frozenset[str]] = frozenset()

    person: PushPerson


class PushWaiting(Frozen):
    """All that waits for a person now, as far as it is told one by one."""

    items: tuple[AttentionItem, ...] = Field(max_length=MAX_ITEMS)


class PushRemoval(Frozen):
    """Which browser isn't told any more."""

    subscription_id: str = Field(max_length=64)


def key_of(item: AttentionItem) -> str:
    """Returns what tells one thing that waits from another: what is asked anew is another."""
    again = ""
    if item.kind in (AttentionKind.HANDOVER, AttentionKind.FAILURE):
        again = item.since.isoformat()
    elif item.deadline is not None:
        again = item.deadline.isoformat()
    return json.dumps([item.kind, item.session_id, item.id, again])


def topic_of(key: str) -> str:
    """Returns the ``Topic``: a push service keeps the latest message of each for a browser that is away."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def body_of(item: AttentionItem) -> str:
    """Returns what is pushed: the item as ``GET /attention`` has it, with the beginning of its line."""
    return replaced(item, line=item.line[:MAX_LINE_CHARACTERS]).model_dump_json(exclude_none=True)
