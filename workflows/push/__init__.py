"""Web Push: one workflow for each person who wants to be told, and what it decides."""

from workflows.push.subscriber import PushSubscriber

__all__ = ["PushSubscriber"]
