"""Switches for trouble, shared by the sandbox's servers.

``POST /sandbox/troubles`` arms one trouble for requests that match, ``GET`` lists what is armed, ``DELETE``
disarms all. A trouble affects ``times`` requests and is then used up. Troubles are kept in memory: a
restarted server has none.

===============  ==================================================================================
``slow``         waits ``delay_ms``, then goes on
``error``        answers ``status`` (500 by default); with ``when: after`` only once the work is done
``lose_answer``  does the work, then breaks the connection in the middle of the answer
``garble``       does the work, then answers what ``how`` says: the answer with unknown fields in every
                 object (``unknown_fields``), with a field of lists within each other (``deep``) or of
                 5 MB (``huge``), the half of it (``half``), or a page of HTML (``page``)
``hang``         never answers (until the caller gives up); with ``when: after`` the work is done
``die``          the process kills itself with SIGKILL; with ``when: after`` the work is done
===============  ==================================================================================
"""

import asyncio
import json
import os
import re
import signal
from typing import Final, Literal

from fastapi import APIRouter, HTTPException, Request
from pydantic import Field, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from waystation.models.base import Frozen, JsonObject

MAX_DELAY_MS: Final = 120_000
CONTROL_PATH: Final = "/sandbox/"
DEEP_LISTS: Final = 10_000
HUGE_CHARACTERS: Final = 5_000_000
PAGE: Final = b"<!doctype html><title>Welcome</title>"


class Trouble(Frozen):
    """One armed trouble. ``match`` is a regular expression over ``METHOD /path``."""

    match: str = ".*"
    kind: Literal["slow", "error", "lose_answer", "garble", "hang", "die"]
    when: Literal["before", "after"] = "before"
    times: int = Field(default=1, ge=1, le=1_000_000)
    delay_ms: int = Field(default=1_000, ge=0, le=MAX_DELAY_MS)
    status: int = Field(default=500, ge=400, le=599)
    how: Literal["unknown_fields", "deep", "huge", "half", "page"] = "unknown_fields"


class Troubles:
    """The armed troubles, and how many requests they are affecting."""

    def __init__(self) -> None:
        self._armed: list[tuple[Trouble, int]] = []
        self.striking = 0
        """How many requests are affected right now."""

    def arm(self, trouble: Trouble) -> None:
        self._armed.append((trouble, trouble.times))

    def disarm(self) -> None:
        self._armed.clear()

    def armed(self) -> list[JsonObject]:
        return [{**trouble.model_dump(), "left": left} for trouble, left in self._armed]

    def strike(self, request: str) -> Trouble | None:
        """Returns the first armed trouble that matches, and uses it up by one."""
        for index, (trouble, left) in enumerate(self._armed):
            if re.search(trouble.match, request):
                self._armed[index] = (trouble, left - 1)
                if left == 1:
                    del self._armed[index]
                return trouble
        return None

    def router(self) -> APIRouter:
        """Returns the control endpoints."""
        router = APIRouter(prefix="/sandbox/troubles", tags=["sandbox"])

        @router.get("")
        async def listed() -> list[JsonObject]:
            return self.armed()

        @router.post("", status_code=201)
        async def arm(request: Request) -> list[JsonObject]:
            try:
                self.arm(Trouble.model_validate_json(await request.body()))
            except ValidationError as error:
                raise HTTPException(422, error.errors(include_url=False, include_context=False)) from None
            return self.armed()

        @router.delete("", status_code=204)
        async def disarm() -> None:
            self.disarm()

        return router


class TroubleMiddleware:
    """Applies an armed trouble before or after the wrapped application runs."""

    def __init__(self, app: ASGIApp, troubles: Troubles) -> None:
        self.app = app
        self.troubles = troubles

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(CONTROL_PATH):
            await self.app(scope, receive, send)
            return
        trouble = self.troubles.strike(f"{scope['method']} {scope['path']}")
        if trouble is None:
            await self.app(scope, receive, send)
            return
        self.troubles.striking += 1
        try:
            await self._strike(trouble, scope, await _received(receive), send)
        finally:
            self.troubles.striking -= 1

    async def _strike(self, trouble: Trouble, scope: Scope, receive: Receive, send: Send) -> None:
        if trouble.kind == "slow":
            await asyncio.sleep(trouble.delay_ms / 1000)
            await self.app(scope, receive, send)
            return
        if trouble.kind == "garble":
            answer = _Answer()
            await self.app(scope, receive, answer.take)
            await answer.send_on(send, trouble.how)
            return
        if trouble.when == "after" or trouble.kind == "lose_answer":
            await self.app(scope, receive, _swallow)
        await self._fail(trouble, receive, send)

    async def _fail(self, trouble: Trouble, receive: Receive, send: Send) -> None:
        if trouble.kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif trouble.kind == "hang":
            while (await receive())["type"] != "http.disconnect":
                pass
        elif trouble.kind == "error":
            body = json.dumps(_error_body(trouble.status)).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": trouble.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            # The rest of the announced body is never sent, so the server has to break the connection.
            headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"{", "more_body": True})


class _Answer:
    """An answer that is held back, to be garbled."""

    def __init__(self) -> None:
        self._start: Message = {}
        self._body = b""

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        else:
            self._body += message.get("body", b"")

    async def send_on(self, send: Send, how: str) -> None:
        """Sends it as ``how`` says, with the length that it then has."""
        body = _garbled(self._body, how)
        headers = [(name, value) for name, value in self._start["headers"] if name != b"content-length"]
        length = (b"content-length", str(len(body)).encode())
        await send({**self._start, "headers": [*headers, length]})
        await send({"type": "http.response.body", "body": body})


def _garbled(body: bytes, how: str) -> bytes:
    if how == "half":
        return body[: len(body) // 2]
    if how == "page":
        return PAGE
    try:
        said = json.loads(body)
    except ValueError:
        return body
    if how == "unknown_fields":
        return json.dumps(_surprising(said)).encode()
    more = "[" * DEEP_LISTS + "]" * DEEP_LISTS if how == "deep" else json.dumps("x" * HUGE_CHARACTERS)
    text = json.dumps(said)
    is_object = isinstance(said, dict) and said
    return (text[:-1] + f', "surprise": {more}}}' if is_object else f"[{text}, {more}]").encode()


def _surprising(said: object) -> object:
    """Returns what was said, with a field more in every object."""
    if isinstance(said, dict):
        return {**{name: _surprising(value) for name, value in said.items()}, "surprise": {"of": [1, None]}}
    return [_surprising(one) for one in said] if isinstance(said, list) else said


def _error_body(status: int) -> JsonObject:
    """Returns an error that clients of both protocols can read: Stripe's object and ACP's fields."""
    message = f"The sandbox was told to answer {status}."
    return {
        "error": {"type": "api_error", "message": message},
        "type": "processing_error",
        "code": "sandbox_trouble",
        "message": message,
    }


async def _received(receive: Receive) -> Receive:
    """Reads the whole request now, so that it is complete even if the caller disconnects."""
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())

    async def replayed() -> Message:
        return messages.pop(0) if messages else await receive()

    return replayed


async def _swallow(message: Message) -> None:
    return None
