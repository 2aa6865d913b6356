"""The one record of a run: what each did and saw, a line of JSON each, written by several processes."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Recorder:
    """Appends lines; each is written at once, so that a killed process loses nothing that it has noted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, actor: str, operation: str, **what: Any) -> None:
        """Notes that ``actor`` did or saw something now; times are of the machine's monotonic clock."""
        line = {"at": round(time.monotonic(), 3), "actor": actor, "op": operation, **what}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def read_record(path: Path) -> Iterator[Line]:
    """Yields what was noted, in the order in which it was written."""
    with path.open() as lines:
        for line in lines:
            yield json.loads(line)
