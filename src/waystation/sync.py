"""The client without ``async``. It lives in ``sync``."""

from waystation.client.sync import SyncClient, SyncSession

__all__ = ["SyncClient", "SyncSession"]
