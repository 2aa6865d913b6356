"""What a model's tools need of people, against pydantic-ai's own test models: no network, no server."""

import asyncio
from datetime import timedelta
from typing import Any

import pydantic_ai
import pytest
from pydantic import BaseModel
from pydantic_ai import RunContext
from pydantic_ai.capabilities import HandleDeferredToolCalls
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred
from pydantic_ai.messages import ToolReturnPart
from pydantic_ai.models.function import DeltaToolCall
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolDefinition
from pydantic_ai.toolsets import ExternalToolset

from tests.adapters.support import Script, Stage, call
from tests.support import eventually
from waystation.adapters.pydantic_ai import QuestionTerms, llm_agent
from waystation.agent import ApprovalTerms, Audience, Turn

DELETE = call("delete", '{"path": "notes.txt"}')
APPROVE = {"decision": "approve"}


def returned(script: Script) -> list[tuple[str, Any]]:
    """What the model was told of its calls, as ``(outcome, content)``."""
    return [
        (part.outcome, part.content)
        for message in script.given[-1]
        for part in message.parts
        if isinstance(part, ToolReturnPart)
    ]


def deletes(script: Script, **terms: Any) -> tuple[pydantic_ai.Agent[Any, str], list[str]]:
    model_agent = pydantic_ai.Agent(script.model)
    deleted: list[str] = []

    @model_agent.tool_plain(requires_approval=True, **terms)
    def delete(path: str) -> str:
        deleted.append(path)
        return f"deleted {path}"

    return model_agent, deleted


async def test_a_tool_that_requires_approval_runs_once_it_is_approved() -> None:
    script = Script([DELETE], ["Gone."])
    model_agent, deleted = deletes(script)
    stage = Stage()
    running = asyncio.create_task(stage.run(llm_agent("bot", model_agent)))
    (question,) = await stage.asked()
    assert (question["kind"], question["tool"], question["arguments"]) == (
        "approval", "delete", {"path": "notes.txt"},
    )  # fmt: skip
    assert "editable" not in question
    assert not deleted
    assert not stage.of("tool.called"), "nothing is shown of a call that isn't approved"
    stage.answer(question, APPROVE)
    await running
    assert deleted == ["notes.txt"]
    assert stage.of("tool.returned")[0]["result"] == "deleted notes.txt"
    assert returned(script) == [("success", "deleted notes.txt")]


async def test_a_rejection_reaches_the_model_with_its_reason() -> None:
    script = Script([DELETE], ["As you wish."])
    model_agent, deleted = deletes(script)
    stage = Stage()
    running = asyncio.create_task(stage.run(llm_agent("bot", model_agent)))
    (question,) = await stage.asked()
    stage.answer(question, {"decision": "reject", "reason": "I need it"})
    await running
    assert not deleted
    assert not stage.of("tool.called")
    assert returned(script) == [("denied", "Ada rejected delete: I need it")]
    assert stage.transcript == [("message", "As you wish.")]


async def test_nobody_decides_in_time() -> None:
    script = Script([DELETE], ["Never mind."])
    terms = ApprovalTerms(prompt="Really?", expires_in=timedelta(hours=1), audience=Audience(ids=("ada",)))
    model_agent, deleted = deletes(script, metadata={"approval": terms})
    stage = Stage()
    running = asyncio.create_task(stage.run(llm_agent("bot", model_agent)))
    (question,) = await stage.asked()
    assert question["prompt"] == "Really?"
    assert question["expires_in_seconds"] == 3600
    assert question["audience"] == {"ids": ["ada"]}
    stage.expire(question)
    await running
    assert not deleted
    assert returned(script) == [("denied", "Nobody has answered in time.")]


