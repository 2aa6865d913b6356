"""What a turn remembers of a run of its model, against pydantic-ai's own test models: no server."""

import asyncio
from typing import Any

import pydantic_ai
import pytest
from pydantic_ai import RunContext
from pydantic_ai.exceptions import ModelHTTPError, ModelRetry, ToolFailed
from pydantic_ai.messages import BinaryContent, ModelMessage, ToolReturn, ToolReturnPart
from pydantic_ai.models.function import DeltaThinkingPart, DeltaToolCall

from tests.adapters.support import ADA, Records, Script, Stage, call, said
from tests.support import eventually
from waystation.adapters.pydantic_ai import ModelFailed, llm_agent
from waystation.agent import RetryTurn, Turn, current_step
from waystation.models.steps import MAX_INLINE_STEP_RESULT_BYTES

TEN = {
    number: DeltaToolCall(name="add", json_args=f'{{"number": {number}}}', tool_call_id=f"c{number}")
    for number in range(10)
}


def told(messages: list[ModelMessage]) -> list[tuple[str, str]]:
    """What a model was given, as ``(kind, text)``."""
    return [(part.part_kind, str(getattr(part, "content", ""))) for m in messages for part in m.parts]


async def cut_off(running: "asyncio.Task[Any]") -> None:
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_what_was_cut_off_in_the_middle_of_ten_calls_goes_on_there() -> None:
    script = Script(["Let me see. ", TEN], ["Done."])
    model_agent = pydantic_ai.Agent(script.model)
    ran: list[int] = []
    goes_on = asyncio.Event()

    @model_agent.tool_plain
    async def add(number: int) -> int:
        ran.append(number)
        if number > 4:
            await goes_on.wait()
        return number

    records = Records()
    first = Stage(records=records)
    running = asyncio.create_task(first.run(llm_agent("bot", model_agent)))
    await eventually(lambda: len(ran) == 10 and len(records.recorded) == 6)
    await cut_off(running)
    goes_on.set()
    second = Stage(records=records, attempt=2)
    result = await second.run(llm_agent("bot", model_agent))
    assert len(script.given) == 2, "the response that was received isn't asked for again"
    assert sorted(ran) == sorted([*range(10), *range(5, 10)]), "what has ended doesn't run again"
    assert second.transcript == [("message", "Let me see. "), ("message", "Done.")]
    assert [data["result"] for data in second.of("tool.returned")] == list(range(10))
    assert result["usage"]["requests"] == 2
    assert result["usage"]["tool_calls"] == 10


async def test_a_response_that_was_cut_off_is_asked_for_again_and_withdrawn_whole() -> None:
    goes_on = asyncio.Event()
    script = Script(["Half of ", call("nothing"), lambda: "it"], ["All of it."])
    model_agent = pydantic_ai.Agent(script.model)

    async def stream(messages: list[ModelMessage], info: Any) -> Any:
        async for chunk in script.stream(messages, info):
            yield chunk
            if len(script.given) == 1:
                await goes_on.wait()

    model_agent.model = pydantic_ai.models.function.FunctionModel(stream_function=stream)
    records = Records()
    first = Stage(records=records)
    running = asyncio.create_task(first.run(llm_agent("bot", model_agent)))
    await eventually(lambda: first.of("message.delta"))
    await cut_off(running)
    assert not records.recorded
    assert not first.of("message.completed"), "so the session withdraws it"
    second = Stage(records=records, attempt=2)
    await second.run(llm_agent("bot", model_agent))
    assert second.transcript == [("message", "All of it.")]


async def test_what_a_response_says_is_completed_once_it_is_recorded() -> None:
    script = Script([{0: DeltaThinkingPart(content="Hm.")}, "One. ", {1: call("clock")[0]}], ["Two."])
    model_agent = pydantic_ai.Agent(script.model)
    model_agent.tool_plain(lambda: "20:15", name="clock")
    records = Records()
    completed: list[int] = []
    record = records.record

    async def recording(key: str, result: Any) -> Any:
        completed.append(len(stage.of("message.completed")))
        return await record(key, result)

    records.record = recording  # type: ignore[method-assign]
    stage = Stage(records=records)
    await stage.run(llm_agent("bot", model_agent))
    assert completed == [1, 2, 2], "reasoning is complete at its end; text when its response is recorded"
    assert len(stage.of("message.completed")) == 3


async def test_a_passing_failure_after_a_tool_has_run_is_tried_again_without_the_tool() -> None:
    script = Script([call("charge")], [ModelHTTPError(503, "m")], ["paid"])
    model_agent = pydantic_ai.Agent(script.model)
    charged: list[str] = []

    @model_agent.tool_plain
    def charge() -> str:
        charged.append(current_step().idempotency_key)
        return "charged"

    records = Records()
    with pytest.raises(RetryTurn):
        await Stage(records=records).run(llm_agent("bot", model_agent))
    second = Stage(records=records, attempt=2)
    await second.run(llm_agent("bot", model_agent))
    assert len(charged) == 1
    assert second.transcript == [("message", "paid")]


async def test_what_is_too_large_is_given_all_the_same_and_the_turn_is_not_tried_again() -> None:
    script = Script([call("read")], [ModelHTTPError(503, "m")])
    model_agent = pydantic_ai.Agent(script.model)

    @model_agent.tool_plain
    def read() -> str:
        return "x" * MAX_INLINE_STEP_RESULT_BYTES

    with pytest.raises(ModelFailed):
        await Stage(records=Records()).run(llm_agent("bot", model_agent))


