"""Memory and processor time of processes, from /proc."""

import os
from pathlib import Path

from tests.world.process import Process

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def memory_bytes(process: Process) -> int:
    """Returns the resident memory of a process and its children, in bytes."""
    return sum(_resident_bytes(pid) for pid in _family(process.popen.pid))


def cpu_seconds(process: Process) -> float:
    """Returns the processor time that a process has used so far, in seconds."""
    fields = Path(f"/proc/{process.popen.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in _family(int(child)))]


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
