"""How long payloads outside the history are kept; separate, so the command line loads without Temporal."""

DEFAULT_RETENTION_HOURS = 72
"""Temporal's own retention of ended workflows is 72 hours unless a namespace says otherwise."""
MIN_RETENTION_HOURS = 1
"""A payload is written before Temporal knows the workflow that it is for."""
