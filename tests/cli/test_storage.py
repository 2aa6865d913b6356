"""``waystation storage prune`` as a process, against a real Temporal server."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT
from tests.world.temporal import TemporalServer
from waystation.dev.local import EXIT_MISCONFIGURED


def prune(*options: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WAYSTATION_")}
    return subprocess.run(
        [sys.executable, "-m", "waystation", "storage", "prune", *options],
        env={**kept, **env}, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_it_says_what_it_would_remove_and_then_removes_it(
    temporal_server: TemporalServer, tmp_path: Path
) -> None:
    old = tmp_path / "forgotten" / "payload"
    old.parent.mkdir()
    old.write_bytes(b"x" * 1_234)
    os.utime(old, (0, 0))
    env = {"TEMPORAL_ADDRESS": temporal_server.address, "WAYSTATION_STORAGE_DIR": str(tmp_path)}
    dry = prune("--dry-run", **env)
    assert dry.stdout.startswith("Would remove 1 files (1,234 bytes)"), dry.stderr
    assert old.exists()
    assert prune("--retention-hours", "1", **env).stdout.startswith("Removed 1 files (1,234 bytes)")
    assert not old.parent.exists()


def test_it_says_what_is_missing(temporal_server: TemporalServer, tmp_path: Path) -> None:
    without = prune(TEMPORAL_ADDRESS=temporal_server.address)
    assert without.returncode == EXIT_MISCONFIGURED
    assert "WAYSTATION_STORAGE_DIR" in without.stderr
    away = prune("--folder", str(tmp_path), TEMPORAL_ADDRESS="127.0.0.1:1")
    assert away.returncode == 1
    assert "Temporal can't be reached" in away.stderr