async def test_what_a_tool_says_in_the_place_of_a_result_is_remembered() -> None:
    again, lose = call("find", call_id="c2"), call("lose", call_id="c3")
    script = Script([call("find")], [again], [lose], [ModelHTTPError(503, "m")], ["found"])
    model_agent = pydantic_ai.Agent(script.model)
    tries: list[str] = []

    @model_agent.tool_plain
    def find() -> str:
        tries.append("find")
        if len(tries) == 1:
            raise ModelRetry("look elsewhere")
        return "here"

    @model_agent.tool_plain
    def lose() -> str:
        tries.append("lose")
        raise ToolFailed("gone")

    records = Records()
    first = Stage(records=records)
    with pytest.raises(RetryTurn):
        await first.run(llm_agent("bot", model_agent))
    second = Stage(records=records, attempt=2)
    await second.run(llm_agent("bot", model_agent))
    assert tries == ["find", "find", "lose"]
    assert told(script.given[-1]) == told(script.given[-2]), "the model is told the same"
    assert second.of("tool.returned") == [
        {**data, "call_id": data["call_id"].replace("t1-1-", "t1-2-")} for data in first.of("tool.returned")
    ]


async def test_what_more_a_tool_returns_comes_back_as_it_was() -> None:
    image = BinaryContent(b"\xff\x00", media_type="image/png")
    script = Script([call("look")], [ModelHTTPError(503, "m")], ["a cat"])
    model_agent = pydantic_ai.Agent(script.model)

    @model_agent.tool_plain
    def look() -> ToolReturn[Any]:
        return ToolReturn("seen", content=["This is it:", image], metadata={"camera": 1})

    records = Records()
    with pytest.raises(RetryTurn):
        await Stage(records=records).run(llm_agent("bot", model_agent))
    await Stage(records=records, attempt=2).run(llm_agent("bot", model_agent))
    first, second = script.given[1], script.given[2]
    for messages in (first, second):
        returned, content = messages[-1].parts
        assert isinstance(returned, ToolReturnPart)
        assert (returned.content, returned.metadata) == ("seen", {"camera": 1})
        assert content.content[1].data == image.data  # type: ignore[union-attr,index]


async def test_steers_stay_where_they_were_in_the_conversation() -> None:
    script = Script([call("clock")], ["Quarter past.", lambda: ""], [ModelHTTPError(503, "m")], ["Ok."])
    model_agent = pydantic_ai.Agent(script.model)
    stages = [Stage(records=(records := Records()))]

    @model_agent.tool_plain
    def clock() -> str:
        stages[0].steer("in words")
        return "20:15"

    script.requests[1][1] = lambda: stages[0].steer("and the date", "s2") or ""  # type: ignore[func-returns-value]
    with pytest.raises(RetryTurn):
        await stages[0].run(llm_agent("bot", model_agent))
    consumed = [
        said("s1", ADA, "in words", "t1", kind="steer"), said("s2", ADA, "and the date", "t1", kind="steer")
    ]  # fmt: skip
    await Stage(conversation=consumed, records=records, attempt=2).run(llm_agent("bot", model_agent))
    assert told(script.given[3]) == told(script.given[2])
    prompts = [text for kind, text in told(script.given[3]) if kind in ("user-prompt", "text")]
    assert prompts == ["Hi", "in words", "Quarter past.", "and the date"]


async def test_a_call_counts_by_itself_what_it_asks() -> None:
    calls = {
        0: DeltaToolCall(name="ask", json_args="{}", tool_call_id="c1"),
        1: DeltaToolCall(name="ask", json_args="{}", tool_call_id="c2"),
    }
    script = Script([calls], ["Ok."])
    model_agent = pydantic_ai.Agent(script.model, deps_type=Turn)
    steps: list[str] = []

    @model_agent.tool
    async def ask(ctx: RunContext[Turn]) -> str:
        steps.append(current_step().key)
        return await ctx.deps.ask("Which?")

    records = Records()
    first = Stage(records=records)
    running = asyncio.create_task(first.run(llm_agent("bot", model_agent)))
    one, other = await first.asked(2)
    assert one["question_id"] != other["question_id"]
    first.answer(one, "this")
    await eventually(lambda: len(records.recorded) == 2)
    await cut_off(running)
    second = Stage(records=records, attempt=2)
    running = asyncio.create_task(second.run(llm_agent("bot", model_agent)))
    (again,) = await second.asked()
    assert again["question_id"] == other["question_id"], "whatever is remembered of the other"
    assert len(set(steps)) == 2
    assert steps[2] == steps[1]
    second.answer(again, "that")
    await running


async def test_a_response_that_isnt_remembered_takes_the_later_ones_with_it() -> None:
    class Small(Records):
        max_result_bytes = 1_500

    script = Script(
        ["x" * 2_000, call("clock")], [call("clock", call_id="c2")], ["One."], ["y", call("clock")], ["Two."],
    )  # fmt: skip
    model_agent = pydantic_ai.Agent(script.model)
    model_agent.tool_plain(lambda: "20:15", name="clock")
    records = Small()
    await Stage(records=records).run(llm_agent("bot", model_agent))
    assert not records.recorded, "another answer in their place wouldn't fit to them"
    second = Stage(records=records, attempt=2)
    await second.run(llm_agent("bot", model_agent))
    assert [text for _, text in second.transcript] == ["y", "Two."]
