"""Who sells, who moves money, who spends and decides: what the world has in profiles of money."""

import json
from pathlib import Path
from typing import Any, Final

from tests.torture.proxy import Proxy
from tests.world.market import SHOP_KEY, WEBHOOK_SECRETS, MarketProcesses
from tests.world.stack import Part
from waystation.protocols.acp import WEBHOOK_PATH
from waystation.settings import hash_api_key

PROFILES: Final = frozenset({"money", "all"})
"""Of runs that have a market."""
AGENT: Final = "shopper"
PEOPLE: Final = {
    # name: role, agents it speaks for
    "shopper": ("agent", [AGENT]),
    "alice": ("approver", []),
    "bob": ("approver", []),
    "mallory": ("approver", []),
    "stranger": ("agent", ["stranger"]),
}
"""Credentials of their own, beside one for each role. Mandates are alice's or bob's, and the shopper's."""
PEOPLE_KEYS: Final = {name: f"ws_{name}_key_for_tests_only" for name in PEOPLE}
STRIPE_KEY: Final = "sk_test_agent"
WALLET_KEY: Final = "0x" + "7a" * 32
WIRES: Final = ("processor", "paid-api", *WEBHOOK_SECRETS)
"""What is reached through a wire of its own."""


class Market(MarketProcesses):
    """The market's processes, the wires to them, and what Waystation is told of both."""

    def __init__(self, folder: Path, webhooks: str) -> None:
        super().__init__(folder, webhooks + WEBHOOK_PATH)
        self.wires: dict[str, Proxy] = {}

    def make_wires(self) -> dict[str, Proxy]:
        """Returns the wires to whom workers pay, by name, not started yet."""
        self.wires = {
            name: Proxy(name, lambda port=self.processes[name].port: [port])  # type: ignore[misc]
            for name in WIRES
        }
        return self.wires

    async def start(self) -> None:
        """Starts all of them, once the wires have their addresses."""
        for name, shop in self.shops.items():
            shop.reached_at(self.wires[name].url)
        await super().start()

    def heal(self) -> None:
        """Takes back all troubles that have struck nobody yet."""
        for server in (self.processor, self.paid_api, *self.shops.values()):
            server.heal()

    def seller(self, name: str) -> str:
        """Returns the web origin of a shop or the paid API, as mandates name it."""
        return self.wires[name].url

    def env(self, part: Part, *, holds_keys: bool = False) -> dict[str, str]:
        """Returns what one part of Waystation is told of the market; some agents can pay by themselves."""
        if part == "api":
            secrets = {self.seller(name): [secret] for name, secret in WEBHOOK_SECRETS.items()}
            return {"WAYSTATION_SELLER_WEBHOOK_SECRETS": json.dumps(secrets)}
        shops = [self.seller(name) for name in self.shops]
        env = {"WAYSTATION_SELLER_CREDENTIALS": json.dumps(dict.fromkeys(shops, SHOP_KEY))}
        if part == "worker" or holds_keys:
            env |= {
                "WAYSTATION_STRIPE_KEY": STRIPE_KEY,
                "WAYSTATION_STRIPE_API_BASE": self.wires["processor"].url,
                "WAYSTATION_WALLET_PRIVATE_KEY": WALLET_KEY,
                "WAYSTATION_WALLET_RPC_URL": f"{self.wires['paid-api'].url}/facilitator/rpc",
            }
        return env

    def secrets(self) -> dict[str, str]:
        """Returns what must be in no log, history or event."""
        return {
            **{f"key of {name}": key for name, key in PEOPLE_KEYS.items()},
            "key at the shops": SHOP_KEY,
            **{f"secret of {name}'s webhooks": secret for name, secret in WEBHOOK_SECRETS.items()},
            "key at the processor": STRIPE_KEY,
            "key of the wallet": WALLET_KEY.removeprefix("0x"),
        }


def with_people(api_keys: str) -> str:
    """Returns the setting of the API's keys with those of the people and agents of the market."""
    more: list[dict[str, Any]] = [
        {"id": name, "role": role, "sha256": hash_api_key(PEOPLE_KEYS[name]), "agents": agents}
        for name, (role, agents) in PEOPLE.items()
    ]
    return json.dumps([*json.loads(api_keys), *more])
