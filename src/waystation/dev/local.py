"""What processes on one machine share: the state folder and the command's name."""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from waystation.errors import StartError

DEFAULT_STATE_FOLDER = Path(".waystation")
CLIENT_FILE = "client.json"
AGENT_FILE = "agent.json"
SECRETS_FILE = "secrets.json"
EXIT_FAILED = 1
"""The exit code of a command that failed; the same one may work later."""
EXIT_MISCONFIGURED = 2
"""The exit code of a command that would fail the same way again, as for options that don't exist."""
DECISION_KEY = "decision_key"
"""The name under which the secrets have the key that signs people's decisions."""
APPROVER_KEY = "approver_key"
"""The name under which the state folder has the key of the person who may approve purchases."""

_PLACE = ("TEMPORAL_ADDRESS", "WAYSTATION_URL", "WAYSTATION_ENCRYPTION_KEYS")
"""What tells one installation from another."""


def read_dev_environment(folder: Path) -> dict[str, str]:
    """Returns what ``waystation dev`` left for clients in its state folder; empty if there is none."""
    return _read(folder / CLIENT_FILE)


def read_agent_environment(folder: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Returns what ``waystation dev`` left for agents in its state folder, besides what is ``given``.

    Empty if there is none, or if ``given`` leads to another place: an agent must never mix the keys of two.
    """
    known = _read(folder / AGENT_FILE)
    keys = {known.get("WAYSTATION_API_KEY"), read_dev_environment(folder).get("WAYSTATION_API_KEY")}
    if given.get("WAYSTATION_API_KEY", known.get("WAYSTATION_API_KEY")) not in keys:
        return {}
    if any(given.get(name, known.get(name)) != known.get(name) for name in _PLACE):
        return {}
    return {name: value for name, value in known.items() if name not in given}


def _read(path: Path) -> dict[str, str]:
    with contextlib.suppress(StartError):
        return read_kept(path)
    return {}


def read_kept(path: Path) -> dict[str, Any]:
    """Returns what ``write_private`` has written; empty if there is nothing yet.

    Raises:
        StartError: The file was changed, and is no JSON object any more.
    """
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        kept = None
    if not isinstance(kept, dict):
        raise StartError(f"{path} can't be read as JSON; restore it, or choose another folder with --state.")
    return kept


def write_private(path: Path, content: object) -> None:
    """Writes JSON that nobody else may read, atomically even when killed."""
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(content, file, indent=2)
    unfinished.replace(path)


def command_name() -> str:
    """Returns how a person runs this command line: by name, or by its path if it isn't on ``PATH``."""
    if shutil.which("waystation"):
        return "waystation"
    beside = Path(sys.executable).with_name("waystation")
    with contextlib.suppress(ValueError):
        return str(beside.relative_to(Path.cwd()))
    return str(beside)
