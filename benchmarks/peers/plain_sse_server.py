"""Server-sent events and nothing else: tokens from a list in memory to open connections.

Nothing is stored, nothing can be resumed, and the tokens are written in the server's own process. It
shows the best that Python, starlette and uvicorn can do on this machine.
"""

import asyncio
import sys
from collections import defaultdict
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from benchmarks.readers import stamp
from waystation.agents.demo import Pace

END = "end of stream"

_listeners: dict[str, list["asyncio.Queue[str]"]] = defaultdict(list)
_tasks: set["asyncio.Task[None]"] = set()


async def _events(request: Request) -> StreamingResponse:
    queue: asyncio.Queue[str] = asyncio.Queue()
    _listeners[request.path_params["name"]].append(queue)

    async def body() -> AsyncIterator[str]:
        yield "retry: 1000\n\n"
        while True:
            token = await queue.get()
            yield f"data: {token}\n\n"
            if token == END:
                return

    return StreamingResponse(body(), media_type="text/event-stream")


async def _produce(name: str, tokens: int, rate_per_second: int) -> None:
    pace = Pace(rate_per_second)
    for _ in range(tokens):
        await pace.wait()
        token = stamp()
        for queue in _listeners[name]:
            queue.put_nowait(token)
    for queue in _listeners.pop(name):
        queue.put_nowait(END)


async def _begin(request: Request) -> JSONResponse:
    asked = await request.json()
    for name in asked["names"]:
        task = asyncio.create_task(_produce(name, asked["tokens"], asked["rate_per_second"]))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
    return JSONResponse({})


app = Starlette(
    routes=[Route("/streams/{name}", _events), Route("/begin", _begin, methods=["POST"])],
)

if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False, backlog=4_096
    )
