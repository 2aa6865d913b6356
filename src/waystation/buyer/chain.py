"""What asking a chain can come to, for those who need no wallet to be told."""


class ChainUnavailableError(RuntimeError):
    """The chain endpoint doesn't answer, or not as JSON-RPC does."""
