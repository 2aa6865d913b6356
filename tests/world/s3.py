"""An S3 server, where moto is installed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def running_s3() -> AsyncIterator[str]:
    """Serves in a thread of this process, and yields its address."""
    from moto.server import ThreadedMotoServer  # takes seconds, and not everybody has it

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    await asyncio.to_thread(server.start)
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        await asyncio.to_thread(server.stop)
