"""Carries the server folders into the wheel as data under ``waystation/_server/``.

They keep their plain import names (``workflows``, ``activities``, ``api``) in a checkout. In site-packages
other packages own those names (LlamaIndex installs a ``workflows``), so the wheel puts them where only
``waystation dev|worker|api`` looks. An editable install uses the checkout itself and needs no copy.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SERVER_PARTS = ("workflows", "activities", "api", "console", "worker.py")


class ServerFolders(BuildHookInterface):  # type: ignore[misc, type-arg, unused-ignore]
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        for part in SERVER_PARTS:
            source = Path(self.root) / part
            if source.exists():
                build_data["force_include"][str(source)] = f"waystation/_server/{part}"
