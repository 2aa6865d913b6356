"""Sessions, purchases and paid requests from anywhere, over the HTTP API."""

from waystation.client.client import Client, Session
from waystation.client.payments import Payments
from waystation.client.purchases import Buying
from waystation.client.sync import SyncClient, SyncSession
from waystation.client.transcript import Message, ToolUse, Transcript

__all__ = [
    "Buying",
    "Client",
    "Message",
    "Payments",
    "Session",
    "SyncClient",
    "SyncSession",
    "ToolUse",
    "Transcript",
]
