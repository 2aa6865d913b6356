"""Keeps Temporal informed that an activity is alive, so that a killed worker is noticed within seconds."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from temporalio import activity

HEARTBEAT_INTERVAL_SECONDS: Final = 1.5

Method = TypeVar("Method", bound=Callable[..., Awaitable[object]])


def heartbeating(method: Method) -> Method:
    """Makes an activity heartbeat while it runs. Most are short and end before the first beat."""

    @functools.wraps(method)
    async def alive(*args: object, **kwargs: object) -> object:
        if not activity.in_activity():
            return await method(*args, **kwargs)
        beating = asyncio.create_task(_beat())
        try:
            return await method(*args, **kwargs)
        finally:
            beating.cancel()

    # A decorator that takes a method and returns one of the same type: checkers differ on what else it is.
    return alive  # type: ignore[return-value]


async def _beat() -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_INTERVAL_SECONDS)
        activity.heartbeat()
