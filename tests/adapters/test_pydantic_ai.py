"""The model adapter against pydantic-ai's own test models: no network, no key, no server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pydantic_ai
import pytest
from pydantic import BaseModel
from pydantic_ai import RunContext
from pydantic_ai.exceptions import ModelConnectionError, ModelHTTPError, ModelQuotaExceededError, ModelRetry
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    NativeToolCallPart,
    NativeToolReturnPart,
    TextPart,
)
from pydantic_ai.models.function import AgentInfo, DeltaThinkingPart, DeltaToolCall, FunctionModel
from pydantic_ai.models.test import TestModel

from tests.adapters.support import ADA, BOB, BOT, OLGA, OTHER, Script, Stage, call, said
from tests.support import eventually
from waystation.adapters.pydantic_ai import (
    MAX_SHOWN_BYTES,
    ModelFailed,
    conversation_of,
    llm_agent,
    shown_json,
)
from waystation.agent import RetryTurn, SuggestionRequest, Turn
from waystation.client.transcript import ToolUse
from waystation.models.events import MAX_MESSAGE_CHARACTERS


def texts(messages: list[ModelMessage]) -> list[tuple[str, str]]:
    """What a model was given, as ``(kind, text)``."""
    return [(part.part_kind, str(getattr(part, "content", part))) for m in messages for part in m.parts]


async def test_text_streams_as_deltas_of_one_message() -> None:
    script = Script(["Hel", "lo", "", " you"])
    stage = Stage()
    result = await stage.run(llm_agent("bot", pydantic_ai.Agent(script.model)))
    assert stage.transcript == [("message", "Hello you")]
    assert [delta["text"] for delta in stage.of("message.delta")] == ["Hel", "lo", " you"]
    assert result["usage"]["requests"] == 1
    assert result["usage"]["output_tokens"] > 0
    assert "output" not in result


async def test_a_model_drafts_a_reply_for_an_operator_and_runs_no_tool() -> None:
    given: list[tuple[list[ModelMessage], AgentInfo]] = []

    def draft(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        given.append((messages, info))
        if len(given) > 1:
            raise ModelHTTPError(status_code=400, model_name="m", body="key sk-1 is wrong")
        return ModelResponse(parts=[TextPart("It comes on Monday.")])

    model_agent = pydantic_ai.Agent(FunctionModel(draft), deps_type=str, output_type=list[int])

    @model_agent.tool_plain
    def cancel() -> None:
        raise AssertionError("nobody has asked for that")

    @model_agent.output_validator
    def small(output: list[int]) -> list[int]:
        raise AssertionError("a draft is no output of a turn")

    @model_agent.instructions
    def manner(ctx: RunContext[str]) -> str:
        return f"Be brief. {ctx.deps}"

    use = ToolUse("c1", "track", BOT, 3, "t1", {"order": 7}, "lost", returned=True)
    talk = (
        said("m1", ADA, "Where is it?"),
        said("m2", BOT, "I look."),
        use,
        said("m3", OLGA, "It is lost"),
        said("m4", ADA, "And now?"),
    )
    agent = llm_agent("bot", model_agent, suggestion_deps=lambda asked: f"For {asked.session_id}.")
    asked = SuggestionRequest("s", OLGA, "on Monday", talk)
    assert await agent.suggest(asked) == "It comes on Monday."
    messages, info = given[0]
    assert (info.function_tools, info.output_tools) == ([], [])
    assert messages[-1].instructions == "Be brief. For s."  # type: ignore[union-attr]
    *earlier, (_, wanted) = texts(messages)
    assert earlier == [
        ("user-prompt", "Where is it?"),
        ("text", "I look."),
        ("tool-call", texts(messages)[2][1]),
        ("tool-return", "lost"),
        ("user-prompt", "[Olga, a person who works here, told the user:] It is lost"),
        ("user-prompt", "And now?"),
    ]
    assert "Olga" in wanted
    assert "It should say: on Monday" in wanted
    with pytest.raises(ModelFailed) as failed:
        await agent.suggest(asked)
    assert "sk-1" not in str(failed.value)


async def test_reasoning_is_a_message_of_its_own_kind() -> None:
    script = Script(
        [{0: DeltaThinkingPart(content="Let me ")}, {0: DeltaThinkingPart(content="see.")}, "Yes."]
    )
    stage = Stage()
    await stage.run(llm_agent("bot", pydantic_ai.Agent(script.model)))
    assert stage.transcript == [("reasoning", "Let me see."), ("message", "Yes.")]
    assert len(stage.of("message.completed")) == 2


async def test_tool_calls_and_what_they_return_are_shown() -> None:
    script = Script(["Looking. ", call("price", '{"item": "tea"}')], ["It costs 5."])
    model_agent = pydantic_ai.Agent(script.model)

    @model_agent.tool_plain
    def price(item: str) -> dict[str, Any]:
        return {"item": item, "cents": 500}

    stage = Stage()
    result = await stage.run(llm_agent("bot", model_agent))
    kinds = [item.type for item in stage.writer.written]
    assert kinds == [
        "message.started", "message.delta", "usage.reported", "message.completed", "tool.called",
        "tool.returned", "message.started", "message.delta", "usage.reported", "message.completed",
    ]  # fmt: skip
    (called,), (returned,) = stage.of("tool.called"), stage.of("tool.returned")
    assert (called["name"], called["arguments"]) == ("price", {"item": "tea"})
    assert returned == {
        "call_id": called["call_id"],
        "name": "price",
        "result": {"item": "tea", "cents": 500},
    }
    assert result["usage"]["tool_calls"] == 1


async def test_what_the_provider_runs_by_itself_is_shown_with_its_result() -> None:
    asked, found = NativeToolCallPart("web_search", {"q": "tea"}, "n1"), {"results": 3}
    script = Script([{0: asked}, {1: NativeToolReturnPart("web_search", found, "n1")}, "Three."])
    stage = Stage()
    await stage.run(llm_agent("bot", pydantic_ai.Agent(script.model)))
    assert [item.type for item in stage.writer.written][:3] == [
        "tool.called", "tool.returned", "message.started",
    ]  # fmt: skip
    assert stage.of("tool.called")[0]["kind"] == "native"
    assert stage.of("tool.returned")[0]["result"] == found


async def test_tools_in_parallel_are_each_told_apart() -> None:
    first = {
        0: DeltaToolCall(name="wait_for", json_args='{"name": "a"}', tool_call_id="c1"),
        1: DeltaToolCall(name="wait_for", json_args='{"name": "b"}', tool_call_id="c2"),
    }
    script = Script([first], ["done"])
    model_agent = pydantic_ai.Agent(script.model)
    b_is_done = asyncio.Event()

    @model_agent.tool_plain
    async def wait_for(name: str) -> str:
        if name == "a":
            await b_is_done.wait()
        b_is_done.set()
        return f"{name} is done"

    stage = Stage()
    await stage.run(llm_agent("bot", model_agent))
    arguments = {data["call_id"]: data["arguments"]["name"] for data in stage.of("tool.called")}
    results = {arguments[data["call_id"]]: data["result"] for data in stage.of("tool.returned")}
    assert results == {"a": "a is done", "b": "b is done"}


async def test_a_tool_that_asks_for_another_try_shows_an_error() -> None:
    script = Script([call("find")], [call("find", call_id="c2")], ["found"])
    model_agent = pydantic_ai.Agent(script.model)
    tries: list[int] = []

    @model_agent.tool_plain
    def find() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ModelRetry("look elsewhere")
        return "here"

    stage = Stage()
    await stage.run(llm_agent("bot", model_agent))
    first, second = stage.of("tool.returned")
    assert "look elsewhere" in first["error"]
    assert second["result"] == "here"


async def test_a_tool_that_breaks_shows_its_error_and_fails_the_turn() -> None:
    script = Script([call("find")])
    model_agent = pydantic_ai.Agent(script.model)

    @model_agent.tool_plain
    def find() -> str:
        raise LookupError("no such shelf")

    stage = Stage()
    with pytest.raises(LookupError):
        await stage.run(llm_agent("bot", model_agent))
    assert "no such shelf" in stage.of("tool.returned")[0]["error"]


async def test_pydantic_ais_test_model_runs_through() -> None:
    model_agent = pydantic_ai.Agent(TestModel(custom_output_text="Good evening."))

    @model_agent.tool_plain
    def clock() -> str:
        return "20:15"

    stage = Stage()
    await stage.run(llm_agent("bot", model_agent))
    assert stage.of("tool.returned")[0]["result"] == "20:15"
    assert stage.transcript == [("message", "Good evening.")]


async def test_a_structured_output_is_the_turns_result() -> None:
    class Price(BaseModel):
        cents: int

    model_agent = pydantic_ai.Agent(TestModel(custom_output_args={"cents": 5}), output_type=Price)
    assert (await Stage().run(llm_agent("bot", model_agent)))["output"] == {"cents": 5}


async def test_a_sub_agent_gets_its_task_alone_and_answers_its_parent() -> None:
    script = Script(["42"])
    stage = Stage("Compute.", [said("m", ADA, "secret plan")], parent_turn_id="t0")
    result = await stage.run(llm_agent("bot", pydantic_ai.Agent(script.model)))
    assert texts(script.given[0]) == [("user-prompt", "Compute.")]
    assert result["output"] == "42"


async def test_tools_reach_the_session_through_their_dependencies() -> None:
    script = Script([call("report")], ["ok"])
    model_agent = pydantic_ai.Agent(script.model, deps_type=Turn)

    @model_agent.tool
    async def report(context: RunContext[Turn]) -> str:
        await context.deps.emit("progress", {"percent": 40})
        return "reported"

    stage = Stage()
    await stage.run(llm_agent("bot", model_agent))
    assert stage.of("data.progress") == [{"percent": 40}]


# Conversation


async def test_the_conversation_becomes_the_models_history_by_role() -> None:
    conversation = [
        said("m1", ADA, "Hello"),
        said("a1", BOT, "Hello Ada", "t0"),
        said("o1", OLGA, "I am here"),
        said("r1", OTHER, "A finding", "t0.1"),
        said("m2", ADA, "And now?"),
    ]
    script = Script(["ok"])
    stage = Stage("And now?", conversation)
    await stage.run(llm_agent("bot", pydantic_ai.Agent(script.model, instructions="Be brief.")))
    kinds = [(kind, text) for kind, text in texts(script.given[0])]
    assert kinds == [
        ("user-prompt", "Hello"),
        ("text", "Hello Ada"),
        ("user-prompt", "[Olga, a person who works here, told the user:] I am here"),
        ("user-prompt", "[The agent researcher told the user:] A finding"),
        ("user-prompt", "And now?"),
    ]


async def test_tool_calls_of_earlier_turns_are_part_of_the_models_history() -> None:
    done = ToolUse("c1", "clock", BOT, 2, "t0", {"zone": "utc"}, result="20:15", returned=True)
    failed = ToolUse("c2", "search", BOT, 3, "t0", error="TimeoutError: ", returned=True)
    native = ToolUse("c3", "web_search", BOT, 4, "t0", result=[], returned=True, kind="native")
    others = ToolUse("c4", "clock", OTHER, 5, "t0.1", result="20:16", returned=True)
    stage = Stage("And now?", [said("m1", ADA, "What time?"), said("m2", ADA, "And now?")])
    stage.turn.history[1:1] = [done, failed, native, others]
    history, _ = conversation_of(stage.turn)
    parts = [part for message in history for part in message.parts]
    assert [(part.part_kind, getattr(part, "tool_call_id", None)) for part in parts] == [
        ("user-prompt", None),
        ("tool-call", "c1"),
        ("tool-return", "c1"),
        ("tool-call", "c2"),
        ("tool-return", "c2"),
    ]
    assert parts[1].args == {"zone": "utc"}  # type: ignore[union-attr]
    assert [part.content for part in (parts[2], parts[4])] == ["20:15", "failed: TimeoutError: "]  # type: ignore[union-attr]


async def test_several_people_are_told_apart() -> None:
    conversation = [said("m1", ADA, "I say tea"), said("m2", BOB, "I say coffee"), said("m3", ADA, "Well?")]
    history, _ = conversation_of(Stage("Well?", conversation).turn)
    assert texts(history) == [("user-prompt", "[Ada:] I say tea"), ("user-prompt", "[Bob:] I say coffee")]


async def test_history_is_bounded_to_the_newest() -> None:
    conversation = [*(said(f"m{n}", ADA, str(n)) for n in range(10)), said("now", ADA, "now")]
    history, _ = conversation_of(Stage("now", conversation).turn, limit=3)
    assert [text for _, text in texts(history)] == ["7", "8", "9"]


async def test_a_system_prompt_is_there_in_later_turns_too() -> None:
    script = Script(["ok"])
    stage = Stage("two", [said("m1", ADA, "one"), said("a1", BOT, "1", "t0"), said("m2", ADA, "two")])
    await stage.run(llm_agent("bot", pydantic_ai.Agent(script.model, system_prompt="You sell tea.")))
    assert ("system-prompt", "You sell tea.") in texts(script.given[0])


async def test_another_attempt_answers_anew_with_the_steers_of_the_first() -> None:
    conversation = [
        said("m1", ADA, "Write."),
        said("a0", BOT, "Half of it", "t1"),
        said("s1", ADA, "In French", "t1", kind="steer"),
    ]
    script = Script(["Voilà."])
    stage = Stage("Write.", conversation, attempt=2)
    # Told again, since the log is read from the turn's beginning; passed on once.
    stage.steer("In French", "s1")
    await stage.run(llm_agent("bot", pydantic_ai.Agent(script.model)))
    assert texts(script.given[0]) == [("user-prompt", "Write."), ("user-prompt", "In French")]


# Steers


async def test_a_steer_between_tool_calls_reaches_the_next_request() -> None:
    script = Script([call("look")], ["Left then."])
    model_agent = pydantic_ai.Agent(script.model)
    stage = Stage("Where?")

    @model_agent.tool_plain
    def look() -> str:
        stage.steer("Prefer left")
        return "a fork"

    await stage.run(llm_agent("bot", model_agent))
    assert stage.of("steer.consumed") == [{"steer_id": "s1"}]
    assert any("Prefer left" in text for _, text in texts(script.given[1]))
    assert all("Prefer left" not in text for _, text in texts(script.given[0]))


async def test_a_steer_during_the_last_request_makes_another_one() -> None:
    stage = Stage("Go")

    def steered() -> str:
        stage.steer("Shorter")
        return "A long answer."

    script = Script([steered], ["Short."])
    result = await stage.run(llm_agent("bot", pydantic_ai.Agent(script.model)))
    assert stage.transcript == [("message", "A long answer."), ("message", "Short.")]
    last = texts(script.given[1])
    assert last[-2:] == [("text", "A long answer."), ("user-prompt", "Shorter")]
    assert result["usage"]["requests"] == 2


async def test_a_steer_told_twice_is_passed_on_once() -> None:
    stage = Stage("Go")

    def steered() -> str:
        stage.steer("Shorter")
        return "One."

    script = Script([steered], [steered], ["never"])
    await stage.run(llm_agent("bot", pydantic_ai.Agent(script.model)))
    assert len(script.given) == 2


async def test_an_operators_steer_says_who_it_is() -> None:
    stage = Stage("Go")
    stage.steer("Offer a refund", actor=OLGA)
    script = Script(["ok"])
    await stage.run(llm_agent("bot", pydantic_ai.Agent(script.model)))
    assert any("Olga" in text and "Offer a refund" in text for _, text in texts(script.given[0]))


# Stop and failure


async def test_a_stop_cancels_the_request_at_once_and_keeps_the_text() -> None:
    closed = asyncio.Event()

    async def endless(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[str]:
        try:
            yield "One "
            await asyncio.Event().wait()
        finally:
            closed.set()

    stage = Stage()
    agent = llm_agent("bot", pydantic_ai.Agent(FunctionModel(stream_function=endless)))
    running = asyncio.create_task(stage.run(agent))
    await eventually(lambda: stage.of("message.delta"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 1)
    assert closed.is_set()
    assert stage.transcript == [("message", "One ")]


async def test_a_stop_cancels_tools_too() -> None:
    cancelled = asyncio.Event()
    model_agent = pydantic_ai.Agent(Script([call("hang")]).model)

    @model_agent.tool_plain
    async def hang() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return "never"

    stage = Stage()
    running = asyncio.create_task(stage.run(llm_agent("bot", model_agent)))
    await eventually(lambda: stage.of("tool.called"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 1)
    assert cancelled.is_set()
    assert [returned["error"] for returned in stage.of("tool.returned")] == ["canceled"]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_passing_failure_of_the_provider_retries_the_turn(status: int) -> None:
    script = Script(["Half", ModelHTTPError(status, "m", {"key": "sk-secret"})])
    with pytest.raises(RetryTurn) as raised:
        await Stage().run(llm_agent("bot", pydantic_ai.Agent(script.model)))
    assert "sk-secret" not in str(raised.value)
    assert str(status) in str(raised.value)


async def test_what_a_retry_would_not_mend_fails_the_turn_without_the_providers_words() -> None:
    script = Script([ModelHTTPError(401, "m", {"key": "sk-secret"})])
    with pytest.raises(ModelFailed) as raised:
        await Stage().run(llm_agent("bot", pydantic_ai.Agent(script.model)))
    assert "sk-secret" not in str(raised.value)
    assert "401" in str(raised.value)


async def test_a_connection_that_is_lost_retries_the_turn_and_a_spent_quota_does_not() -> None:
    lost = Script([ModelConnectionError("m", "connection reset")])
    with pytest.raises(RetryTurn):
        await Stage().run(llm_agent("bot", pydantic_ai.Agent(lost.model)))
    spent = ModelHTTPError.for_category(ModelQuotaExceededError, status_code=429, model_name="m")
    with pytest.raises(ModelFailed):
        await Stage().run(llm_agent("bot", pydantic_ai.Agent(Script([spent]).model)))


async def test_an_answer_beyond_the_longest_message_becomes_two() -> None:
    script = Script(["x" * (MAX_MESSAGE_CHARACTERS - 1), "yz!"])
    stage = Stage()
    await stage.run(llm_agent("bot", pydantic_ai.Agent(script.model)))
    assert [len(text) for _, text in stage.transcript] == [MAX_MESSAGE_CHARACTERS, 2]


async def test_what_a_tool_returns_beyond_an_event_is_shown_in_part_and_given_whole() -> None:
    script = Script([call("dump")], ["ok"])
    model_agent = pydantic_ai.Agent(script.model)

    @model_agent.tool_plain
    def dump() -> str:
        return "x" * (MAX_SHOWN_BYTES + 1)

    stage = Stage()
    await stage.run(llm_agent("bot", model_agent))
    assert stage.of("tool.returned")[0]["result"]["truncated"] is True
    assert any(len(text) > MAX_SHOWN_BYTES for _, text in texts(script.given[1]))


def test_anything_can_be_shown() -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd"

    assert shown_json({"o": Odd(), "n": float("nan"), "b": b"x"}) == {"o": "odd", "n": "NaN", "b": "eA=="}


def test_roles_are_messages_that_pydantic_ai_takes() -> None:
    history, _ = conversation_of(Stage("x", [said("m", ADA, "a"), said("n", BOT, "b", "t0")]).turn)
    assert [type(message) for message in history] == [ModelRequest, ModelResponse]
