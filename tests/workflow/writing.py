"""A workflow whose activities write, as somebody would write them."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

from waystation.workflow import Session

with workflow.unsafe.imports_passed_through():
    from waystation.activity import WriterRef, Writers


@dataclass
class Said:
    """What is to be written, and where."""

    ref: WriterRef
    text: str


class Scribe:
    """Writes what it is told, and fails where it is told to."""

    def __init__(self, writers: Writers) -> None:
        self._writers = writers

    @activity.defn
    async def scribble(self, said: Said) -> int:
        attempt = activity.info().attempt
        async with self._writers.open(said.ref) as out:
            for word in said.text.split():
                match word:
                    case "fail":
                        await out.flush()
                        if attempt == 1:
                            raise RuntimeError("as asked")
                    case "next":
                        await out.end_message()
                    case "event":
                        await out.emit("attempt", {"number": attempt})
                    case "forever":
                        await asyncio.Event().wait()
                    case _:
                        await out.write(f"{word} ")
        return attempt


@workflow.defn
class Dictation:
    """Has written what people say, or one thing in a session of somebody else's."""

    @workflow.run
    async def run(self, session_id: str, agent: str, text: str) -> str:
        if text:
            return await self.scribble(WriterRef(session_id=session_id, agent=agent), text)
        session = await Session.start(agent, session_id=session_id, takes_turns=True)
        async for turn in session.turns():
            async with turn:
                turn.result = await self.scribble(turn.ref, turn.text)
        return "closed"

    async def scribble(self, ref: WriterRef, text: str) -> str:
        try:
            attempts = await workflow.execute_activity_method(
                Scribe.scribble,
                Said(ref, text),
                start_to_close_timeout=timedelta(minutes=5),
                heartbeat_timeout=timedelta(seconds=5),
                retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=50)),
            )
        except ActivityError as error:
            if not ref.turn_id and isinstance(error.cause, ApplicationError):
                return f"{error.cause.type}: {error.cause.details[0]}"
            raise
        return str(attempts)
