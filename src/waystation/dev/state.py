"""The state folder of ``waystation dev``: its keys, and who may use it."""

import asyncio
import fcntl
import json
import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, TextIO

from waystation.browser_guard import LOOPBACK_NAMES
from waystation.dev.local import (
    AGENT_FILE,
    APPROVER_KEY,
    CLIENT_FILE,
    DECISION_KEY,
    SECRETS_FILE,
    read_kept,
    write_private,
)
from waystation.errors import StartError
from waystation.folders import made_folder
from waystation.proofs import Signer, new_signing_key
from waystation.settings import hash_api_key
from waystation.temporal.encryption import generate_key
from waystation.web_push import VapidSigner, new_vapid_keys

LOCK_TIMEOUT_SECONDS = 5.0
"""How long to wait for a killed predecessor's processes to exit."""
ROLES = ("service", "agent", "operator", "approver", "client")
VAPID_SUBJECT = "mailto:dev@waystation.example"
"""Nobody: push services ask for an address to complain to."""
Part = Literal["worker", "agent", "api"]
PARTS: tuple[Part, ...] = ("worker", "agent", "api")


class DevState:
    """The state folder: keys, database, stored payloads, logs, process ids.

    Only one ``waystation dev`` uses it at a time: two servers would corrupt one database.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        for part in (".", "logs", "run"):
            made_folder(self.folder / part, "--state")
        self._lock: TextIO | None = None
        self._secrets = self._load()

    def _load(self) -> dict[str, str]:
        path = self.folder / SECRETS_FILE
        made: dict[str, str] = read_kept(path)
        fresh: dict[str, Callable[[], str]] = {
            **{f"{role}_key": partial(_new_api_key, role) for role in ROLES},
            "token_secret": lambda: secrets.token_urlsafe(48),
            "encryption_key": lambda: f"dev:{generate_key()}",
            "token_key": lambda: f"dev:{generate_key()}",
            DECISION_KEY: lambda: new_signing_key("dev"),
            "vapid_key": lambda: new_vapid_keys()[0],
        }
        if missing := [name for name in fresh if name not in made]:
            made |= {name: fresh[name]() for name in missing}
            write_private(path, made)
        return made

    async def lock(self) -> int:
        """Locks the folder for this process and its children, and returns the handle to pass to them.

        After a kill -9 the children hold the lock until the last of them exits. Raises ``StartError`` if
        another ``waystation dev`` holds it.
        """
        self._lock = self._lock or (self.folder / "run" / "lock").open("a")
        deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StartError(
                        f"another 'waystation dev' uses {self.folder}; stop it, or choose another "
                        "folder with --state."
                    ) from None
                await asyncio.sleep(0.1)
            else:
                return self._lock.fileno()

    def unlock(self) -> None:
        """Releases the folder."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def pid_file(self, name: str) -> Path:
        """Returns the file that holds a child's process id while it runs."""
        return self.folder / "run" / f"{name}.pid"

    def log_file(self, name: str) -> Path:
        """Returns the file for a child's output."""
        return self.folder / "logs" / f"{name}.log"

    def key(self, role: str) -> str:
        """Returns the API key of a role."""
        return self._secrets[f"{role}_key"]

    def environment(self, part: Part, port: int, temporal_port: int) -> dict[str, str]:
        """Returns the settings of one kind of child process: what that kind needs, and no other's keys."""
        common = {
            "TEMPORAL_ADDRESS": f"127.0.0.1:{temporal_port}",
            "WAYSTATION_URL": f"http://127.0.0.1:{port}",
            "WAYSTATION_ENCRYPTION_KEYS": json.dumps([self._secrets["encryption_key"]]),
            "WAYSTATION_STORAGE_DIR": str(self.folder / "payloads"),
            "WAYSTATION_ALLOWED_NETWORKS": json.dumps(["127.0.0.0/8", "::1/128"]),
            "WAYSTATION_PUSH_NETWORKS": json.dumps(["127.0.0.0/8", "::1/128"]),
            "WAYSTATION_WEBHOOK_NETWORKS": json.dumps(["127.0.0.0/8", "::1/128"]),
            "WAYSTATION_ALLOWANCE_JOURNAL": str(self.folder / "allowances.sqlite3"),
            "PYTHONUNBUFFERED": "1",
        }
        match part:
            case "agent":
                return common | {"WAYSTATION_API_KEY": self.key("agent")}
            case "worker":
                return common | {
                    "WAYSTATION_API_KEY": self.key("agent"),
                    "WAYSTATION_TOKEN_KEYS": json.dumps([self._secrets["token_key"]]),
                    "WAYSTATION_DECISION_PUBLIC_KEYS": json.dumps(
                        [Signer.of(self._secrets[DECISION_KEY]).public_key]
                    ),
                    "WAYSTATION_VAPID_PRIVATE_KEY": self._secrets["vapid_key"],
                    "WAYSTATION_VAPID_SUBJECT": VAPID_SUBJECT,
                    # For trying Temporal's command line; whoever is on this machine has every key anyway.
                    "WAYSTATION_UNSIGNED_DECISIONS": "true",
                }
            case "api":
                keys = [
                    {
                        "id": f"dev-{role}",
                        "role": role,
                        "sha256": hash_api_key(self.key(role)),
                        "agents": ["*"],
                    }
                    for role in ROLES
                ]
                return common | {
                    "WAYSTATION_HOST": "127.0.0.1",
                    "WAYSTATION_ALLOWED_HOSTS": json.dumps(LOOPBACK_NAMES),
                    "WAYSTATION_PORT": str(port),
                    "WAYSTATION_API_KEYS": json.dumps(keys),
                    "WAYSTATION_TOKEN_SECRETS": json.dumps([self._secrets["token_secret"]]),
                    "WAYSTATION_DECISION_KEYS": json.dumps([self._secrets[DECISION_KEY]]),
                    "WAYSTATION_VAPID_PUBLIC_KEY": VapidSigner(
                        self._secrets["vapid_key"], VAPID_SUBJECT
                    ).public_key,
                }

    def write_client_environment(self, url: str) -> None:
        """Writes what ``waystation session …`` in the same folder needs to connect."""
        values = {
            "WAYSTATION_URL": url,
            "WAYSTATION_API_KEY": self.key("service"),
            APPROVER_KEY: self.key("approver"),
        }
        write_private(self.folder / CLIENT_FILE, values)

    def write_agent_environment(self, values: dict[str, str]) -> None:
        """Writes what ``waystation agent …`` in the same folder needs: what the agents here have."""
        write_private(self.folder / AGENT_FILE, values)


def _new_api_key(role: str) -> str:
    return f"ws_{role}_{secrets.token_urlsafe(32)}"
