"""A client's WebSocket whose answers can't be given ends, with a code that says why."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from api.auth import Principal
from api.live.sockets import too_slow
from api.routes.streams import ClientSocket
from waystation.settings import Settings


class _Socket:
    """Sends one command, and notes how it is closed."""

    def __init__(self) -> None:
        self.commands = [{"type": "websocket.receive", "text": '{"type": "stop", "request": "r"}'}]
        self.closed: tuple[int, str] | None = None

    async def receive(self) -> dict[str, Any]:
        if not self.commands:
            await asyncio.Event().wait()
        return self.commands.pop()

    async def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)


class _Parts:
    settings = Settings()
    control = None


class _Quiet:
    finished = False

    def end(self) -> None: ...

    async def frames(self) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield


@pytest.mark.parametrize(
    ("failure", "closed"),
    [(too_slow(), (1008, "too-slow")), (RuntimeError("a bug"), (1011, "internal-error"))],
)
async def test_an_answer_that_cannot_be_given_ends_the_socket(
    failure: Exception, closed: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise failure

    monkeypatch.setattr(ClientSocket, "_send", fails)
    socket = _Socket()
    served = ClientSocket(
        cast(Any, socket), "s", Principal(subject="ann", role="client"), cast(Any, _Parts())
    )
    async with asyncio.timeout(10):
        await served.run(cast(Any, _Quiet()))
    assert socket.closed == closed
