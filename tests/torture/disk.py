"""A small disk of its own for what may fill up, where the machine lets us mount one."""

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SIZE_MEGABYTES: Final = 48
PIECE_BYTES: Final = 1_048_576


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mounts a small disk in the folder; yields whether that worked, else the folder is an ordinary one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MEGABYTES}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


async def fill(folder: Path, seconds: float) -> None:
    """Leaves no room on the folder's disk for a while."""
    filler = folder / "filler"
    try:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(_fill, filler)
        await asyncio.sleep(seconds)
    finally:
        filler.unlink(missing_ok=True)


def _fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        for size in (PIECE_BYTES, 4_096):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
