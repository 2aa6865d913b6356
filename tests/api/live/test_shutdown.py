"""A process that is told to exit does so in time, whoever is connected, and leaves a clean log."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support import eventually
from tests.world.redis import NO_REDIS, REDIS, running_redis
from tests.world.stack import KEYS, Stack, running_stack
from tests.world.temporal import running_temporal
from waystation.client import Session

EXIT_SECONDS = {"api": 3, "worker": 5, "agent": 10}
"""What the docs state."""
MEASURING_SECONDS = 2.0
"""What else may pass, beside the time in which the machine has no processor for the one that ends."""
ESTABLISHED = "01"
"""The state of a connection in Linux's list."""


async def _follow(session: Session) -> None:
    async for _ in session.events():
        pass


def has_read_all(port: int, connections: int) -> bool:
    """Whether a process has so many connections, and has read all that came on them."""
    unread = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if state == ESTABLISHED and int(local.partition(":")[2], 16) == port:
            unread.append(int(queues.partition(":")[2], 16))
    return len(unread) >= connections and not any(unread)


@pytest.mark.skipif(REDIS is None, reason=NO_REDIS)
@pytest.mark.parametrize("with_redis", [True, False])
async def test_sigterm_ends_an_api_that_has_served_streams(tmp_path: Path, with_redis: bool) -> None:
    """Whether it serves some at that moment, or has."""
    async with AsyncExitStack() as resources:
        settings = {}
        if with_redis:
            (tmp_path / "redis").mkdir()
            settings["redis_url"] = resources.enter_context(running_redis(tmp_path / "redis")).url
        # A server of its own: a worker with other keys would take this stack's tasks.
        temporal = await resources.enter_async_context(running_temporal(tmp_path))
        stack = await resources.enter_async_context(running_stack(tmp_path, temporal, **settings))
        api = stack.apis[stack.ports[0]]
        for open_streams in (0, 3):
            async with stack.client() as client:
                session = await client.start("demo", message="tokens=4000 rate=50")
                async for event in session.events():
                    if event.type == "message.delta":
                        break
                following = [asyncio.create_task(_follow(session)) for _ in range(open_streams)]
                await eventually(lambda s=session, n=open_streams: s.connected == bool(n))
                api.signal(signal.SIGTERM)
                took = await api.seconds_until_ended()
                assert took is not None
                assert took < EXIT_SECONDS["api"] + MEASURING_SECONDS
                for task in following:
                    task.cancel()
                await asyncio.gather(*following, return_exceptions=True)
            assert "Traceback" not in api.output
            assert "ERROR" not in api.output
            api.start()
            await stack.ready()


@pytest.mark.thorough
@pytest.mark.skipif(REDIS is None, reason=NO_REDIS)
async def test_sigterm_ends_an_api_in_time_though_all_that_it_needs_hangs(tmp_path: Path) -> None:
    """Temporal, Redis, a client that reads nothing, one that has sent half a request, and one that waits."""
    async with AsyncExitStack() as resources:
        (tmp_path / "redis").mkdir()
        redis = resources.enter_context(running_redis(tmp_path / "redis"))
        temporal = await resources.enter_async_context(running_temporal(tmp_path))
        stack = await resources.enter_async_context(running_stack(tmp_path, temporal, redis_url=redis.url))
        port = stack.ports[0]
        api = stack.apis[port]
        async with stack.client() as client:
            session = await client.start("demo", message="tokens=4000 rate=50")
            async for event in session.events():
                if event.type == "message.delta":
                    break
            following = asyncio.create_task(_follow(session))
            head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {KEYS['service']}\r\n"
            requests = (
                f"GET /sessions/{session.id}/events?after=0 HTTP/1.1\r\n{head}\r\n",
                f"POST /sessions/{session.id}/messages HTTP/1.1\r\n{head}Content-Length: 99\r\n\r\n{{",
                f"GET /sessions/{session.id}/transcript HTTP/1.1\r\n{head}\r\n",
            )
            for request in requests:
                _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
                resources.callback(writer.close)
                writer.write(request.encode())
            for server in (redis, temporal):
                server.signal(signal.SIGSTOP)
                resources.callback(server.signal, signal.SIGCONT)
            asking = asyncio.create_task(session.stop(wait_seconds=20))
            # The two streams, the two other requests above, and the stop.
            await eventually(lambda: has_read_all(port, connections=5), what="the API has read all requests")
            api.signal(signal.SIGTERM)
            took = await api.seconds_until_ended()
            for task in (following, asking):
                task.cancel()
            await asyncio.gather(following, asking, return_exceptions=True)
        assert took is not None
        assert took < EXIT_SECONDS["api"]
        assert "Traceback" not in api.output


@pytest.mark.thorough
async def test_sigterm_ends_workers_and_agents_in_time_though_temporal_hangs(tmp_path: Path) -> None:
    async with AsyncExitStack() as resources:
        temporal = await resources.enter_async_context(running_temporal(tmp_path))
        stack = resources.enter_context(Stack(tmp_path, temporal))
        stack.run_api()
        worker, agent = stack.run_worker(), stack.run_agent()
        await stack.ready()
        async with stack.client() as client:
            session = await client.start("demo", message="tokens=4000 rate=50")
            assert (await session.stop(wait_seconds=20)).outcome == "stopped"
            await session.send("tokens=4000 rate=50")
        temporal.signal(signal.SIGSTOP)
        resources.callback(temporal.signal, signal.SIGCONT)
        for process in (worker, agent):
            process.signal(signal.SIGTERM)
        ended = await asyncio.gather(worker.seconds_until_ended(), agent.seconds_until_ended())
        for name, took in zip(("worker", "agent"), ended, strict=True):
            assert took is not None, name
            assert took < EXIT_SECONDS[name] + MEASURING_SECONDS, name
        assert "never retrieved" not in worker.output
