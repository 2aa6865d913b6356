"""Who should not be there: each kind of credential at every door, and input that nobody should send."""

import asyncio
import json
import random
from typing import Any, Final

import websockets
from websockets.asyncio.client import ClientConnection, connect

from tests.torture.actors.base import Acting
from tests.torture.scripts import words

ODD: Final = (
    None, True, 0, -1, 2**63, 1e308, "", " ", "x", "\x00", "\u202e", "..", "a" * 3_000, [], {}, [[]],
    {"a": {}}, "queue", "agent", "9999-12-31T23:59:59Z", "t1", 10**40,
)  # fmt: skip
FIELDS: Final = (
    "text", "message_id", "on_busy", "data", "actor", "reason", "turn_id", "request_id", "writer", "items",
    "agent", "session_id", "digest", "role", "sessions", "subject", "payloads", "wait_seconds",
    "request", "terms",
)  # fmt: skip
OPEN_TO_ALL: Final = (
    "/health",
    "/ready",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/redoc",
    "/console",
    "/favicon",
)
SIGNED: Final = "/agentic_checkout"
"""Where another kind of credential counts."""
FRAME_SECONDS: Final = 5.0


def odd(chance: random.Random, depth: int = 2) -> Any:
    """Returns JSON of any shape, sometimes with names that mean something."""
    if depth == 0 or chance.random() < 0.4:
        return chance.choice(ODD)
    return {name: odd(chance, depth - 1) for name in chance.sample(FIELDS, chance.randint(0, 4))}


class Attacker(Acting):
    """Knocks at every door of the OpenAPI document, as nobody, with forged keys, or for another session."""

    async def run(self) -> None:
        doors = await self._doors()
        while self.goes_on and doors:
            method, where = self.chance.choice(doors)
            who = self.chance.choice(["nobody", "forged", "other session", "other session"])
            session = self._somebody_elses()
            key = await self._credential(who, session)
            filled = where.replace("{session_id}", session)
            filled = "/".join("none" if part.startswith("{") else part for part in filled.split("/"))
            body = None if method in ("GET", "DELETE") else odd(self.chance)
            answer = await self.ask("attack", method, filled, body, key=key, id=who)
            allowed = self._allowed(where, who)
            self.note("attacked", role=who, method=method, where=where, on=session, status=answer.status,
                      proxied=answer.proxied, allowed=allowed)  # fmt: skip
            await self.rest(0.2, 1)

    async def _doors(self) -> list[tuple[str, str]]:
        answer = await self.insist("openapi", "GET", "/openapi.json", key="none")
        if not answer.ok:
            return []
        return [
            (method.upper(), where)
            for where, methods in answer.body["paths"].items()
            for method in methods
            if where != "/" and not where.startswith(OPEN_TO_ALL) and not where.startswith(SIGNED)
            if not where.endswith("/events") or method != "get"
        ]

    def _allowed(self, where: str, who: str) -> bool:
        """A session token may ask who it is, and list what is its own: nothing of these sessions."""
        return who == "other session" and "{session_id}" not in where

    def _somebody_elses(self) -> str:
        sessions = sorted({actor.session for actor in self.world.plan.actors if actor.session})
        return self.chance.choice(sessions) if sessions else "none"

    async def _credential(self, who: str, session: str) -> str:
        if who == "nobody":
            return "ws_nothing"
        if who == "forged":
            return "eyJhbGciOiJub25lIn0.eyJyb2xlIjoib3BlcmF0b3IifQ."
        role = self.chance.choice(["client", "operator", "approver"])
        body = {"role": role, "sessions": [f"not-{session}"], "subject": self.name, "ttl_seconds": 600}
        answer = await self.insist("token", "POST", "/tokens", body, key=self.world.key("service"))
        return str(answer.body["token"]) if answer.ok else "none"


class SocketAttacker(Acting):
    """Sends what is no frame and no command, to the agents' socket and to people's."""

    async def run(self) -> None:
        sessions = sorted({actor.session for actor in self.world.plan.actors if actor.session})
        while self.goes_on and sessions:
            session = self.chance.choice(sessions)
            agents = self.chance.random() < 0.5
            where = "/ingest" if agents else f"/sessions/{session}/socket"
            role = "agent" if agents else "client"
            try:
                async with connect(
                    self.url().replace("http", "ws", 1) + where,
                    additional_headers={"Authorization": f"Bearer {self.world.key(role)}"},
                    open_timeout=5,
                    max_size=None,
                ) as socket:
                    await self._send_odd_frames(socket, where, session)
            except (OSError, TimeoutError, websockets.WebSocketException) as error:
                closed = error.rcvd if isinstance(error, websockets.ConnectionClosed) else None
                code = closed.code if closed else None
                self.note("socket_attacked", where=where, code=code, error=type(error).__name__)
            await self.rest(0.5, 3)

    async def _send_odd_frames(self, socket: ClientConnection, where: str, session: str) -> None:
        for _ in range(self.chance.randint(1, 8)):
            await socket.send(self._frame(session))
        async with asyncio.timeout(FRAME_SECONDS):
            async for text in socket:
                said = json.loads(text)
                frames = said if isinstance(said, list) else [said]
                codes = [frame.get("code") or (frame.get("problem") or {}).get("code") for frame in frames]
                self.note("socket_attacked", where=where, code=None, codes=[code for code in codes if code])

    def _frame(self, session: str) -> str:
        item = {
            "n": self.chance.choice([0, 1, 2, -1, "1"]),
            "type": self.chance.choice(["turn.completed", "data.x"]),
        }
        writer = self.chance.choice(["attacker", "t1.1"])
        frame = self.chance.choice(
            [odd(self.chance), [], {"op": "open", "session_id": session, "writer": writer},
             {"op": "write", "writer": writer, "items": [{**item, "data": odd(self.chance)}]},
             {"op": "open", "session_id": session, "writer": writer, "actor": {"id": "x", "role": "user"}},
             {"op": "send", "request": "1", "body": odd(self.chance)},
             {"op": "stop", "request": 7, "body": {}},
             {"op": "spawn", "writer": writer, "request": "r", "spawn": odd(self.chance)}]
        )  # fmt: skip
        text = json.dumps(frame)
        return self.chance.choice([text, text, text[:-1], words(self.chance), "[" * 50])
