"""An agent that asks people: questions, approvals, steps, helpers, as its scripts say; waits end in parks.

What it tells depends on its script and on what people answer alone, in whatever attempt: so the oracle knows
what must be in the log, however often its processes were killed.
"""

import asyncio
import contextlib
import secrets
from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel, JsonValue

from tests.torture.agents.wild import Performance
from tests.torture.interviews import (
    NOBODY,
    says_answer,
    says_decision,
    says_given_up,
    says_helper,
    says_step,
    step_title,
    survey_name,
)
from waystation.agent import Agent, ApprovalRejected, Audience, Turn
from waystation.agent.turn import SubAgentFailed

agent = Agent("asker")
GIVES_UP_SECONDS: Final = 0.5
NOBODY_AT_ALL: Final = Audience(ids=("nobody-at-all",))


class Order(BaseModel):
    """What a form asks for."""

    size: int
    colour: str


TYPES: Final[dict[str, type]] = {"text": str, "number": int, "choice": str, "form": Order}


class Interview(Performance):
    """One attempt of a turn."""

    async def do_say(self, number: int, texts: list[str], pause_ms: int) -> None:
        await self.do_write(texts, pause_ms)

    async def do_ask(self, number: int, how: str, keyed: bool, seconds: int | None) -> None:
        await self._write(says_answer(number, await self._ask(str(number), how, keyed, seconds)))

    async def do_both(self, number: int) -> None:
        answers = await asyncio.gather(*(self._ask(f"{number}{side}", "text", True, None) for side in "ab"))
        for answer in answers:
            await self._write(says_answer(number, answer))

    async def do_unanswerable(self, number: int, how: str) -> None:
        expires_in = timedelta(seconds=1) if how == "expires" else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GIVES_UP_SECONDS if how == "gives up" else None):
                await self.turn.ask(
                    f"{number}: anybody?", audience=NOBODY_AT_ALL, expires_in=expires_in, on_expiry=NOBODY
                )
        await self._write(says_given_up(number))

    async def do_approve(self, number: int, tool: str, editable: bool) -> None:
        try:
            approval = await self.turn.approve(tool, {"n": number}, editable=editable, key=f"q{number}")
        except ApprovalRejected as rejected:
            await self._write(says_decision(number, None, rejected.reason))
        else:
            await self._write(says_decision(number, approval.arguments))

    async def do_guarded(self, number: int, tool: str) -> None:
        try:
            async with self.turn.tool(tool, {"n": number}, approval=True) as call:
                call.result = call.arguments
        except ApprovalRejected as rejected:
            await self._write(says_decision(number, None, rejected.reason))
        else:
            await self._write(says_decision(number, call.arguments))

    async def do_survey(self, number: int) -> None:
        async with self.turn.tool(survey_name(number), {"n": number}) as call:
            call.result = await self._ask(str(number), "text", True, None)
        await self._write(says_answer(number, call.result))

    async def do_step(self, number: int, pause_ms: int, shown: bool) -> None:
        key = f"step-{number}"
        value = await self.turn.step(
            key, self._work, key, pause_ms, show=step_title(number) if shown else None
        )
        self.note("step_returned", key=key, value=value)
        await self._write(says_step(number, value))

    async def _work(self, key: str, pause_ms: int) -> str:
        value = secrets.token_hex(4)  # another each time: so it is seen whose result counts
        self.note("stepped", key=key, value=value)
        await asyncio.sleep(pause_ms / 1_000)
        return value

    async def do_helper(self, number: int, script: str) -> None:
        helper = await self.turn.spawn("asker", script, key=f"h{number}")
        with contextlib.suppress(SubAgentFailed):  # what it says doesn't depend on that
            await helper.result(park=True)
        await self._write(says_helper(number))

    async def _ask(self, name: str, how: str, keyed: bool, seconds: int | None) -> JsonValue:
        more: dict[str, Any] = {"choices": ["red", "green", "blue"]} if how == "choice" else {}
        answer = await self.turn.ask(
            f"{name}: what?",
            answer=TYPES[how],
            expires_in=None if seconds is None else timedelta(seconds=seconds),
            on_expiry=NOBODY,
            key=f"q{name}" if keyed else None,
            **more,
        )
        value: JsonValue = answer.model_dump() if isinstance(answer, BaseModel) else answer
        self.note("learnt", prompt=f"{name}: what?", value=value)
        return value


@agent.turn
async def perform(turn: Turn) -> object:
    return await Interview(turn).run()
