"""An agent that ends its turns in every way that a turn can end: ``tests.agent.unruly:agent``."""

import asyncio
import contextlib
import sys

from waystation.agent import Agent, RetryTurn, Turn

agent = Agent("unruly")
NEIGHBOUR_SECONDS = 3.0


@agent.turn
async def misbehave(turn: Turn) -> object:
    return await globals()[turn.text.replace(" ", "_")](turn)


async def wait_beside(turn: Turn) -> str:
    for _ in range(10):
        await turn.write("still here ")
        await asyncio.sleep(NEIGHBOUR_SECONDS / 10)
    return "undisturbed"


async def wait_for_ever(turn: Turn) -> None:
    while True:
        await turn.write("still here ")
        await asyncio.sleep(0.2)


async def exit_the_process(turn: Turn) -> None:
    sys.exit(3)


async def exit_in_a_task(turn: Turn) -> None:
    async def leave() -> None:
        await asyncio.sleep(0)  # so that it is the task that ends, and not the call that starts it
        sys.exit(3)

    await asyncio.create_task(leave())


async def exit_in_a_group(turn: Turn) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(exit_the_process(turn))
        group.create_task(asyncio.Event().wait())


async def exit_in_a_thread(turn: Turn) -> None:
    await asyncio.to_thread(sys.exit, 3)


async def exit_in_a_task_that_nobody_awaits(turn: Turn) -> str:
    task = asyncio.create_task(exit_in_a_task(turn))
    await asyncio.wait([task])
    return f"gone: {task.done()}"


async def interrupt(turn: Turn) -> None:
    raise KeyboardInterrupt


async def close_a_generator(turn: Turn) -> None:
    raise GeneratorExit


async def group_of_the_worst(turn: Turn) -> None:
    raise BaseExceptionGroup("worst", [SystemExit(1), KeyboardInterrupt()])


async def retry_in_a_group(turn: Turn) -> str:
    if turn.attempt > 1:
        return "at the second attempt"
    async with asyncio.TaskGroup() as group:
        group.create_task(retry(turn))
        group.create_task(asyncio.Event().wait())
    raise AssertionError


async def retry(turn: Turn) -> None:
    raise RetryTurn("not yet")


async def tool_out_of_time(turn: Turn) -> str:
    try:
        async with asyncio.timeout(0.1), turn.tool("slow"):
            await asyncio.Event().wait()
    except TimeoutError:
        await turn.write("too slow")
    return "went on"


async def tool_without_json(turn: Turn) -> str:
    try:
        async with turn.tool("odd") as call:
            call.result = object()  # type: ignore[assignment]
    except ValueError:
        await turn.write("not JSON")
    return "went on"


async def message_out_of_time(turn: Turn) -> str:
    try:
        async with asyncio.timeout(0.1), turn.message() as message:
            await message.write("half an ans")
            await asyncio.Event().wait()
    except TimeoutError:
        await turn.write("sorry")
    return "went on"


async def hang_in_a_tool(turn: Turn) -> None:
    async with turn.tool("endless"):
        await turn.flush()
        await asyncio.Event().wait()


async def result_that_is_deep(turn: Turn) -> object:
    deep: object = "bottom"
    for _ in range(250):
        deep = [deep]
    return deep


async def result_that_is_long(turn: Turn) -> object:
    return "x" * 1_100_000


async def result_that_is_no_json(turn: Turn) -> object:
    return {"when": object()}


async def result_with_half_a_character(turn: Turn) -> object:
    return {"a\ud800": ["\udc00b"]}


async def more_tools_than_may_be_open(turn: Turn) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(1_000):
            await stack.enter_async_context(turn.tool("search"))


async def error_with_half_a_character(turn: Turn) -> None:
    raise ValueError("a\ud800b")


async def spawn_three_alike(turn: Turn) -> object:
    spawned = [await turn.spawn("unruly", "greet") for _ in range(3)]
    if turn.attempt == 1:
        raise RetryTurn("once more")
    return {"attempt": turn.attempt, "sub_agents": [sub_agent.turn_id for sub_agent in spawned]}


async def greet(turn: Turn) -> str:
    return "hello"
