"""A session with an agent, as its readers see it."""

import uuid
from collections.abc import Callable
from typing import Any

from tests.support import eventually
from waystation.client import Client, Session
from waystation.models.events import Event


class Talk:
    """Asks, and waits for what the session then says."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @classmethod
    async def begin(cls, client: Client, agent: str) -> "Talk":
        return cls(await client.start(agent, session_id=f"s-{uuid.uuid4().hex}"))

    async def ask(self, text: str = "Please.", **data: Any) -> str:
        sent = await self.session.send(text, data=data)
        assert sent.turn_id
        return sent.turn_id

    async def events(self) -> list[Event]:
        return list((await self.session.replay()).events)

    async def until(self, type_: str, match: Callable[[Event], bool] = lambda event: True) -> Event:
        async def found() -> Event | None:
            return next((one for one in await self.events() if one.type == type_ and match(one)), None)

        seen: Event = await eventually(found, within=40, what=f"{type_} in the session")
        return seen
