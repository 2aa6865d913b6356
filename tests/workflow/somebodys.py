"""Somebody's own workflows, as they would write them: nothing is passed through Temporal's sandbox."""

import asyncio
from datetime import timedelta

from pydantic import BaseModel, JsonValue
from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError

from waystation.workflow import Session, SessionError, Turn


class Size(BaseModel):
    """What people fill in."""

    width: int
    note: str = ""


class Job(BaseModel):
    """What the workflow is to do."""

    session_id: str
    agent: str = "claims"
    takes_turns: bool = True
    turns_per_run: int = 1_000
    begun: bool = False


@activity.defn
async def look_up(word: str) -> str:
    if word == "broken":
        raise ApplicationError("the archive burns", non_retryable=True)
    return word.upper()


@workflow.defn
class Echo:
    """Answers what people say, until its session is closed."""

    @workflow.run
    async def run(self, job: Job) -> list[str]:
        session = Session(job.session_id, agent=job.agent)
        if not job.begun:
            session = await Session.start(
                job.agent, session_id=job.session_id, title="An echo", takes_turns=job.takes_turns
            )
            await session.write_message("I am here.", tone="kind")
            await session.emit("ready", {"turns": job.turns_per_run})
        done: list[str] = []
        async for turn in session.turns():
            async with turn:
                turn.result = await self.answer(turn)
            done.append(turn.id)
            if len(done) == job.turns_per_run:
                workflow.continue_as_new(job.model_copy(update={"begun": True}))
        return done

    async def answer(self, turn: Turn) -> JsonValue:
        match turn.text.split():
            case "look", word:
                async with turn.tool("look_up", {"word": word}) as call:
                    call.result = await workflow.execute_activity(
                        look_up, word, start_to_close_timeout=timedelta(seconds=10)
                    )
                await turn.write_message(f"Found {call.result}.")
                return call.result
            case ["wait"]:
                await turn.write_message("I wait.")
                await asyncio.sleep(3_600)
            case ["ask"]:
                size = await turn.ask("Which size?", answer=Size)
                await turn.write_message(f"{type(size).__name__} {size.width}")
                return size.width
            case "ask", seconds:
                expires = timedelta(seconds=int(seconds))
                return await turn.ask("Quick?", answer=bool, expires_in=expires, on_expiry="too late")
            case "delete", path:
                approval = await turn.approve("delete", {"path": path}, editable=True)
                return {"path": approval.arguments["path"], "edited": approval.edited}
            case ["listen"]:
                await turn.write_message("I listen.")
                await turn.wait_for_steer()
                said = await turn.take_steers()
                await turn.write_message(" ".join(steer.text for steer in said))
                return [steer.actor.id for steer in said]
        await turn.write_message(f"{turn.actor.id if turn.actor else '?'} said: {turn.text}")
        return None


@workflow.defn
class Visitor:
    """Writes into a session by its id, steers it, and returns why it was refused, if it was."""

    @workflow.run
    async def run(self, job: Job, deed: str) -> str:
        try:
            session = Session(job.session_id, agent=job.agent)
            match deed:
                case "start":
                    await Session.start(job.agent, session_id=job.session_id)
                case "write":
                    await session.write_message("A visitor writes.")
                case "write much":
                    for number in range(5):
                        await asyncio.gather(
                            session.write_message(f"{number} a"),
                            session.write_message(f"{number} b"),
                            session.emit("count", {"number": number}),
                        )
                case "ask":
                    return await session.ask("May a visitor ask?", choices=["yes", "no"])
                case "ask nobody":
                    await session.ask("")
                case "huge":
                    await session.emit("huge", {"x": "x" * 70_000})
                case "long":
                    await session.write_message("x" * 300_000)
                case "bad type":
                    await session.emit("No Such Name!", {})
                case "turns":
                    async for turn in session.turns():
                        return turn.id
                case "steer":
                    await session.steer("hurry")
                case "stop":
                    await session.stop(reason="enough")
                case "close":
                    await session.close(reason="done")
        except SessionError as error:
            return error.code
        return "done"
