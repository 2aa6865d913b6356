"""The certificates of the machine, read once for all HTTP clients of a process: it takes long."""

import functools

import httpx
from httpx._transports import default


def read_once() -> None:
    """Has ``httpx`` make one context, for all clients that trust the same certificates."""
    made_once = functools.cache(httpx.create_ssl_context)
    made_once(verify=True, cert=None, trust_env=True)
    httpx.create_ssl_context = default.create_ssl_context = made_once