async def test_who_approves_may_edit_where_the_agent_allows_it() -> None:
    script = Script([DELETE], ["Gone."])
    model_agent, deleted = deletes(script)
    stage = Stage()
    agent = llm_agent("bot", model_agent, approval=ApprovalTerms(editable=True))
    running = asyncio.create_task(stage.run(agent))
    (question,) = await stage.asked()
    assert question["editable"] is True
    assert question["schema"]["required"] == ["path"], "what may be edited is what the tool takes"
    stage.answer(question, {**APPROVE, "arguments": {"path": "old.txt"}})
    await running
    assert deleted == ["old.txt"]
    assert stage.of("tool.called")[0]["arguments"] == {"path": "old.txt"}, "it is shown as it runs"


async def test_arguments_that_dont_fit_are_the_models_to_mend_and_nobody_is_asked() -> None:
    script = Script([call("delete", '{"file": 1}')], ["Oh."])
    model_agent, deleted = deletes(script)
    stage = Stage()
    await stage.run(llm_agent("bot", model_agent))
    assert not deleted
    assert not stage.of("input.requested")
    assert "path" in stage.of("tool.returned")[0]["error"]


async def test_a_tool_may_want_approval_only_then() -> None:
    script = Script([call("pay", '{"cents": 5}')], [call("pay", '{"cents": 5000}', "c2")], ["Paid."])
    model_agent = pydantic_ai.Agent(script.model)
    paid: list[int] = []

    @model_agent.tool
    def pay(ctx: RunContext[Any], cents: int) -> str:
        if cents > 100 and not ctx.tool_call_approved:
            raise ApprovalRequired(metadata={"approval": ApprovalTerms(prompt=f"Pay {cents} cents?")})
        paid.append(cents)
        return "paid"

    stage = Stage()
    running = asyncio.create_task(stage.run(llm_agent("bot", model_agent)))
    (question,) = await stage.asked()
    assert paid == [5]
    assert question["prompt"] == "Pay 5000 cents?"
    stage.answer(question, APPROVE)
    await running
    assert paid == [5, 5000]
    assert len(stage.of("tool.called")) == len(stage.of("tool.returned")) == 2


async def test_what_a_deferred_call_returns_people_say() -> None:
    class Order(BaseModel):
        size: int

    script = Script([call("order", '{"question": "Which size?"}')], ["Ordered."])
    model_agent = pydantic_ai.Agent(script.model)

    @model_agent.tool_plain
    def order(question: str) -> Order:
        raise CallDeferred

    stage = Stage()
    running = asyncio.create_task(stage.run(llm_agent("bot", model_agent)))
    (asked,) = await stage.asked()
    assert (asked["kind"], asked["prompt"]) == ("form", "Which size?")
    assert asked["schema"]["properties"]["size"]["type"] == "integer", "it must be what the tool returns"
    assert not stage.of("tool.returned")
    stage.answer(asked, {"size": 42})
    await running
    assert returned(script) == [("success", {"size": 42})]
    assert stage.of("tool.returned")[0]["result"] == {"size": 42}


async def test_tools_without_code_are_asked_for_all_at_once() -> None:
    calls = {
        number: DeltaToolCall(name="look_up", json_args=f'{{"part": {number}}}', tool_call_id=f"c{number}")
        for number in range(3)
    }
    script = Script([calls], ["Found."])
    terms = QuestionTerms(prompt="Where is it?", choices=["shelf", "cellar"])
    parameters = {"type": "object", "properties": {"part": {"type": "integer"}}}
    tool = ToolDefinition(name="look_up", parameters_json_schema=parameters, metadata={"question": terms})
    stage = Stage()
    model_agent = pydantic_ai.Agent(script.model, toolsets=[ExternalToolset([tool])])
    running = asyncio.create_task(stage.run(llm_agent("bot", model_agent)))
    first, second, third = await stage.asked(3)
    assert first["choices"] == [{"value": "shelf"}, {"value": "cellar"}]
    assert len({first["question_id"], second["question_id"], third["question_id"]}) == 3
    stage.answer(second, "cellar")
    stage.expire(third)
    await eventually(lambda: stage.waits.waiting_for == (first["question_id"],))
    stage.answer(first, "shelf")
    await running
    assert returned(script) == [
        ("success", "shelf"), ("success", "cellar"), ("failed", "Nobody has answered in time."),
    ]  # fmt: skip


