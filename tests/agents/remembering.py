"""A model agent that writes into a ledger each request of its model, and each time that a tool begins."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pydantic_ai
from pydantic_ai import CallDeferred, RunContext
from pydantic_ai.messages import ModelMessage, ModelRequest
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from tests.support import eventually
from waystation.adapters.pydantic_ai import llm_agent
from waystation.agent import ApprovalTerms, Turn, current_step

LEDGER = Path(os.environ.get("REMEMBERING_LEDGER", "ledger.txt"))


def note(line: str) -> None:
    with LEDGER.open("a") as ledger:
        ledger.write(f"{line}\n")


def called(*calls: tuple[str, str]) -> dict[int, DeltaToolCall]:
    """Calls with ids that differ each time: as with a model, only who remembers a response knows them."""
    return {
        number: DeltaToolCall(name=name, json_args=arguments, tool_call_id=uuid4().hex)
        for number, (name, arguments) in enumerate(calls)
    }


async def answer(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[object]:
    """Calls what it is asked to, and then says what it was told."""
    parts = [part for message in messages if isinstance(message, ModelRequest) for part in message.parts]
    prompt = next(str(part.content) for part in reversed(parts) if part.part_kind == "user-prompt")
    returned = [str(part.content) for part in parts if part.part_kind == "tool-return"]
    note(f"{prompt}: request")
    if returned:
        yield f"Told: {'; '.join(returned)}"
        return
    yield "Let me see. "
    match prompt.split(" ")[0]:
        case "add":
            yield called(*(("add", f'{{"number": {number}}}') for number in range(10)))
        case "delete":
            yield called(("delete", f'{{"path": "{prompt}.txt"}}'))
        case "weigh":
            yield called(("weigh", '{"parcel": "p1"}'), ("weigh", '{"parcel": "p2"}'))
        case "ask":
            yield called(("ask", "{}"))


model_agent = pydantic_ai.Agent(
    FunctionModel(stream_function=answer),  # type: ignore[arg-type]
    deps_type=Turn,
)


@model_agent.tool_plain
async def add(number: int) -> int:
    """Returns the number; those from 5 on only once they may go on."""
    note(f"add {number}: {current_step().idempotency_key}")
    if number >= 5:
        await eventually(LEDGER.with_name("go-on").exists)
    return number


@model_agent.tool_plain(
    requires_approval=True, metadata={"approval": ApprovalTerms(prompt="Really?", editable=True)}
)
async def delete(path: str) -> str:
    """Deletes a file."""
    note(f"deleted {path}")
    return f"deleted {path}"


@model_agent.tool_plain
async def weigh(parcel: str) -> int:
    """Has somebody weigh a parcel."""
    raise CallDeferred


@model_agent.tool
async def ask(ctx: RunContext[Turn]) -> str:
    """Asks by itself."""
    return await ctx.deps.ask("Which one?", key="which")


agent = llm_agent("remembering", model_agent)
