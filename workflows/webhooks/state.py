"""An endpoint's state, and the decisions on it. Pure: no Temporal, no clock, no I/O."""

from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, Field

from waystation.models.base import replaced
from waystation.models.webhooks import (
    Subscription,
    WebhookChange,
    WebhookSecret,
    WebhookSettings,
    WebhookStatus,
    WebhookView,
)
from workflows.webhooks.deliveries import DeliveriesState

MAX_SECRETS: Final = 10
"""Which sign at the same time: with more rotations within one overlap, the oldest ends early."""


class EndpointState(BaseModel):
    """Everything that an endpoint carries across continue-as-new."""

    settings: WebhookSettings
    created: datetime
    secrets: list[WebhookSecret] = Field(default_factory=list)
    """The newest first."""
    revision: int = 0
    status: WebhookStatus = "enabled"
    disabled_because: str | None = None
    failing_since: datetime | None = None
    last_delivered: datetime | None = None
    last_failed: bool = False
    """Whether the last attempt failed."""
    tests: int = 0
    deliveries: DeliveriesState = Field(default_factory=DeliveriesState)

    def view(self, webhook_id: str, now: datetime) -> WebhookView:
        """Returns the endpoint as it stands."""
        old = [secret.ends for secret in self.live_secrets(now) if secret.ends is not None]
        return WebhookView(
            webhook_id=webhook_id,
            **self.settings.model_dump(),
            status=self.status,
            disabled_because=self.disabled_because,
            created=self.created,
            waiting=len(self.deliveries.waiting),
            dropped=self.deliveries.dropped,
            failing_since=self.failing_since,
            last_delivered=self.last_delivered,
            secret_created=self.secrets[0].created if self.secrets else None,
            old_secrets_end=max(old, default=None),
        )

    def subscription(self, webhook_id: str) -> Subscription:
        """Returns what the registry is told, under the next revision."""
        self.revision += 1
        return Subscription(
            webhook_id=webhook_id,
            events=self.settings.events,
            details=self.settings.details,
            enabled=self.status == "enabled",
            deleted=self.status == "deleted",
            revision=self.revision,
        )

    def live_secrets(self, now: datetime) -> list[WebhookSecret]:
        """Returns the secrets that sign, the newest first."""
        return [secret for secret in self.secrets if secret.ends is None or secret.ends > now]

    def add_secret(self, secret: WebhookSecret, *, overlap: timedelta) -> None:
        """Signs with a new secret from now on, and with the earlier ones for a while."""
        ends = secret.created + overlap
        kept = [
            replaced(old, ends=ends if old.ends is None else min(old.ends, ends))
            for old in self.live_secrets(secret.created)
        ]
        self.secrets = [secret, *kept][:MAX_SECRETS]

    def change(self, change: WebhookChange) -> None:
        """Changes what is given."""
        given = change.model_dump(exclude_none=True, exclude={"enabled"})
        self.settings = replaced(self.settings, **given)
        if change.enabled is True:
            self.status, self.disabled_because, self.failing_since = "enabled", None, None
        elif change.enabled is False:
            self.disable("somebody disabled it")

    def disable(self, why: str) -> None:
        """Sends nothing more until it is enabled again; what waits is kept."""
        if self.status == "enabled":
            self.status, self.disabled_because = "disabled", why

    def note_attempt(self, *, delivered: bool, now: datetime) -> None:
        """Records how the last attempt ended."""
        self.last_failed = not delivered
        if delivered:
            self.failing_since, self.last_delivered = None, now
        else:
            self.failing_since = self.failing_since or now
