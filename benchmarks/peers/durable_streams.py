"""The reference server of the Durable Streams protocol, with its streams kept in files."""

import functools
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from benchmarks.peers import producer
from benchmarks.peers.producer import Plan
from benchmarks.readers import Readings, Subscription
from benchmarks.streaming import Load, subscribed
from tests.support import eventually, free_port
from tests.world.process import Process

PACKAGE = "@durable-streams/server"
VERSION = "0.3.7"
INSTALL_TIMEOUT_SECONDS = 120
MAX_OPEN_FILES = 100
"""The limit of its file store, which no setting changes."""
_RUN = Path(__file__).with_suffix(".mjs")


class DurableStreams:
    """The reference server, in its own process."""

    name = "Durable Streams"

    def __init__(self, port: int, http: httpx.AsyncClient) -> None:
        self.port, self._http = port, http

    def skips(self, load: Load) -> str | None:
        """Returns why a load is skipped: beyond its limit of open files it may answer an append with 404."""
        if load.streams > MAX_OPEN_FILES:
            return f"its store has a pool of {MAX_OPEN_FILES} open files, and loses appends beyond it"
        return None

    async def create(self, count: int) -> list[str]:
        """Creates streams and returns their paths."""
        paths = [f"/streams/{uuid.uuid4().hex}" for _ in range(count)]
        for path in paths:
            answer = await self._http.put(path, headers={"Content-Type": "text/plain"})
            answer.raise_for_status()
        return paths

    def subscription(self, path: str) -> Subscription:
        """Returns a subscription that reads a stream from its beginning."""
        request = f"GET {path}?offset=-1&live=sse HTTP/1.1\r\nHost: localhost\r\n\r\n"
        return Subscription(self.port, request, producer.END, ready="event: control")

    async def write(self, paths: list[str], *, tokens: int = 0, words: list[str] | None = None) -> None:
        """Writes tokens at the usual rate, or all the words immediately, to each of the streams."""
        await producer.run(Plan("durable-streams", self.port, paths, tokens, words))

    async def read(self, path: str) -> bytes:
        """Returns the whole content of a stream."""
        return (await self._http.get(f"{path}?offset=-1")).content

    async def stream(self, load: Load) -> Readings:
        """Streams the load once."""
        paths = await self.create(load.streams)
        subscriptions = [self.subscription(path) for path in paths for _ in range(load.subscribers)]
        readings = await subscribed(subscriptions, load, lambda: self.write(paths, tokens=load.tokens))
        for path in paths:
            (await self._http.delete(path)).raise_for_status()
        return readings


@functools.cache
def _install() -> tuple["tempfile.TemporaryDirectory[str]", Path]:
    """Fetches the package once for this run; the folder is removed when the process ends."""
    if not shutil.which("npm") or not shutil.which("node"):
        raise FileNotFoundError("npm is not installed")
    folder = tempfile.TemporaryDirectory()
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder.name]
    done = subprocess.run(
        [*command, f"{PACKAGE}@{VERSION}"], capture_output=True, text=True, timeout=INSTALL_TIMEOUT_SECONDS
    )
    if done.returncode:
        raise FileNotFoundError(f"npm could not install {PACKAGE}: {done.stderr.strip()[-200:]}")
    return folder, Path(folder.name) / "node_modules" / PACKAGE / "dist" / "index.js"


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[DurableStreams]:
    """Starts the server. Raises ``FileNotFoundError`` if npm is missing or has nothing to install from."""
    _, module = _install()
    port = free_port()
    data = folder / "durable-streams"
    with Process("node", str(_RUN), str(module), str(port), str(data), log=folder / "durable-streams.log"):
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:

            async def answers() -> bool:
                try:
                    return bool((await http.get("/")).status_code)
                except httpx.TransportError:
                    return False

            await eventually(answers, within=30)
            yield DurableStreams(port, http)
