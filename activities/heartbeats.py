"""Keeps Temporal informed that an activity is alive, so that a killed worker is noticed within seconds."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, ParamSpec, TypeVar

from temporalio import activity

HEARTBEAT_INTERVAL_SECONDS: Final = 1.5

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def heartbeating(
    method: Callable[Arguments, Awaitable[Result]],
) -> Callable[Arguments, Coroutine[object, None, Result]]:
    """Heartbeats while the activity runs. Short activities, which are most, never get to it."""

    @functools.wraps(method)
    async def alive(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if not activity.in_activity():
            return await method(*args, **kwargs)
        beating = asyncio.create_task(_beat())
        try:
            return await method(*args, **kwargs)
        finally:
            beating.cancel()

    return alive


async def _beat() -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_INTERVAL_SECONDS)
        activity.heartbeat()
