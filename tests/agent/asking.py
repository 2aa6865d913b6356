"""An agent that asks people, and writes down each time that its function begins."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, JsonValue

from waystation.agent import Agent, ApprovalRejected, ApprovalTerms, Audience, QuestionExpired, Turn
from waystation.errors import WriteRefused
from waystation.models.questions import MAX_QUESTIONS

agent = Agent("asking")
helper = Agent("asking-helper")

BEGUN = Path(os.environ.get("ASKING_BEGUN", "begun.txt"))


class Order(BaseModel):
    """What a form asks for."""

    size: Annotated[int, Field(ge=1, le=60)]
    colour: str = "blue"


def begins(turn: Turn) -> None:
    with BEGUN.open("a") as begun:
        begun.write(f"{turn.session_id} {turn.id} {turn.attempt} {','.join(turn.waited_for)}\n")


@agent.turn
async def answer(turn: Turn) -> JsonValue:
    begins(turn)
    match turn.text.split(":")[0]:
        case "text":
            await turn.write("A question: ")
            said = await turn.ask("What is your name?")
            await turn.write(f"Hello {said}.")
            return said
        case "choice":
            return await turn.ask("Which?", choices=["small", "large"], key="which")
        case "form":
            order = await turn.ask("Your order?", answer=Order, key="order")
            return order.model_dump()
        case "two":
            both = await asyncio.gather(
                turn.ask("First?", answer=int, key="a"), turn.ask("Second?", answer=int, key="b")
            )
            return sum(both)
        case "too many":
            asking = [asyncio.create_task(turn.ask("?", key=f"k{n}")) for n in range(MAX_QUESTIONS + 2)]
            refused = 0
            while refused < 2:
                done, open_ones = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
                refused, asking = refused + len(done), list(open_ones)
                assert all(isinstance(one.exception(), WriteRefused) for one in done)
            return [refused, len(asking)]
        case "operators":
            return await turn.ask("Who pays?", audience=Audience(roles=("operator",)), key="who")
        case "expires":
            return await turn.ask("Quick?", expires_in=timedelta(seconds=2), on_expiry="too slow", key="q")
        case "expires loudly":
            try:
                await turn.ask("Quick?", expires_in=timedelta(seconds=1), key="q")
            except QuestionExpired:
                return "nobody came"
        case "approve":
            terms = ApprovalTerms(editable=True, key="delete")
            try:
                async with turn.tool("delete", {"path": "notes.txt"}, approval=terms) as call:
                    call.result = f"deleted {call.arguments}"
                return call.result
            except ApprovalRejected as rejected:
                return f"rejected: {rejected.reason}"
        case "in a tool":
            async with turn.tool("order", {"what": "tea"}) as call:
                call.result = await turn.ask("How much?", answer=int, key="much")
            return call.result
        case "sub-agent":
            child = await turn.spawn("asking-helper", "choice", key="child")
            return f"the child says {await child.result(park=True)}"
        case "stubborn":
            while True:
                try:
                    return await turn.ask("Anybody?", key="any")
                except asyncio.CancelledError:
                    await asyncio.sleep(30)
        case "gives up":
            try:
                async with asyncio.timeout(0.5):
                    await turn.ask("Anybody?", key="any")
            except TimeoutError:
                return "went on"
        case "many":
            await asyncio.gather(*(turn.ask(f"{number}?", key=f"n{number}") for number in range(500)))
        case "nobody":
            await turn.ask("Anybody?", audience=Audience())
    return None


@helper.turn
async def help_out(turn: Turn) -> JsonValue:
    return await turn.ask("Which?", choices=["small", "large"], key="which")
