"""The sandbox's servers, each in a process of its own; their data survive kill -9.

What they are asked and told here goes through no event loop: they are other processes, which answer while the
test's own loop stands still.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import httpx

from tests.support import PATIENCE_SECONDS, START_SECONDS, free_port, wait_until
from tests.world.process import LOGGED_CHARACTERS, HttpProcess, Process, python
from waystation.dev.sandbox import Sandbox
from waystation.protocols.acp import API_VERSION

Json = dict[str, Any]

# Making a client loads the machine's certificates, which takes longer than all that a test asks. It keeps no
# connection, for the servers are killed.
HTTP = httpx.Client(trust_env=False, timeout=30, limits=httpx.Limits(max_keepalive_connections=0))


class SandboxServer(HttpProcess):
    """One of the servers; in trouble where a test wants it."""

    health = "/sandbox/health"
    name: ClassVar[str]
    """Of its module in the sandbox; its data and its log are called so too, unless it is ``called`` else."""

    def __init__(
        self, folder: Path, *options: str, called: str | None = None, env: dict[str, str] | None = None
    ) -> None:
        called = called or self.name
        self.data = folder / called
        port = free_port()
        command = python(f"waystation.sandbox.{self.name}", "--port", port, "--data", self.data, *options)
        super().__init__(*command, log=folder / f"{called}.log", port=port, env=env)

    def wait(self) -> Self:
        """Waits until it serves, as ``ready`` does, outside an event loop."""
        wait_until(self._healthy, f"{self.name} answers", START_SECONDS)
        return self

    def _healthy(self) -> bool:
        assert not self.ended, f"{self.name} has ended:\n{self.output[-LOGGED_CHARACTERS:]}"
        try:
            return HTTP.get(self.url + self.health).is_success
        except httpx.TransportError:
            return False

    def wait_dead(self) -> None:
        self.popen.wait(PATIENCE_SECONDS)

    def ask(self, path: str) -> Any:
        answer = HTTP.get(self.url + path)
        answer.raise_for_status()
        return answer.json()

    def tell(self, path: str, **body: Any) -> None:
        HTTP.post(self.url + path, json=body).raise_for_status()

    def trouble(self, **trouble: object) -> None:
        self.tell("/sandbox/troubles", **trouble)

    def striking(self) -> int:
        """Returns how many requests are being kept in trouble right now."""
        return int(self.ask("/sandbox/health")["striking"])

    def armed(self) -> list[object]:
        found: list[object] = self.ask("/sandbox/troubles")
        return found

    def heal(self) -> None:
        HTTP.delete(f"{self.url}/sandbox/troubles").raise_for_status()


class Processor(SandboxServer):
    """Issues payment tokens and charges them."""

    name = "processor"

    def books(self) -> Json:
        found: Json = self.ask("/sandbox/ledger")
        return found

    def tokens_of(self, purchase_id: str) -> list[Json]:
        tokens = self.books()["tokens"]
        return [one for one in tokens if one["shared_metadata"].get("purchase_id") == purchase_id]

    def entries_of(self, checkout_id: str) -> list[Json]:
        """Returns what the ledger says of a checkout."""
        books = self.books()
        intents = {
            one["id"]
            for one in books["payment_intents"]
            if one["metadata"].get("acp_checkout_session_id") == checkout_id
        }
        return [one for one in books["entries"] if one["payment_intent"] in intents]


class Shop(SandboxServer):
    """Sells over ACP, honestly unless told otherwise."""

    name = "shop"

    def __init__(
        self,
        folder: Path,
        processor: Processor,
        *options: str,
        called: str | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        super().__init__(folder, "--processor", processor.url, *options, called=called, env=env)
        self.processor = processor

    def reached_at(self, url: str) -> None:
        """Says where others reach it, before it is started."""
        self.command = (*self.command, "--base-url", url)

    def behave(self, **behaviour: Any) -> None:
        self.tell("/sandbox/behaviour", **behaviour)

    def state(self) -> Json:
        found: Json = self.ask("/sandbox/state")
        return found

    def stock(self, item: str, on_hand: int) -> None:
        self.tell(f"/sandbox/stock/{item}/{on_hand}")

    def order(self, order_id: str, action: str, **params: Any) -> Json:
        answer = HTTP.post(f"{self.url}/sandbox/orders/{order_id}/{action}", params=params)
        answer.raise_for_status()
        changed: Json = answer.json()
        return changed

    def status(self, checkout_id: str) -> str:
        """Returns a checkout's status, for waiting on it."""
        headers = {"Authorization": "Bearer sandbox-agent-key", "API-Version": API_VERSION}
        return str(HTTP.get(f"{self.url}/checkout_sessions/{checkout_id}", headers=headers).json()["status"])

    def sales_of(self, checkout_id: str) -> list[Json]:
        return [sale for sale in self.state()["sales"] if sale["checkout"] == checkout_id]

    def entries_of(self, checkout_id: str, kind: str = "charge") -> list[Json]:
        return [entry for entry in self.processor.entries_of(checkout_id) if entry["kind"] == kind]


class PaidApi(SandboxServer):
    """An API that answers 402, with a facilitator and a chain of its own."""

    name = "paid_api"

    def __init__(self, folder: Path, processor: Processor, *options: str) -> None:
        super().__init__(folder, "--processor", processor.url, *options)

    @property
    def rpc(self) -> str:
        """Where its chain answers."""
        return f"{self.url}/facilitator/rpc"

    def transfers(self) -> list[Json]:
        found: list[Json] = self.ask("/facilitator/sandbox/transfers")
        return found


class FacilitatorServer(SandboxServer):
    """Verifies and settles payments on a simulated chain."""

    name = "facilitator"
    health = "/supported"

    def transfers(self) -> list[Json]:
        found: list[Json] = self.ask("/sandbox/transfers")
        return found


Server = TypeVar("Server", bound=SandboxServer)


@contextmanager
def _serving(server: Server) -> Iterator[Server]:
    with server:
        yield server.wait()


@contextmanager
def running_processor(folder: Path) -> Iterator[Processor]:
    """Starts a processor, yields it once it serves, and kills it."""
    with _serving(Processor(folder)) as server:
        yield server


@contextmanager
def running_shop(folder: Path, processor: Processor, *options: str) -> Iterator[Shop]:
    """Starts a shop, yields it once it serves, and kills it."""
    with _serving(Shop(folder, processor, *options)) as server:
        yield server


def dev_sandbox(sandbox: Sandbox, folder: Path) -> list[Process]:
    """Returns the processes of a sandbox as ``waystation dev`` has it, not started yet."""
    return [
        Process(*command, log=folder / f"{name}.log", env=env)
        for name, (command, env) in sandbox.commands().items()
    ]


@contextmanager
def running_sandbox(folder: Path) -> Iterator[dict[str, SandboxServer]]:
    """Starts one of each, yields them by name once they serve, and kills them."""
    with (
        running_processor(folder) as processor,
        running_shop(folder, processor) as shop,
        _serving(PaidApi(folder, processor)) as paid_api,
        _serving(FacilitatorServer(folder)) as facilitator,
    ):
        yield {server.name: server for server in (processor, shop, paid_api, facilitator)}
