"""The client without ``async``, for scripts. It is defined in ``waystation.client.sync``."""

from waystation.client.sync import SyncClient, SyncSession

__all__ = ["SyncClient", "SyncSession"]
