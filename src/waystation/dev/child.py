"""Runs a command that must not outlive its parent: ``python -m waystation.dev.child PID_FILE COMMAND …``.

The parent holds the other end of standard input. When the parent dies, even by kill -9, that pipe closes and
the command is killed. On Linux the kernel also kills the command when this process is killed. ``PID_FILE``
holds the command's process id while it runs.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

KILL_AFTER_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Runs the command and returns its exit code."""
    pid_file = Path(sys.argv[1])
    child = subprocess.Popen(  # noqa: S603
        sys.argv[2:], stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent()
    )
    pid_file.write_text(f"{child.pid}\n")

    def stop(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        threading.Timer(KILL_AFTER_SECONDS, child.kill).start()

    def watch_parent() -> None:
        while os.read(0, 1_024):
            pass
        # Whoever killed the parent that way meant to kill everything.
        with contextlib.suppress(ProcessLookupError):
            child.kill()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=watch_parent, daemon=True).start()
    code = child.wait()
    pid_file.unlink(missing_ok=True)
    sys.stdout.flush()
    os._exit(code if code >= 0 else 128 - code)


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return ask


if __name__ == "__main__":
    main()
