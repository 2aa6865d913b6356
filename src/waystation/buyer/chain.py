"""What asking a chain can come to, for those who need no wallet to be told."""

from waystation.errors import WaystationError


class ChainUnavailableError(WaystationError, RuntimeError):
    """The chain endpoint doesn't answer, or not as JSON-RPC does."""
