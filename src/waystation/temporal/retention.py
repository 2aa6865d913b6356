"""How long payloads outside the history are kept; apart, so that the command line loads without Temporal."""

DEFAULT_RETENTION_HOURS = 72
"""Temporal's own retention of ended workflows is 72 hours unless a namespace says otherwise."""
MIN_RETENTION_HOURS = 1
"""A payload is written before the workflow that it is for is known to Temporal."""