async def test_a_call_without_anything_to_ask_says_what_it_is() -> None:
    script = Script([call("weigh", '{"part": "lid"}')], ["Light."])
    model_agent = pydantic_ai.Agent(script.model)

    @model_agent.tool_plain
    def weigh(part: str) -> None:
        """Weighs a part."""
        raise CallDeferred

    stage = Stage()
    running = asyncio.create_task(stage.run(llm_agent("bot", model_agent)))
    (question,) = await stage.asked()
    assert question["prompt"] == 'What is the result of weigh({"part": "lid"})?\n\nWeighs a part.'
    assert question["schema"] == {"type": "string"}
    stage.answer(question, "5 g")
    await running
    assert returned(script) == [("success", "5 g")]


async def test_a_call_may_be_approved_and_then_be_a_question() -> None:
    script = Script([call("order", "{}")], ["Ordered."])
    model_agent = pydantic_ai.Agent(script.model)

    @model_agent.tool_plain(requires_approval=True)
    def order() -> str:
        raise CallDeferred

    stage = Stage()
    running = asyncio.create_task(stage.run(llm_agent("bot", model_agent)))
    (approval,) = await stage.asked()
    stage.answer(approval, APPROVE)
    _, question = await stage.asked(2)
    assert question["question_id"] != approval["question_id"]
    stage.answer(question, "number 7")
    await running
    assert returned(script) == [("success", "number 7")]


async def test_the_agents_own_handler_comes_first() -> None:
    async def allow(_: RunContext[Any], requests: DeferredToolRequests) -> DeferredToolResults:
        return requests.build_results(approve_all=True)

    script = Script([DELETE], ["Gone."])
    model_agent = pydantic_ai.Agent(script.model, capabilities=[HandleDeferredToolCalls(allow)])
    deleted: list[str] = []

    @model_agent.tool_plain(requires_approval=True)
    def delete(path: str) -> str:
        deleted.append(path)
        return "deleted"

    stage = Stage()
    await stage.run(llm_agent("bot", model_agent))
    assert deleted == ["notes.txt"]
    assert not stage.of("input.requested")
    assert stage.of("tool.called")[0]["arguments"] == {"path": "notes.txt"}


async def test_terms_are_of_their_kind() -> None:
    script = Script([DELETE])
    model_agent, _ = deletes(script, metadata={"approval": {"editable": True}})
    with pytest.raises(ExceptionGroup) as refused:
        await Stage().run(llm_agent("bot", model_agent))
    assert "must be ApprovalTerms, not dict" in str(refused.value.exceptions[0])


async def test_a_turn_is_parked_while_its_tools_ask_and_not_while_one_works() -> None:
    calls = {
        0: DeltaToolCall(name="ask", json_args="{}", tool_call_id="c1"),
        1: DeltaToolCall(name="work", json_args="{}", tool_call_id="c2"),
    }
    script = Script([calls], ["Done."])
    model_agent = pydantic_ai.Agent(script.model, deps_type=Turn)
    done = asyncio.Event()

    @model_agent.tool
    async def ask(ctx: RunContext[Turn]) -> str:
        return await ctx.deps.ask("Which?", key="which")

    @model_agent.tool_plain
    async def work() -> str:
        await done.wait()
        return "worked"

    stage = Stage()
    running = asyncio.create_task(stage.run(llm_agent("bot", model_agent)))
    (question,) = await stage.asked()
    assert stage.waits.waiting_for == (), "a call at work is not to be cut off"
    done.set()
    await eventually(lambda: stage.waits.waiting_for == ("t1:which",))
    assert len(stage.of("tool.returned")) == 1
    stage.answer(question, "that one")
    await running
    assert returned(script) == [("success", "that one"), ("success", "worked")]
