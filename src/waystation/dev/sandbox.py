"""The sandbox of ``waystation dev``: processor, shop and paid API, and how other processes find them."""

import json
import secrets
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from waystation.dev.local import read_kept, write_private
from waystation.dev.ports import free_ports
from waystation.protocols.acp import WEBHOOK_PATH

SANDBOX_FILE: Final = "sandbox.json"
PARTS: Final = ("processor", "shop", "paid-api")


class Sandbox:
    """Three servers whose ports and keys are chosen once and kept in the state folder.

    Args:
        folder: the state folder.
        api_url: where the shop sends its webhooks.
        ports: those that a person has chosen, one for each of ``PARTS``; they are kept too.
    """

    def __init__(self, folder: Path, api_url: str, ports: Sequence[int] = ()) -> None:
        self._folder, self._api_url = folder, api_url
        known = read_kept(folder / SANDBOX_FILE)
        chosen = {part: str(port) for part, port in zip(PARTS, ports, strict=False)}
        self._ports = chosen or _ports(known.get("ports", {}))
        self._secrets: dict[str, str] = known.get("secrets") or {
            "shop_key": f"shop_{secrets.token_urlsafe(24)}",
            "webhook_secret": f"whsec_{secrets.token_hex(24)}",
            "wallet_key": f"0x{secrets.token_hex(32)}",
        }
        write_private(folder / SANDBOX_FILE, {"ports": self._ports, "secrets": self._secrets})

    def url(self, part: str) -> str:
        """Returns the URL of ``processor``, ``shop`` or ``paid-api``."""
        return f"http://127.0.0.1:{self._ports[part]}"

    def health_urls(self) -> list[str]:
        """Returns the URLs that respond once each part is ready."""
        return [f"{self.url(part)}/sandbox/health" for part in PARTS]

    def commands(self) -> dict[str, tuple[list[str], dict[str, str]]]:
        """Returns, by part, the command and its environment (secrets stay out of command lines)."""
        processor = ["--processor", self.url("processor")]
        shop = [*processor, "--webhook-url", self._api_url + WEBHOOK_PATH]
        shop_env = {
            "WAYSTATION_SHOP_API_KEY": self._secrets["shop_key"],
            "WAYSTATION_SHOP_WEBHOOK_SECRET": self._secrets["webhook_secret"],
        }
        return {
            "processor": (self._command("processor", []), {}),
            "shop": (self._command("shop", shop), shop_env),
            "paid-api": (self._command("paid-api", processor), {}),
        }

    def _command(self, part: str, options: list[str]) -> list[str]:
        module = f"waystation.sandbox.{part.replace('-', '_')}"
        data = str(self._folder / "sandbox" / part)
        return [sys.executable, "-m", module, "--port", str(self._ports[part]), "--data", data, *options]

    def worker_environment(self) -> dict[str, str]:
        """Returns the settings with which the worker buys at the shop and pays at the paid API."""
        return {
            **self.agent_environment(),
            "WAYSTATION_STRIPE_KEY": "sk_test_agent",
            "WAYSTATION_STRIPE_API_BASE": self.url("processor"),
            "WAYSTATION_WALLET_PRIVATE_KEY": self._secrets["wallet_key"],
            "WAYSTATION_WALLET_RPC_URL": f"{self.url('paid-api')}/facilitator/rpc",
        }

    def agent_environment(self) -> dict[str, str]:
        """Returns the settings with which agents search the shop; they hold nothing that pays."""
        return {"WAYSTATION_SELLER_CREDENTIALS": json.dumps({self.url("shop"): self._secrets["shop_key"]})}

    def api_environment(self) -> dict[str, str]:
        """Returns the settings with which the API recognizes the shop's webhooks."""
        return {
            "WAYSTATION_SELLER_WEBHOOK_SECRETS": json.dumps(
                {self.url("shop"): [self._secrets["webhook_secret"]]}
            )
        }


def chosen_ports(first: int | None) -> Sequence[int]:
    """Returns the ports of ``PARTS`` from the first one on; none if a person has not chosen it."""
    return () if first is None else range(first, first + len(PARTS))


def _ports(known: dict[str, str]) -> dict[str, str]:
    """Returns the previous ports where they are free; a part whose port is taken moves."""
    ports: dict[str, str] = {}
    for part, other in zip(PARTS, free_ports(len(PARTS)), strict=True):
        port = int(known.get(part, other))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                port = other
        ports[part] = str(port)
    return ports
