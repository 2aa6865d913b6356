"""The error of asking a chain, in a module of its own for callers that need no wallet."""

from waystation.errors import WaystationError


class ChainUnavailableError(WaystationError, RuntimeError):
    """The chain endpoint doesn't answer, or its answer isn't JSON-RPC."""
