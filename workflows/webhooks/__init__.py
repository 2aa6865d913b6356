"""Webhooks out: one workflow for each endpoint, a registry of them, and what tells them the news."""

from workflows.webhooks.endpoint import WebhookEndpoint
from workflows.webhooks.registry import Webhooks

__all__ = ["WebhookEndpoint", "Webhooks"]
